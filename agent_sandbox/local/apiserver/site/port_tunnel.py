"""port-forward as kubectl speaks it: SPDY streams inside a WebSocket.

For each connection the client opens two streams with the same ``requestid``: one for an error, one for data.
"""

from dataclasses import dataclass, field
from typing import Final

import anyio
from aiohttp import web
from anyio.abc import ByteStream, TaskGroup

from agent_sandbox.local.apiserver.endpoints.pod_streams import PortForwardStream
from agent_sandbox.local.apiserver.site.pumping import pump, refused, write
from agent_sandbox.local.apiserver.site.spdy import (
    Data,
    Frame,
    FrameReader,
    FrameWriter,
    GoAway,
    Opened,
    Ping,
    Reset,
    SpdyError,
)

TUNNEL_PROTOCOL: Final = "SPDY/3.1+portforward.k8s.io"


async def serve_tunnel(socket: web.WebSocketResponse, stream: PortForwardStream) -> None:
    """Serve connections to the Pod's ports until the client goes."""
    reader = FrameReader()
    async with anyio.create_task_group() as group:
        tunnel = _Tunnel(socket, stream, group)
        try:
            async for message in socket:
                for frame in reader.feed(message.data if isinstance(message.data, bytes) else b""):
                    await tunnel.take(frame)
        except (SpdyError, ConnectionError):
            # The connection is of no more use; closing it is all there is to say.
            pass
        group.cancel_scope.cancel()


@dataclass
class _Connection:
    """One connection that the client makes through the tunnel."""

    port: int
    error_stream: int | None = None
    data_stream: int | None = None
    target: ByteStream | None = None
    early: list[bytes] = field(default_factory=list)
    input_finished: bool = False


class _Tunnel:
    def __init__(self, socket: web.WebSocketResponse, stream: PortForwardStream, group: TaskGroup) -> None:
        self._socket = socket
        self._stream = stream
        self._group = group
        self._writer = FrameWriter()
        self._by_request: dict[str, _Connection] = {}
        self._by_stream: dict[int, _Connection] = {}

    async def take(self, frame: Frame) -> None:
        match frame:
            case Opened():
                await self._open(frame)
            case Data():
                await self._take_data(frame)
            case Reset():
                await self._drop(frame.stream)
            case Ping():
                await self._socket.send_bytes(self._writer.ping(frame.identifier))
            case GoAway():
                return

    async def _open(self, frame: Opened) -> None:
        await self._socket.send_bytes(self._writer.reply(frame.stream))
        request = frame.headers.get("requestid", "")
        port = int(frame.headers.get("port", "0"))
        connection = self._by_request.setdefault(request, _Connection(port))
        if frame.headers.get("streamtype") == "error":
            connection.error_stream = frame.stream
        else:
            connection.data_stream = frame.stream
            self._by_stream[frame.stream] = connection
        if connection.error_stream is not None and connection.data_stream is not None:
            del self._by_request[request]
            self._group.start_soon(self._serve, connection, name=f"port-forward to {port}")

    async def _take_data(self, frame: Data) -> None:
        connection = self._by_stream.get(frame.stream)
        if connection is None:
            return
        connection.input_finished |= frame.finished
        if connection.target is None:
            connection.early.append(frame.data)
            return
        if frame.data:
            await write(connection.target, frame.data)
        if frame.finished:
            await _finish_input(connection.target)

    async def _drop(self, stream: int) -> None:
        connection = self._by_stream.pop(stream, None)
        if connection is not None and connection.target is not None:
            await connection.target.aclose()

    async def _serve(self, connection: _Connection) -> None:
        assert connection.data_stream is not None
        assert connection.error_stream is not None
        error_text = b""
        try:
            target = await self._stream.provider(self._stream.pod, connection.port)
        except OSError as error:
            error_text = refused(connection.port, self._stream.pod["metadata"]["name"], error).encode()
        else:
            async with target:
                await self._carry(connection, target)
        await self._socket.send_bytes(self._writer.data(connection.error_stream, error_text, finish=True))
        await self._socket.send_bytes(self._writer.data(connection.data_stream, b"", finish=True))
        self._by_stream.pop(connection.data_stream, None)

    async def _carry(self, connection: _Connection, target: ByteStream) -> None:
        for chunk in connection.early:
            await write(target, chunk)
        connection.early.clear()
        connection.target = target
        if connection.input_finished:
            await _finish_input(target)
        stream = connection.data_stream
        assert stream is not None

        async def send(chunk: bytes) -> None:
            await self._socket.send_bytes(self._writer.data(stream, chunk))

        await pump(target, send)


async def _finish_input(target: ByteStream) -> None:
    try:
        await target.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        # It closed first.
        return
