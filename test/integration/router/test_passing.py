"""What goes through the router arrives as it was sent."""

import gzip
from typing import Any

import anyio
import pytest

REQUEST = b"GET %b HTTP/1.1\r\nHost: front\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nConnection: close\r\n%b\r\n"


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/a/../b",
        b"//double//slash",
        b"/%2F..%2f%2e%2E/x",
        b"/x?",
        b"/x??a=%20&b=+&&c",
        b"/;p=1?q=%zz",
        b"/\xc3\xa9?\xff=1",
        b"/a?b#c",
        b'/[]{}|\\^`<>"',
    ],
)
async def test_target_arrives_byte_for_byte(run_router: Any, target: bytes) -> None:
    seen: list[bytes] = []

    async def behave(visit: Any) -> None:
        seen.append(await visit.head())
        await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(REQUEST % (target, box.port, b""))

    assert seen[0].split(b"\r\n")[0] == b"GET " + target + b" HTTP/1.1"
    assert answer.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND", b"HEAD"])
async def test_every_method_passes(run_router: Any, method: bytes) -> None:
    async def behave(visit: Any) -> None:
        head = await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nX-Method: %b\r\nContent-Length: 0\r\n\r\n" % head.split(b" ")[0])

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(REQUEST.replace(b"GET", method, 1) % (b"/", box.port, b"Content-Length: 0\r\n"))

    assert b"X-Method: " + method in answer


async def test_headers_keep_spelling_and_authorization_while_the_routers_own_and_spoofed_ones_are_dropped(
    run_router: Any,
) -> None:
    seen: list[bytes] = []

    async def behave(visit: Any) -> None:
        seen.append(await visit.head())
        await visit.answer(extra=b"X-Sandbox-Error: fake\r\nSeT-Cookie: a=1\r\nSet-Cookie: b=2\r\n")

    extra = (
        b"AuthoriZation: Bearer app\r\nCookie: a=b\r\nX-Sandbox-Authorization: Bearer router\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6\r\n"
        b"X-Real-IP: 6.6.6.6\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers\r\nX-Named: 1\r\n"
        b"Connection: x-named\r\n"
    )
    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(REQUEST % (b"/", box.port, extra))

    lines = seen[0].split(b"\r\n")
    assert b"AuthoriZation: Bearer app" in lines
    assert b"Cookie: a=b" in lines
    assert b"Host: front" in lines
    assert b"X-Forwarded-For: 127.0.0.1" in lines
    assert b"X-Forwarded-Host: front" in lines
    assert b"X-Forwarded-Proto: http" in lines
    lowered = seen[0].lower()
    for gone in (b"x-sandbox-", b"6.6.6.6", b"evil", b"keep-alive", b"proxy-connection", b"\r\nte:", b"x-named"):
        assert gone not in lowered, gone
    assert b"SeT-Cookie: a=1\r\nSet-Cookie: b=2" in answer
    assert b"fake" not in answer


async def test_compressed_body_is_not_touched(run_router: Any) -> None:
    packed = gzip.compress(b"x" * 10000)

    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer(packed, extra=b"Content-Encoding: gzip\r\n")

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(REQUEST % (b"/", box.port, b"Accept-Encoding: gzip\r\n"))

    assert answer.partition(b"\r\n\r\n")[2] == packed


async def test_response_streams_while_the_sandbox_is_still_writing(run_router: Any) -> None:
    go_on = anyio.Event()

    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await visit.send(b"6\r\nfirst\n\r\n")
        await go_on.wait()
        await visit.send(b"7;ext=1\r\nsecond\n\r\n0\r\nTrailer: x\r\n\r\n")

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(REQUEST % (b"/", box.port, b""))
        head = await client.head()
        first = await client.reader.readexactly(len(b"6\r\nfirst\n\r\n"))
        go_on.set()
        rest = await client.rest()

    assert b"Transfer-Encoding: chunked" in head
    assert first == b"6\r\nfirst\n\r\n"
    assert rest == b"7\r\nsecond\n\r\n0\r\n\r\n"


