"""The key that a claim names opens what the claim holds, by every name and every route, and nothing else."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from agent_sandbox.router import AuthzMode
from agent_sandbox_api.access import AccessKey

CLAIM_KEY = {"authz": (AuthzMode.CLAIM_KEY,)}


async def greet(visit: Any) -> None:
    await visit.head()
    await visit.answer()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def token(key: AccessKey, name: str, uid: str = "", seconds: float = 60, **more: Any) -> str:
    settings: dict[str, Any] = {"namespace": "default", "expires": int(time.time() + seconds), **more}
    return key.sign(name=name, uid=uid or f"{name}-uid", **settings)


def by_header(name: str, port: int, credential: str) -> bytes:
    return (
        f"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: {name}\r\nX-Sandbox-Port: {port}\r\n"
        f"X-Sandbox-Authorization: Bearer {credential}\r\nConnection: close\r\n\r\n"
    ).encode()


def by_path(name: str, port: int, credential: str, header: str = "X-Sandbox-Authorization: Bearer ") -> bytes:
    return (
        f"GET /sandboxes/default/{name}/{port}/ HTTP/1.1\r\nHost: f\r\n{header}{credential}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


def by_path_and_cookie(name: str, port: int, credential: str) -> bytes:
    return by_path(name, port, credential, "Cookie: agent-sandbox-token=")


def by_link(name: str, port: int, credential: str) -> bytes:
    return (
        f"GET /sandboxes/default/{name}/{port}/?agent-sandbox-token={credential} HTTP/1.1\r\nHost: f\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


def by_host(name: str, port: int, credential: str) -> bytes:
    return (
        f"GET / HTTP/1.1\r\nHost: {port}-{name}-default.box.example\r\n"
        f"X-Sandbox-Authorization: Bearer {credential}\r\nConnection: close\r\n\r\n"
    ).encode()


def by_host_and_cookie(name: str, port: int, credential: str) -> bytes:
    return by_host(name, port, credential).replace(b"X-Sandbox-Authorization: Bearer ", b"Cookie: agent-sandbox-token=")


def as_websocket(name: str, port: int, credential: str) -> bytes:
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
    return by_path_and_cookie(name, port, credential).replace(b"Connection: close\r\n", upgrade)


ROUTES = [by_header, by_path, by_path_and_cookie, by_link, by_host, by_host_and_cookie, as_websocket]


@pytest.mark.parametrize("route", ROUTES)
async def test_tenants_credential_opens_its_own_sandbox_by_every_route_and_no_other(
    run_router: Any, route: Callable[[str, int, str], bytes]
) -> None:
    mine, theirs = AccessKey.generate(), AccessKey.generate()
    async with run_router(**CLAIM_KEY, domain="box.example") as place:
        a = await place.claimed(greet, "a", mine)
        b = await place.claimed(greet, "b", theirs)
        for name in ("a", "a-uid", "a-box", "a-box-uid"):
            assert status_of(await place.ask(route(name, a.port, token(mine, "a")))) in (200, 302)
        foreign = [
            token(mine, "a"),  # good, for another sandbox
            token(mine, "b"),  # says what it has no key for
            token(theirs, "b", "b-of-an-earlier-life"),
            token(theirs, "b", namespace="other"),
        ]
        answers = await asyncio.gather(
            *(
                place.ask(route(name, b.port, credential))
                for credential in foreign
                for name in ("b", "b-uid", "b-box", "b-box-uid", "nobody")
            )
        )

    assert {status_of(answer) for answer in answers} == {403}
    assert len({answer.partition(b"Date:")[2][35:] for answer in answers}) == 1, "the answers tell nothing apart"
    assert b.visits == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[:-2] + ("AA" if good[-2:] != "AA" else "BA"),
        lambda good: good.replace("v2.", "v1."),
        lambda good: good + "A",
        lambda good: good.split(".")[0] + "." + good.split(".")[1],
        lambda _: token(AccessKey.generate(), "a"),
        lambda _: "v2." + "A" * 5000,
        lambda _: "v2.bnVsbA." + "A" * 86,
        lambda _: "v2.W10." + "A" * 86,
    ],
)
async def test_damaged_or_invented_credential_opens_nothing(run_router: Any, damage: Callable[[str], str]) -> None:
    key = AccessKey.generate()
    async with run_router(**CLAIM_KEY) as place:
        a = await place.claimed(greet, "a", key)
        good = token(key, "a")

        assert status_of(await place.ask(by_header("a", a.port, good))) == 200
        assert status_of(await place.ask(by_header("a", a.port, damage(good)))) in (401, 403)
        assert a.visits == 1


async def test_expired_credential_and_wrong_port_are_refused(run_router: Any) -> None:
    key = AccessKey.generate()
    async with run_router(**CLAIM_KEY) as place:
        a = await place.claimed(greet, "a", key)
        expired = await place.ask(by_header("a", a.port, token(key, "a", seconds=-1)))
        other_port = await place.ask(by_header("a", a.port, token(key, "a", ports=[a.port + 1])))
        this_port = await place.ask(by_header("a", a.port, token(key, "a", ports=[a.port])))

    assert (status_of(expired), status_of(other_port), status_of(this_port)) == (401, 403, 200)
    assert b"expired" in expired


async def test_removing_the_annotation_ends_the_tokens_of_the_key_at_once(
    run_router: Any, replace_known: Callable[..., None]
) -> None:
    key, second = AccessKey.generate(), AccessKey.generate()
    async with run_router(**CLAIM_KEY) as place:
        a = await place.claimed(greet, "a")
        one = place.learn_of_claim("a", key)
        assert status_of(await place.ask(by_header("a", a.port, token(key, "a")))) == 200
        replace_known(place, one, second)

        assert status_of(await place.ask(by_header("a", a.port, token(key, "a")))) == 403
        assert status_of(await place.ask(by_header("a", a.port, token(second, "a")))) == 200


async def test_another_key_under_the_id_of_the_first_ends_the_tokens_of_the_first(
    run_router: Any, replace_known: Callable[..., None]
) -> None:
    """The router remembers which tokens it has checked, and with which key."""
    key, second = AccessKey.generate(), AccessKey.generate()
    exchanged = SimpleNamespace(annotations=dict(zip(key.annotations, second.annotations.values(), strict=True)))
    async with run_router(**CLAIM_KEY) as place:
        a = await place.claimed(greet, "a")
        one = place.learn_of_claim("a", key)
        signed = token(key, "a")
        assert status_of(await place.ask(by_header("a", a.port, signed))) == 200
        replace_known(place, one, exchanged)

        assert status_of(await place.ask(by_header("a", a.port, signed))) == 403


async def test_key_that_the_router_has_not_seen_yet_is_waited_for(
    run_router: Any, replace_known: Callable[..., None]
) -> None:
    key = AccessKey.generate()
    async with run_router(**CLAIM_KEY, wait_unknown=5) as place:
        a = await place.claimed(greet, "a")
        known = place.learn_of_claim("a")
        client = await place.client()
        await client.send(by_header("a", a.port, token(key, "a")))
        await anyio.wait_all_tasks_blocked()
        replace_known(place, known, key)

        assert status_of(await client.rest()) == 200


async def test_bare_sandbox_names_its_keys_itself(run_router: Any, learn_of_bare: Callable[..., Any]) -> None:
    key = AccessKey.generate()
    async with run_router(**CLAIM_KEY) as place:
        box = await place.claimed(greet, "other")
        learn_of_bare(place, "bare", key)

        assert status_of(await place.ask(by_header("bare", box.port, token(key, "bare")))) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", 200),
        (b"Origin: http://f\r\n", 200),
        (b"Origin: http://f:80\r\nSec-Fetch-Site: same-origin\r\n", 200),
        (b"Sec-Fetch-Site: none\r\n", 200),
        (b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", 200),
        (b"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n", 403),
        (b"Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n", 403),
        (b"Origin: http://8888-evil-default.box.example\r\n", 403),
        (b"Origin: null\r\n", 403),
        (b"Origin: http://f:8081\r\n", 403),
        (b"Origin: http://f\r\nOrigin: http://evil\r\n", 403),
    ],
)
async def test_cookie_does_not_count_for_the_pages_of_another_origin(
    run_router: Any, headers: bytes, status: int
) -> None:
    """Sandboxes below one domain are one site to a browser, which sends the cookie of each with the requests of all."""
    key = AccessKey.generate()
    async with run_router(**CLAIM_KEY) as place:
        a = await place.claimed(greet, "a", key)
        request = by_path_and_cookie("a", a.port, token(key, "a"))

        assert status_of(await place.ask(request.replace(b"Host: f\r\n", b"Host: f\r\n" + headers))) == status


@pytest.mark.parametrize("route", [by_host, by_host_and_cookie])
async def test_nobody_blocks_a_host_by_a_sandbox_whose_name_reads_alike(run_router: Any, route: Any) -> None:
    """The host can mean another one as well: the credential says which, and a stranger learns nothing."""
    key = AccessKey.generate()
    async with run_router(domain="box.example", **CLAIM_KEY, wait_unknown=0.05) as place:
        box = await place.claimed(greet, "x-b", key)
        before = [await place.ask(route("x-b", box.port, credential)) for credential in ("", "rubbish")]
        place.learn_of_sandbox("x", "b-default")
        after = [await place.ask(route("x-b", box.port, credential)) for credential in ("", "rubbish")]
        answer = await place.ask(route("x-b", box.port, token(key, "x-b")))
        foreign = await place.ask(route("x-b", box.port, token(AccessKey.generate(), "x-b")))

    assert status_of(answer) == 200
    assert [status_of(each) for each in after] == [status_of(each) for each in before] == [401, 401]
    assert status_of(foreign) == 403
    assert box.visits == 1


async def test_a_link_to_a_host_that_reads_alike_is_accepted(run_router: Any) -> None:
    key = AccessKey.generate()
    async with run_router(domain="box.example", **CLAIM_KEY) as place:
        box = await place.claimed(greet, "x-b", key)
        place.learn_of_sandbox("x", "b-default")
        link = by_host("x-b", box.port, "none").replace(b"X-Sandbox-Authorization: Bearer none\r\n", b"")
        query = f"/?agent-sandbox-token={token(key, 'x-b')} HTTP".encode()

        assert status_of(await place.ask(link.replace(b"/ HTTP", query, 1))) == 302
