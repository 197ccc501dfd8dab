"""The front: TLS, tokens, WebSockets, and ports that are taken."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from anyio.abc import ByteStream, SocketStream

from agent_sandbox.local.apiserver import (
    ApiServer,
    ExecCall,
    ExecSession,
    MemoryJournal,
    ObjectStore,
    Resize,
    StdinClosed,
    StdinData,
)
from agent_sandbox.local.apiserver.resource_type import JsonObject
from agent_sandbox.local.apiserver.site import ApiServerSite, PortTakenError

POD = {
    "metadata": {"name": "p"},
    "spec": {"nodeName": "local", "containers": [{"name": "main", "image": "i:1"}]},
}
PODS = "/api/v1/namespaces/default/pods"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[ApiServerSite, ApiServer, aiohttp.ClientSession]]:
    """A site with a Pod, and a client that it trusts."""
    server = ApiServer(ObjectStore(MemoryJournal()))
    await server.open()
    async with await ApiServerSite.prepare(server, folder) as site:
        trust = ssl.create_default_context(cafile=str(site.credentials.ca_file))
        headers = {"Authorization": f"Bearer {site.credentials.token}"}
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(site.url, connector=connector, headers=headers) as session:
            async with session.post(PODS, json=POD) as answer:
                assert answer.status == 201
            yield site, server, session
        # aiohttp closes TLS transports a moment after it says so.
        await asyncio.sleep(0)
    await server.aclose()


async def test_its_files_are_for_the_owner_only(tmp_path: Path) -> None:
    """Certificates, keys, the token and the kubeconfig."""
    async with running(tmp_path / "api"):
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "api").iterdir()}

    assert set(modes) == {"ca.crt", "ca.key", "server.crt", "server.key", "token", "kubeconfig"}
    assert set(modes.values()) == {0o600}


async def test_a_restart_keeps_the_token_and_the_authority(tmp_path: Path) -> None:
    """Clients stay valid."""
    async with running(tmp_path) as (site, _, _):
        first = (site.credentials.token, site.credentials.ca_file.read_bytes())
    async with running(tmp_path) as (site, _, _):
        second = (site.credentials.token, site.credentials.ca_file.read_bytes())

    assert first == second


async def test_nobody_gets_in_without_the_token(tmp_path: Path) -> None:
    """401 for no, wrong and other credentials."""
    async with running(tmp_path) as (_, _, session):
        for header in ("", "Bearer wrong", "Basic abc"):
            async with session.get(PODS, headers={"Authorization": header}) as answer:
                assert answer.status == 401
                assert (await answer.json())["reason"] == "Unauthorized"


async def test_health_needs_no_token(tmp_path: Path) -> None:
    """So that probes can ask."""
    async with running(tmp_path) as (_, _, session), session.get("/readyz", headers={"Authorization": ""}) as answer:
        assert (answer.status, await answer.text()) == (200, "ok")


async def test_a_body_beyond_the_limit_is_too_large(tmp_path: Path) -> None:
    """413, as in Kubernetes beyond 3 MiB."""
    body = io.BytesIO(b"x" * (3 * 1024 * 1024 + 1))
    async with running(tmp_path) as (_, _, session), session.post(PODS, data=body) as answer:
        assert answer.status == 413


async def endless(first: bytes) -> AsyncIterator[bytes]:
    """A body in chunks of which more is to come for ever."""
    yield first
    await anyio.sleep_forever()


async def test_a_body_without_a_length_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    """Chunks announce no length: the limit counts what comes."""
    async with running(tmp_path) as (_, _, session):
        with anyio.fail_after(60):
            async with session.post(PODS, data=endless(b"x" * (3 * 1024 * 1024 + 1))) as answer:
                assert answer.status == 413


async def test_the_body_of_a_stranger_is_not_read(tmp_path: Path) -> None:
    """Neither where it is refused nor at what everybody may ask: it would fill the memory."""
    async with running(tmp_path) as (_, _, session):
        for path, status in ((PODS, 401), ("/readyz", 200)):
            with anyio.fail_after(60):
                async with session.post(path, data=endless(b"x"), headers={"Authorization": ""}) as answer:
                    assert answer.status == status


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """With what to do."""
    async with running(tmp_path / "a") as (site, server, _):
        port = int(site.url.rsplit(":", 1)[1])
        second = await ApiServerSite.prepare(server, tmp_path / "b", port=port)
        with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1:{port} is in use.*--port"):
            await second.__aenter__()


async def test_a_warning_comes_as_a_header(tmp_path: Path) -> None:
    """Quoted as RFC 7234 has it."""
    async with running(tmp_path) as (_, _, session):
        body = {"metadata": {"name": "c"}, "nonsense": 1}
        async with session.post("/api/v1/namespaces/default/configmaps", json=body) as answer:
            assert answer.headers["Warning"] == r'299 - "unknown field \"nonsense\""'


async def _cat(call: ExecCall, session: ExecSession) -> None:
    """Echo input until it ends, then fail with the number of what came."""
    count = 0
    while True:
        found = await session.receive()
        match found:
            case StdinData(data):
                count += 1
                await session.send_stdout(data.upper())
            case Resize(columns, rows):
                await session.send_stderr(f"{columns}x{rows}".encode())
            case StdinClosed() | None:
                break
    await session.finish(count)


async def test_exec_carries_channels_both_ways(tmp_path: Path) -> None:
    """v5: stdin, a resize, the end of stdin, and the exit code as a status."""
    query = "command=cat&stdin=true&stdout=true&stderr=true"
    async with running(tmp_path) as (_, server, session):
        server.providers.exec = _cat
        async with session.ws_connect(f"{PODS}/p/exec?{query}", protocols=["v5.channel.k8s.io"]) as socket:
            await socket.send_bytes(b"\x00hello")
            await socket.send_bytes(b'\x04{"Width":80,"Height":24}')
            await socket.send_bytes(b"\xff\x00")
            messages = [message.data async for message in socket]

    assert socket.protocol == "v5.channel.k8s.io"
    assert messages[:3] == [b"\x01", b"\x01HELLO", b"\x0280x24"]
    assert messages[3][0] == 3
    assert b'"reason":"ExitCode","message":"1"' in messages[3]


async def test_exec_is_refused_before_the_upgrade(tmp_path: Path) -> None:
    """No Pod, no node, no command: a status, not a stream."""
    async with running(tmp_path) as (_, server, session):
        for path, status in ((f"{PODS}/q/exec?command=x", 404), (f"{PODS}/p/exec?command=x&stdout=true", 500)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(path, protocols=["v5.channel.k8s.io"])
            assert refused.value.status == status
        server.providers.exec = _cat
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{PODS}/p/exec?stdout=true", protocols=["v5.channel.k8s.io"])
        assert refused.value.status == 400


async def test_a_client_that_speaks_spdy_is_told_what_to_use(tmp_path: Path) -> None:
    """kubectl before 1.31, or one that is told not to use WebSockets."""
    async with running(tmp_path) as (_, _server, session):
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
        async with session.post(f"{PODS}/p/exec?command=x&stdout=true", headers=headers) as answer:
            status = await answer.json()
        async with session.post(f"{PODS}/p/exec?command=x&stdout=true") as plain:
            unasked = await plain.json()

    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert "use kubectl 1.31 or newer" in status["message"]
    assert unasked["message"] == "Upgrade request required"


async def test_a_client_that_goes_ends_the_command(tmp_path: Path) -> None:
    """The provider is cancelled."""
    ended = anyio.Event()

    async def endless(call: ExecCall, session: ExecSession) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with running(tmp_path) as (_, server, session):
        server.providers.exec = endless
        path = f"{PODS}/p/exec?command=x&stdout=true"
        async with session.ws_connect(path, protocols=["v4.channel.k8s.io"]) as socket:
            await socket.receive()
        with anyio.fail_after(60):
            await ended.wait()


async def test_a_port_is_forwarded_over_channels(tmp_path: Path) -> None:
    """As the Python clients do it."""

    async def shout(stream: SocketStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk.upper())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, shout)
        number = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def connect(pod: JsonObject, port: int) -> ByteStream:
            assert (pod["metadata"]["name"], port) == ("p", 80)
            return await anyio.connect_tcp("127.0.0.1", number)

        async with running(tmp_path) as (_, server, session):
            server.providers.port_forward = connect
            path = f"{PODS}/p/portforward?ports=80"
            async with session.ws_connect(path, protocols=["v4.channel.k8s.io"]) as socket:
                heads = [(await socket.receive()).data for _ in range(2)]
                await socket.send_bytes(b"\x00hello")
                answer = (await socket.receive()).data
        group.cancel_scope.cancel()

    assert heads == [b"\x00P\x00", b"\x01P\x00"]
    assert answer == b"\x00HELLO"
