"""Browsers reach a sandbox by host or by path; its redirects and cookies stay where it is."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.router import TokenKeys

KEY = b"k" * 40


async def echo(visit: Any) -> None:
    head = await visit.head()
    extra = (
        b"Location: /login?next=%2F\r\nSet-Cookie: a=1; Path=/; HttpOnly\r\nSet-Cookie: b=2\r\n"
        b"Set-Cookie: c=3; path=/app\r\nContent-Location: http://front:80/x\r\nLink: </unchanged>\r\n"
    )
    await visit.answer(head, extra=extra)


def get(target: bytes, host: bytes = b"front:80", extra: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n%bConnection: close\r\n\r\n" % (target, host, extra)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


async def test_path_names_the_sandbox_and_is_taken_off(run_router: Any) -> None:
    async with run_router() as place:
        box = await place.sandbox(echo)
        prefix = b"/sandboxes/default/box/%d" % box.port
        answer = await place.ask(get(prefix + b"/a/%2F?q=1"))
        bare = await place.ask(get(prefix + b"?q"))

    assert b"GET /a/%2F?q=1 HTTP/1.1\r\n" in answer
    assert b"X-Forwarded-Prefix: " + prefix + b"\r\n" in answer
    assert b"Location: " + prefix + b"/login?next=%2F\r\n" in answer
    assert b"Content-Location: http://front:80" + prefix + b"/x\r\n" in answer
    assert b"Set-Cookie: a=1; Path=" + prefix + b"/; HttpOnly\r\n" in answer
    assert b"Set-Cookie: b=2; Path=" + prefix + b"/\r\n" in answer
    assert b"Set-Cookie: c=3; path=" + prefix + b"/app\r\n" in answer
    assert b"Link: </unchanged>\r\n" in answer
    assert b"GET /?q HTTP/1.1\r\n" in bare


@pytest.mark.parametrize("location", [b"//elsewhere/x", b"https://elsewhere/", b"relative", b"?q"])
async def test_redirect_to_elsewhere_is_not_touched(run_router: Any, location: bytes) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer(status=b"302 Found", extra=b"Location: %b\r\n" % location)

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(get(b"/sandboxes/default/box/%d/" % box.port))

    assert b"Location: " + location + b"\r\n" in answer


async def test_host_names_the_sandbox_and_everything_else_stays(run_router: Any) -> None:
    async with run_router(domain="box.example") as place:
        box = await place.sandbox(echo, "my-box")
        host = b"%d-my-box-default.BOX.example:8080" % box.port
        answer = await place.ask(get(b"/healthz", host))

    assert b"GET /healthz HTTP/1.1\r\nHost: " + host in answer
    assert b"Location: /login" in answer
    assert b"Set-Cookie: a=1; Path=/; HttpOnly\r\n" in answer


async def test_host_that_could_mean_two_sandboxes_is_refused(run_router: Any) -> None:
    async with run_router(domain="box.example") as place:
        place.learn_of_sandbox("a-b", "c")
        place.learn_of_sandbox("a", "b-c")
        answer = await place.ask(get(b"/", b"80-a-b-c.box.example"))

    assert status_of(answer) == 400
    assert b"Ambiguous" in answer


@pytest.mark.parametrize("host", [b"x.box.example", b"80.box.example", b"80-.box.example", b"999999-a-b.box.example"])
async def test_host_that_names_nothing_is_refused(run_router: Any, host: bytes) -> None:
    async with run_router(domain="box.example") as place:
        assert status_of(await place.ask(get(b"/", host))) == 400


async def test_link_with_a_credential_becomes_a_cookie_that_the_sandbox_never_sees(
    run_router: Any, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_bytes(KEY)
    keys = TokenKeys([KEY], clock=SystemClock())
    async with run_router(unsafe_allow_all=False, key_file=tmp_path / "keys", proto="https") as place:
        box = await place.sandbox(echo)
        other = await place.sandbox(echo, "other")
        token = keys.mint(namespace="default", name="box", ports=[box.port], lifetime=timedelta(hours=1)).encode()
        prefix = b"/sandboxes/default/box/%d" % box.port
        refused = await place.ask(get(prefix + b"/"))
        invited = await place.ask(get(prefix + b"/x?a=1&agent-sandbox-token=" + token + b"&b=2"))
        cookie = b"Cookie: mine=1; agent-sandbox-token=" + token + b"\r\n"
        entered = await place.ask(get(prefix + b"/x", extra=cookie))
        elsewhere = await place.ask(get(b"/sandboxes/default/other/%d/" % other.port, extra=cookie))
        other_port = await place.ask(get(b"/sandboxes/default/box/1/", extra=cookie))
        by_header = await place.ask(get(b"/", extra=cookie + b"X-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n" % box.port))

    assert status_of(refused) == 401
    assert status_of(invited) == 302
    assert b"Location: " + prefix + b"/x?a=1&b=2\r\n" in invited
    assert b"; Path=" + prefix + b"/; Expires=" in invited
    assert b"; HttpOnly; SameSite=Lax; Secure\r\n" in invited
    assert status_of(entered) == 200
    assert b"Cookie: mine=1\r\n" in entered
    assert token not in entered.partition(b"\r\n\r\n")[2]
    assert (status_of(elsewhere), status_of(other_port), status_of(by_header)) == (403, 403, 401)
    assert other.visits == 0


async def test_link_never_redirects_to_another_host(run_router: Any, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(KEY)
    token = TokenKeys([KEY], clock=SystemClock()).mint(namespace="default", name="box", lifetime=timedelta(hours=1))
    options = {"unsafe_allow_all": False, "key_file": tmp_path / "keys", "domain": "box.example"}
    async with run_router(**options) as place:
        box = await place.sandbox(echo)
        target = b"//evil.example/?agent-sandbox-token=" + token.encode()
        answer = await place.ask(get(target, b"%d-box-default.box.example" % box.port))

    assert b"Location: /evil.example/\r\n" in answer


async def test_program_that_knows_its_path_gets_it(run_router: Any) -> None:
    base = b""

    async def behave(visit: Any) -> None:
        extra = b"Location: %b/lab\r\nSet-Cookie: a=1; Path=%b/\r\nSet-Cookie: b=2; Path=/\r\n" % (base, base)
        await visit.answer(await visit.head(), extra=extra)

    async with run_router() as place:
        box = await place.sandbox(behave)
        base = b"/prefixed/default/box/%d" % box.port
        answer = await place.ask(get(base + b"/tree?q"))

    assert b"GET " + base + b"/tree?q HTTP/1.1\r\n" in answer
    assert b"X-Forwarded-Prefix" not in answer
    assert b"\r\nLocation: " + base + b"/lab\r\n" in answer
    assert b"Set-Cookie: a=1; Path=" + base + b"/\r\n" in answer
    assert b"Set-Cookie: b=2; Path=" + base + b"/\r\n" in answer


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        (b"a=1; Path=/x; Path=/", b"a=1; Path=BASE/x; Path=BASE/"),
        (b"a=1; path = /; PATH=/y", b"a=1; path = BASE/; PATH=BASE/y"),
        (b"a=1; Path=relative", b"a=1; Path=relative"),
        (b"agent-sandbox-token=theirs; Path=/", None),
        (b" agent-sandbox-token =theirs", None),
    ],
)
async def test_cookies_of_a_sandbox_stay_below_its_path_and_are_not_ours(
    run_router: Any, cookie: bytes, kept: bytes | None
) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer(extra=b"Set-Cookie: %b\r\n" % cookie)

    async with run_router() as place:
        box = await place.sandbox(behave)
        base = b"/sandboxes/default/box/%d" % box.port
        answer = await place.ask(get(base + b"/"))

    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"Set-Cookie")]
    assert lines == ([] if kept is None else [b"Set-Cookie: " + kept.replace(b"BASE", base)])