async def test_request_body_streams_while_the_client_is_still_sending(run_router: Any) -> None:
    arrived = anyio.Event()
    bodies: list[bytes] = []

    async def behave(visit: Any) -> None:
        head = await visit.head()
        assert b"Transfer-Encoding: chunked" in head
        bodies.append(await visit.reader.readexactly(len(b"3\r\nabc\r\n")))
        arrived.set()
        bodies.append(await visit.reader.readuntil(b"0\r\n\r\n"))
        await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" % box.port
        )
        await client.send(b"3;x=y\r\nabc\r\n")
        await arrived.wait()
        await client.send(b"2\r\nde\r\n0\r\n\r\n")
        _, body = await client.response()

    assert bodies == [b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"]
    assert body == b"ok"


async def test_large_bodies_pass_both_ways_with_bounded_memory(run_router: Any) -> None:
    size = 8 * 1024 * 1024

    async def behave(visit: Any) -> None:
        await visit.head()
        data = await visit.reader.readexactly(size)
        await visit.answer(data)

    async with run_router() as place, anyio.create_task_group() as tasks:
        box = await place.sandbox(behave)
        client = await place.client()
        payload = bytes(range(256)) * (size // 256)
        head = b"PUT / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nContent-Length: %d\r\n\r\n"
        tasks.start_soon(client.send, head % (box.port, size) + payload)
        _, body = await client.response()

    assert body == payload


async def test_connection_serves_several_requests_and_pipelined_ones_in_order(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        while True:
            head = await visit.head()
            await visit.answer(head.split(b" ")[1])

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        one = b"GET %b HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n\r\n"
        await client.send(one % (b"/1", box.port) + one % (b"/2", box.port) + one % (b"/3", box.port))
        bodies = [(await client.response())[1] for _ in range(3)]

        assert bodies == [b"/1", b"/2", b"/3"]
        assert box.visits == 1


async def test_expect_continue_waits_for_the_sandboxs_word(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        head = await visit.head()
        assert b"Expect: 100-continue" in head
        await visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.answer(await visit.reader.readexactly(3))

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nExpect: 100-continue\r\n"
            b"Content-Length: 3\r\n\r\n" % box.port
        )
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        _, body = await client.response()

    assert body == b"abc"


async def test_refusal_of_an_expectation_reaches_the_client_without_its_body(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.answer(b"no", status=b"417 Expectation Failed")

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(
            b"POST / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\nExpect: 100-continue\r\n"
            b"Content-Length: 3000\r\n\r\n" % box.port
        )

    assert answer.startswith(b"HTTP/1.1 417")
    assert b"Connection: close" in answer


async def test_upgrade_becomes_a_tunnel_with_both_half_closes(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        head = await visit.head()
        assert b"Connection: Upgrade\r\nUpgrade: websocket" in head
        await visit.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        data = await visit.reader.read(-1)
        await visit.send(b"got " + data)

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(
            b"GET /ws HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n"
            b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly " % box.port
        )
        head = await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        await client.send(b"late")
        client.writer.write_eof()
        rest = await client.rest()

    assert head.startswith(b"HTTP/1.1 101")
    assert rest == b"got early late"


async def test_response_that_ends_with_its_connection_is_chunked_for_the_client(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(REQUEST % (b"/", box.port, b""))

    assert answer.endswith(b"9\r\nall of it\r\n0\r\n\r\n")


async def test_old_client_gets_no_chunks(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(b"GET / HTTP/1.0\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n\r\n" % box.port)

    assert answer.endswith(b"\r\n\r\nabc")
    assert b"chunked" not in answer


async def test_sandbox_sees_that_its_client_went_away(run_router: Any) -> None:
    gone = anyio.Event()

    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.reader.read(-1)
        gone.set()

    async with run_router() as place:
        box = await place.sandbox(behave)
        client = await place.client()
        await client.send(REQUEST % (b"/", box.port, b""))
        await anyio.wait_all_tasks_blocked()
        client.writer.close()
        with anyio.fail_after(60):
            await gone.wait()


async def test_early_hints_pass_before_the_answer(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(REQUEST % (b"/", box.port, b""))

    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_connection_whose_half_a_client_ended_is_not_kept_for_another(run_router: Any) -> None:
    """A client ends its half, so the sandbox sees ours end; it answers and would keep the connection."""

    over = anyio.Event()

    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.reader.read(-1)  # until the half ends
        await visit.answer()
        await over.wait()  # it has not got round to closing yet

    async def prompt(visit: Any) -> None:
        await visit.head()
        await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        request = b"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n" % box.port
        client = await place.client()
        await client.send(request + b"\r\n")
        client.writer.write_eof()
        first = await client.rest()
        box.behaviour = prompt
        second = await place.ask(request + b"Connection: close\r\n\r\n")
        over.set()

    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")
    assert box.visits == 2
