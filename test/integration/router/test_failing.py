"""What the router answers itself, and that it tells the truth about what was sent."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from agent_sandbox.router import AuthzMode, RouterConfigError, RouterOptions

GET = b"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nConnection: close\r\n\r\n"
UNUSED_PORT = 1


def parsed(answer: bytes) -> tuple[int, str | None, str]:
    """Status, reason and detail of an answer made by the router."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
    detail = msgspec.json.decode(body)["detail"] if body else ""
    return int(lines[0].split(" ")[1]), headers.get("x-sandbox-error"), detail


async def silent(visit: Any) -> None:
    await visit.reader.read(-1)


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        (b"", "X-Sandbox-ID header is required."),
        (b"X-Sandbox-ID: \r\n", "X-Sandbox-ID header is required."),
        (b"X-Sandbox-ID: 127.0.0.1:80/admin?\r\n", "Invalid sandbox ID format."),
        (b"X-Sandbox-ID: UPPER\r\n", "Invalid sandbox ID format."),
        (b"X-Sandbox-ID: a..b\r\n", "Invalid sandbox ID format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-ID: other\r\n", "The header x-sandbox-id must not be repeated."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Namespace: a.b\r\n", "Invalid namespace format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Namespace: a@b\r\n", "Invalid namespace format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Port: 99999\r\n", "Invalid port format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Port: 0\r\n", "Invalid port format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Port: +80\r\n", "Invalid port format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Timeout: inf\r\n", "Invalid timeout format."),
        (b"X-Sandbox-ID: box\r\nX-Sandbox-Timeout: -1\r\n", "Invalid timeout format."),
    ],
)
async def test_bad_routing_header_is_named(run_router: Any, headers: bytes, detail: str) -> None:
    async with run_router() as place:
        answer = await place.ask(b"GET / HTTP/1.1\r\nHost: f\r\n" + headers + b"\r\n")

    assert parsed(answer) == (400, "bad-request", detail)


