"""Requests that try to make two readers disagree, or to hold the router up."""

from typing import Any

import pytest

HEAD = b"X-Sandbox-ID: box\r\nX-Sandbox-Port: %d\r\n"


async def echo_head(visit: Any) -> None:
    await visit.answer(await visit.head())


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 5, 5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: +5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 0x5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length : 5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%bX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%b X: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%bX\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%b: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%bX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%bX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%bX: a\nX-Sandbox-ID: other\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n%b\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n%b\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: f\r\n%b\r\n", 400),
        (b"GET / x HTTP/1.1\r\nHost: f\r\n%b\r\n", 400),
        (b"GET /\r\nHost: f\r\n%b\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: f\r\n%b\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: f\r\n%b\r\n", 400),
        (b"GET / http/1.1\r\nHost: f\r\n%b\r\n", 400),
        (b"GE(T / HTTP/1.1\r\nHost: f\r\n%b\r\n", 400),
        (b"GET evil HTTP/1.1\r\nHost: f\r\n%b\r\n", 400),
        (b"GET ftp://x/ HTTP/1.1\r\nHost: f\r\n%b\r\n", 400),
        (b"CONNECT evil:443 HTTP/1.1\r\nHost: f\r\n%b\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%b" + b"X: y\r\n" * 300 + b"\r\n", 400),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: f\r\n%b\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: f\r\n%bX: " + b"a" * 70000, 431),
    ],
)
async def test_malformed_or_ambiguous_request_never_reaches_a_sandbox_whole(
    run_router: Any, request_bytes: bytes, status: int
) -> None:
    async with run_router() as place:
        whole: list[bytes] = []

        async def behave(visit: Any) -> None:
            head = await visit.head()
            if b"chunked" in head:
                whole.append(await visit.reader.readuntil(b"0\r\n\r\n"))
            else:
                whole.append(head)
            await visit.answer()

        box = await place.sandbox(behave)
        answer = await place.ask(request_bytes.replace(b"%b", HEAD % box.port))

        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
        assert b"Connection: close" in answer
        assert whole == []


async def test_absolute_target_is_routed_by_our_headers_and_its_authority_becomes_the_host(run_router: Any) -> None:
    async with run_router() as place:
        box = await place.sandbox(echo_head)
        answer = await place.ask(
            b"GET http://other.example/x?y HTTP/1.1\r\nHost: f\r\nConnection: close\r\n%b\r\n" % (HEAD % box.port)
        )

    assert b"GET /x?y HTTP/1.1\r\nHost: other.example\r\n" in answer


async def test_bytes_after_a_request_are_the_next_request_and_need_their_own_route(run_router: Any) -> None:
    """A smuggled second request gets no further than any other: it is checked by itself."""
    async with run_router() as place:
        box = await place.sandbox(echo_head)
        client = await place.client()
        await client.send(
            b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 0\r\n\r\nGET /admin HTTP/1.1\r\nHost: f\r\n\r\n"
            % (HEAD % box.port)
        )
        head, _ = await client.response()
        second, detail = await client.response()

    assert head.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 400")
    assert b"X-Sandbox-ID" in detail


@pytest.mark.parametrize("name", [b"X-Sandbox-ID", b"Host", b"Content-Length", b"Transfer-Encoding", b"Cookie"])
async def test_connection_header_cannot_take_framing_away(run_router: Any, name: bytes) -> None:
    seen: list[bytes] = []

    async def behave(visit: Any) -> None:
        seen.append(await visit.head() + await visit.reader.readexactly(5))
        await visit.answer()

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(
            b"POST / HTTP/1.1\r\nHost: f\r\n%bContent-Length: 5\r\nConnection: close, %b\r\n\r\nhello"
            % (HEAD % box.port, name)
        )

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Content-Length: 5\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\nhello")


async def test_slow_head_is_cut_off(run_router: Any) -> None:
    async with run_router(head_timeout=0.05) as place:
        answer = await place.ask(b"GET / HTTP/1.1\r\nHost: f\r\nX-")

    assert answer == b""


async def test_idle_connection_is_closed(run_router: Any) -> None:
    async with run_router(keepalive_timeout=0.05) as place:
        assert await place.ask(b"") == b""


async def test_response_that_contradicts_itself_is_not_passed_on(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(b"GET / HTTP/1.1\r\nHost: f\r\nConnection: close\r\n%b\r\n" % (HEAD % box.port))

    assert answer.startswith(b"HTTP/1.1 502")


async def test_switching_protocols_without_being_asked_is_refused(run_router: Any) -> None:
    async def behave(visit: Any) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")

    async with run_router() as place:
        box = await place.sandbox(behave)
        answer = await place.ask(b"GET / HTTP/1.1\r\nHost: f\r\nConnection: close\r\n%b\r\n" % (HEAD % box.port))

    assert answer.startswith(b"HTTP/1.1 502")


async def test_switching_protocols_in_the_middle_of_a_body_is_refused(run_router: Any, caplog: Any) -> None:
    async with run_router() as place:

        async def behave(visit: Any) -> None:
            await visit.head()
            await visit.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            await visit.reader.read()

        box = await place.sandbox(behave)
        head = b"POST / HTTP/1.1\r\nHost: f\r\nConnection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n"
        answer = await place.ask(head + HEAD % box.port + b"\r\n5\r\nhello\r\n")

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert "defect" not in caplog.text


async def test_h2c_upgrade_is_not_offered_to_the_sandbox(run_router: Any) -> None:
    async with run_router() as place:
        box = await place.sandbox(echo_head)
        answer = await place.ask(
            b"GET / HTTP/1.1\r\nHost: f\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABk\r\n%b\r\n" % (HEAD % box.port)
        )

    assert b"h2c" not in answer
    assert b"HTTP2" not in answer
