"""The transport over sockets, against real servers that behave and misbehave."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from aiohttp import web

from agent_sandbox.kube import KubeClient, OutcomeUnknownError, UnreachableError
from agent_sandbox.kube.credentials import StaticToken, TokenFile
from agent_sandbox.kube.http import AiohttpTransport
from agent_sandbox.testing import VirtualClock
from agent_sandbox.testing.certificates import CertificateAuthority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A real HTTP server; its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_request_arrives_as_it_was_made_and_the_answer_comes_back_whole() -> None:
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        bodies.append(await request.read())
        return web.Response(status=201, body=b'{"kind":"Pod"}', headers={"X-Extra": "1"})

    async with served(handler) as url, AiohttpTransport(url + "/prefix/", user_agent="test/1") as transport:
        answer = await transport.request(
            "PATCH",
            "/api/v1/pods/a",
            query={"fieldManager": "a b", "labelSelector": "x in (a,b)"},
            body=b'{"a":1}',
            content_type="application/merge-patch+json",
            timeout=60,
        )

    assert (answer.status, answer.body, answer.headers["X-Extra"]) == (201, b'{"kind":"Pod"}', "1")
    (request,) = seen
    assert request.path == "/prefix/api/v1/pods/a"
    assert dict(request.query) == {"fieldManager": "a b", "labelSelector": "x in (a,b)"}
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.headers["User-Agent"] == "test/1"
    assert "Authorization" not in request.headers
    assert bodies == [b'{"a":1}']


async def test_nothing_listens_means_that_nothing_was_sent() -> None:
    async with AiohttpTransport("http://127.0.0.1:1") as transport:
        with pytest.raises(UnreachableError, match=r"GET http://127\.0\.0\.1:1/x: cannot connect"):
            await transport.request("GET", "/x", timeout=60)
        with pytest.raises(UnreachableError):
            async with transport.stream("GET", "/x", read_timeout=60):
                pass


async def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown() -> None:
    async def handler(_: web.Request) -> web.Response:
        await anyio.sleep(30)
        return web.Response()

    async with served(handler) as url, AiohttpTransport(url) as transport:
        with pytest.raises(OutcomeUnknownError, match=r"no answer within 0\.05 s"):
            await transport.request("POST", "/x", body=b"{}", timeout=0.05)


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("PATCH", 1), ("PUT", 1), ("DELETE", 1), ("GET", 2)])
async def test_a_connection_that_breaks_leaves_the_outcome_unknown(method: str, times: int) -> None:
    """A write is sent once, whatever happens: it may have taken effect. What only reads is asked once more."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.method)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with served(handler) as url, AiohttpTransport(url) as transport:
        with pytest.raises(OutcomeUnknownError, match="the connection broke"):
            await transport.request(method, "/x", body=None if method == "GET" else b"{}", timeout=60)
    assert seen == [method] * times


async def test_a_connection_that_the_server_closed_meanwhile_costs_a_reader_nothing() -> None:
    connections: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        connections.append(id(request.transport))
        if len(connections) == 2:
            request.transport.abort()
        return web.Response(text=str(len(connections)))

    async with served(handler) as url, AiohttpTransport(url) as transport:
        answers = [(await transport.request("GET", "/x", timeout=60)).body for _ in range(2)]
    assert answers == [b"1", b"3"]


async def test_on_401_a_rotated_token_is_read_again_and_the_request_repeated_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        if seen[-1] == "Bearer old":
            token.write_text("new\n")
        return web.Response(status=401 if seen[-1] == "Bearer old" else 200)

    async with served(handler) as url:
        credentials = TokenFile(token, clock=VirtualClock())
        async with AiohttpTransport(url, credentials=credentials) as transport:
            assert (await transport.request("GET", "/x", timeout=60)).status == 200
    assert seen == ["Bearer old", "Bearer new"]