async def test_healthz_is_ours_without_an_id_and_the_sandboxs_with_one(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer(b"its own")

    async with run_router() as place:
        box = await place.sandbox(behave)
        ours = await place.ask(b"GET /healthz HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n")
        theirs = await place.ask(GET.replace(b"/ ", b"/healthz ", 1) % box.port)

    assert ours.endswith(b'{"status": "ok"}')
    assert theirs.endswith(b"its own")


async def test_unknown_sandbox_is_not_found(run_router: Any) -> None:
    async with run_router() as place:
        status, reason, detail = parsed(await place.ask(GET % 80))

    assert (status, reason) == (404, "not-found")
    assert "box" in detail


async def test_refused_connection_is_unreachable_and_safe_to_repeat(run_router: Any) -> None:
    async with run_router() as place:
        await place.sandbox(silent)
        answer = await place.ask(GET % UNUSED_PORT)

    assert parsed(answer) == (502, "unreachable", "Could not connect to the backend sandbox: box")


async def test_connection_lost_after_the_request_is_broken(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()

    async with run_router() as place:
        box = await place.sandbox(behave)
        status, reason, _ = parsed(await place.ask(GET % box.port))

    assert (status, reason) == (502, "broken")


async def test_answer_that_is_no_http_is_broken(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with run_router() as place:
        box = await place.sandbox(behave)
        status, reason, _ = parsed(await place.ask(GET % box.port))

    assert (status, reason) == (502, "broken")


async def test_slow_sandbox_is_a_timeout(run_router: Any) -> None:
    async with run_router(response_timeout=0.05) as place:
        box = await place.sandbox(silent)
        answer = await place.ask(GET % box.port)

    assert parsed(answer) == (504, "timeout", "Timed out waiting for the backend sandbox: box")


async def test_callers_timeout_bounds_the_whole_exchange(run_router: Any) -> None:
    async with run_router() as place:
        box = await place.sandbox(silent)
        answer = await place.ask(GET.replace(b"Connection", b"X-Sandbox-Timeout: 0.05\r\nConnection") % box.port)

    assert parsed(answer)[:2] == (504, "timeout")


async def test_callers_longer_timeout_outlasts_the_general_patience(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await asyncio.sleep(0.1)  # as a legacy /execute, which says nothing before its command has ended
        await visit.send(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async with run_router(response_timeout=0.02) as place:
        box = await place.sandbox(behave)
        answer = await place.ask(GET.replace(b"Connection", b"X-Sandbox-Timeout: 30\r\nConnection") % box.port)

    assert answer.startswith(b"HTTP/1.1 204 ")


async def test_body_that_stalls_after_the_head_cuts_the_connection(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await visit.reader.read(-1)

    async with run_router(idle_timeout=0.05) as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(GET % box.port)
        await client.head()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.reader.readexactly(10)


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 11\r\n\r\nhello world", b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"],
)
async def test_body_over_the_limit_is_refused_with_413(run_router: Any, framing: bytes) -> None:
    async with run_router(max_body_bytes=10) as place:
        box = await place.sandbox(silent)
        head = b"POST / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n" % box.port
        status, reason, _ = parsed(await place.ask(head + framing))

    assert (status, reason) == (413, "too-large")


async def test_post_never_uses_a_kept_connection_and_get_repeats_on_a_fresh_one(run_router: Any) -> None:
    """A kept connection may be closed in the moment of its use: only requests without effect may risk it."""
    methods: list[bytes] = []

    async def behave(visit: Any) -> None:
        methods.append((await visit.head()).split(b" ")[0])
        await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        keep = b"%b / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nContent-Length: 0\r\n\r\n"
        for method in (b"GET", b"POST", b"GET"):
            await client.send(keep % (method, box.port))
            assert (await client.response())[1] == b"ok"

    assert methods == [b"GET", b"POST", b"GET"]
    assert box.visits == 3


async def test_get_with_a_body_uses_no_kept_connection(run_router: Any) -> None:
    """Its body may have had an effect, and it could not be sent again."""

    async def behave(visit: Any) -> None:
        while True:
            head = await visit.head()
            if b"Content-Length: 2" in head:
                await visit.reader.readexactly(2)
            await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        head = b"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n" % box.port
        for rest in (b"\r\n", b"Content-Length: 2\r\n\r\nhi"):
            await client.send(head + rest)
            assert (await client.response())[1] == b"ok"

    assert box.visits == 2


async def test_connection_on_which_a_sandbox_said_more_than_its_answer_is_not_kept(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        while True:
            await visit.head()
            await visit.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!"
            )

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        for _ in range(2):
            await client.send(
                b"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n\r\n" % box.port
            )
            assert (await client.response())[1] == b"ok"

    assert box.visits == 2


async def test_token_is_required_compared_and_may_rotate(run_router: Any, tmp_path: Path) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer()

    file = tmp_path / "tokens"
    file.write_text("# rotation\nnew-token\nold-token\n")

    def request(port: int, value: bytes) -> bytes:
        return GET.replace(b"Connection", value + b"Connection") % port

    async with run_router(unsafe_allow_all=False, token_file=file) as place:
        box = await place.sandbox(behave)
        missing = await place.ask(request(box.port, b""))
        wrong = await place.ask(request(box.port, b"X-Sandbox-Authorization: Bearer other\r\n"))
        basic = await place.ask(request(box.port, b"X-Sandbox-Authorization: Basic new-token\r\n"))
        app = await place.ask(request(box.port, b"Authorization: Bearer new-token\r\n"))
        good = [
            await place.ask(request(box.port, b"X-Sandbox-Authorization: Bearer %b\r\n" % token))
            for token in (b"new-token", b"old-token")
        ]
        probe = await place.ask(b"GET /healthz HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n")

    assert parsed(missing) == (401, "unauthenticated", "Missing or invalid X-Sandbox-Authorization header.")
    assert parsed(wrong) == (401, "unauthenticated", "Invalid token.")
    assert parsed(basic)[0] == parsed(app)[0] == 401
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in good)
    assert probe.startswith(b"HTTP/1.1 200")


def test_router_that_lets_everybody_in_must_be_told_so() -> None:
    with pytest.raises(RouterConfigError, match="unsafe-allow-all"):
        RouterOptions(authz=(AuthzMode.ALLOW_ALL,))


def test_router_for_everybody_stays_on_loopback() -> None:
    with pytest.raises(RouterConfigError, match="loopback"):
        RouterOptions(unsafe_allow_all=True, host="0.0.0.0")


async def test_stopping_lets_a_begun_exchange_end(run_router: Any) -> None:
    go_on = anyio.Event()

    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await go_on.wait()
        await visit.send(b"cd")

    async with run_router(drain_timeout=5) as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(GET % box.port)
        await client.head()
        place.tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            go_on.set()
            assert await client.reader.readexactly(4) == b"abcd"


async def test_early_answer_reaches_a_client_that_is_still_sending(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer(b"enough", status=b"413 Content Too Large")
        await visit.reader.read(-1)

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        head = b"POST / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n" % box.port
        head += b"Content-Length: 3000000\r\n\r\n"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send, head + b"x" * 3_000_000)
            answer = await client.rest()

    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"enough")


async def test_several_routers_share_a_port(run_router: Any) -> None:
    async with run_router(reuse_port=True) as first, run_router(reuse_port=True, port=first.port) as second:
        assert first.port == second.port
        assert (await second.ask(b"GET /healthz HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n")).endswith(b'"ok"}')