async def test_a_401_with_the_same_token_is_the_answer(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    calls = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(status=401)

    async with served(handler) as url:
        credentials = TokenFile(tmp_path / "token", clock=VirtualClock())
        async with AiohttpTransport(url, credentials=credentials) as transport:
            assert (await transport.request("GET", "/x", timeout=60)).status == 401
    assert calls == 1


async def test_a_token_that_is_refused_although_it_was_just_rotated_is_not_tried_for_ever(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0")
    calls = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        token.write_text(str(calls))
        return web.Response(status=401)

    async with served(handler) as url:
        credentials = TokenFile(token, clock=VirtualClock())
        async with AiohttpTransport(url, credentials=credentials) as transport:
            assert (await transport.request("GET", "/x", timeout=60)).status == 401
    assert calls == 2


@pytest.mark.virtual_time
async def test_a_token_file_is_read_again_each_minute_and_survives_its_replacement(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    credentials = TokenFile(path, clock=virtual_clock)
    assert await credentials.authorization() == "Bearer one"

    path.write_text("two")
    await virtual_clock.sleep(59)
    assert await credentials.authorization() == "Bearer one"
    await virtual_clock.sleep(2)
    assert await credentials.authorization() == "Bearer two"

    path.unlink()
    await virtual_clock.sleep(61)
    assert await credentials.authorization() == "Bearer two"


async def test_a_stream_hands_out_what_arrives_and_notices_silence() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\n")
        await anyio.sleep(30)
        return response

    async with (
        served(handler) as url,
        AiohttpTransport(url) as transport,
        transport.stream("GET", "/x", read_timeout=0.1) as stream,
    ):
        chunks = aiter(stream)
        assert await anext(chunks) == b"one\n"
        with pytest.raises(OutcomeUnknownError, match=r"no answer within 0\.1 s"):
            await anext(chunks)


async def test_watches_do_not_take_the_connections_of_requests() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/quick":
            return web.Response()
        response = web.StreamResponse()
        await response.prepare(request)
        await anyio.sleep(30)
        return response

    async with (
        served(handler) as url,
        AiohttpTransport(url, pool_size=1) as transport,
        transport.stream("GET", "/a", read_timeout=None),
        transport.stream("GET", "/b", read_timeout=None),
    ):
        assert (await transport.request("GET", "/quick", timeout=60)).status == 200


async def test_a_client_speaks_over_sockets_as_over_memory() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": "a"}, "status": {"phase": "Running"}})

    from agent_sandbox_api.core import PODS

    async with served(handler) as url:
        client = KubeClient(AiohttpTransport(url))
        assert (await client.get(PODS, "a", "default")).status.phase == "Running"
        await client.aclose()


async def test_closing_while_being_cancelled_leaves_no_session_open() -> None:
    """Requests and streams have sessions of their own; a caller that Ctrl-C ends closes both."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path != "/watch":
            return web.Response(text="{}")
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"x")
        await anyio.sleep_forever()
        return stream

    async with served(handler) as url:
        transport = AiohttpTransport(url)
        await transport.request("GET", "/")
        async with transport.stream("GET", "/watch") as stream:
            assert [await anext(aiter(stream))] == [b"x"]
            session, connections = transport._watches, transport._connections
            with anyio.CancelScope() as scope:
                scope.cancel()
                await transport.aclose()

        assert session is not None
        assert session.closed
        assert connections is not None
        assert not connections.resting


async def test_a_task_that_is_cancelled_while_it_closes_leaves_no_session_open() -> None:
    """``Task.cancel()`` goes through a shielded scope, and hit the closing of the first session."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="{}")

    async with served(handler) as url:
        transport = AiohttpTransport(url)
        sessions = [transport._request_session(), transport._watch_session()]
        for session in sessions:
            async with session.get(url) as answer:
                await answer.read()
        closing = asyncio.get_running_loop().create_task(transport.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

        assert [session.closed for session in sessions] == [True, True]


# Connections


async def answered(stream: anyio.abc.SocketStream, answer: bytes, *, asked: int = 1) -> None:
    """Read so many requests without bodies, answering each."""
    for _ in range(asked):
        seen = b""
        while not seen.endswith(b"\r\n\r\n"):
            seen += await stream.receive()
        await stream.send(answer)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def listening(handle: Callable[[anyio.abc.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that speaks bytes; its URL."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await handle(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def test_requests_share_connections_and_wait_for_one_when_all_are_busy() -> None:
    connected: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        connected.append(request.transport)
        await anyio.sleep(0.01)
        return web.Response()

    async with (
        served(handler) as url,
        AiohttpTransport(url, pool_size=2) as transport,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(7):
            tasks.start_soon(transport.request, "POST", "/x")
    assert len(connected) == 7
    assert len(set(connected)) == 2


async def test_after_a_request_was_cancelled_nobody_gets_its_answer() -> None:
    async def handler(request: web.Request) -> web.Response:
        await anyio.sleep(0.2 if request.path == "/slow" else 0)
        return web.Response(text=request.path)

    async with served(handler) as url, AiohttpTransport(url, pool_size=1) as transport:
        with anyio.move_on_after(0.05):
            await transport.request("GET", "/slow")
        for _ in range(3):
            assert (await transport.request("GET", "/quick", timeout=60)).body == b"/quick"


async def test_what_a_server_says_unasked_is_nobodys_answer() -> None:
    async def handle(stream: anyio.abc.SocketStream) -> None:
        await answered(stream, OK + b"HTTP/1.1 500 Stale\r\nContent-Length: 0\r\n\r\n")
        await anyio.sleep(1)

    async with listening(handle) as url, AiohttpTransport(url) as transport:
        assert [(await transport.request("POST", "/x", timeout=60)).status for _ in range(3)] == [200] * 3


async def test_an_answer_without_sense_leaves_the_outcome_of_a_write_unknown() -> None:
    async def handle(stream: anyio.abc.SocketStream) -> None:
        await answered(stream, b"220 mail.example.com ESMTP\r\n\r\n")
        await anyio.sleep(1)

    async with listening(handle) as url, AiohttpTransport(url) as transport:
        with pytest.raises(OutcomeUnknownError, match="cannot be read: it begins with no status line"):
            await transport.request("POST", "/x", timeout=60)


async def test_an_answer_that_is_cut_leaves_the_outcome_of_a_write_unknown() -> None:
    async def handle(stream: anyio.abc.SocketStream) -> None:
        await answered(stream, OK[:-1])

    async with listening(handle) as url, AiohttpTransport(url) as transport:
        with pytest.raises(OutcomeUnknownError, match="the connection broke before the answer"):
            await transport.request("POST", "/x", timeout=60)


@pytest.mark.parametrize("name", ["a b", "a\r\nX: y", "a\u2028", "\u00e4"])
async def test_a_name_never_ends_a_line_of_a_request(name: str) -> None:
    async with AiohttpTransport("http://127.0.0.1:1") as transport:
        with pytest.raises(ValueError, match="cannot be asked for"):
            await transport.request("GET", f"/api/v1/pods/{name}")


async def test_a_credential_never_ends_a_line_of_a_request() -> None:
    async with AiohttpTransport("http://127.0.0.1:1", credentials=StaticToken("x\r\nImpersonate-User: y")) as transport:
        with pytest.raises(ValueError, match="the header Authorization") as caught:
            await transport.request("GET", "/x")
    assert "Impersonate" not in str(caught.value)


async def test_requests_go_through_a_proxy_that_is_named() -> None:
    seen: list[str] = []

    async def proxy(stream: anyio.abc.SocketStream) -> None:
        seen.append((await stream.receive()).decode().partition("\r\n")[0])
        await stream.send(OK)

    async with listening(proxy) as url, AiohttpTransport("http://kube.example:80", proxy=url) as transport:
        assert (await transport.request("POST", "/x", body=b"{}", timeout=60)).body == b"{}"
    assert seen == ["POST http://kube.example/x HTTP/1.1"]


async def test_the_servers_certificate_is_checked_against_the_name_that_it_must_have(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    pair = authority.server("server", ["kube.example"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    trust = ssl.create_default_context(cafile=str(authority.certificate_file))

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="{}")

    async with served(handler, context) as url:
        async with AiohttpTransport(url, tls=trust, server_hostname="kube.example") as transport:
            assert [(await transport.request("GET", "/x", timeout=60)).body for _ in range(2)] == [b"{}"] * 2
        for options in ({"tls": trust}, {"server_hostname": "kube.example"}):
            async with AiohttpTransport(url, **options) as stranger:
                with pytest.raises(UnreachableError, match="certificate verify failed"):
                    await stranger.request("GET", "/x", timeout=60)
