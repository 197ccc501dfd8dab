"""Byte streams through the API server: port-forward to a Pod, over WebSocket.

In: a Pod and a port. Out: a connected socket, whose other end is the program in the Pod. The protocol is
``v4.channel.k8s.io``: each WebSocket carries one connection, each message begins with its channel (0 data, 1 error),
and the first message of a channel is the port again. It knows no half-close: who is done closes.
"""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

import aiohttp
import anyio
from anyio.abc import SocketStream, TaskGroup, UNIXSocketStream

from agent_sandbox.kube.client import KubeClient
from agent_sandbox.kube.errors import KubeError
from agent_sandbox_api.core import PODS

PORT_FORWARD_PROTOCOL: Final = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_CHUNK: Final = 1 << 16
_PORT: Final = struct.Struct("<H")


class StreamError(KubeError):
    """The stream cannot be opened, or the Pod's end refused it."""


@runtime_checkable
class WebSocketTransport(Protocol):
    """A transport that can also upgrade."""

    async def open_websocket(
        self, path: str, *, query: tuple[tuple[str, str], ...] = (), protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket; the caller closes it.

        Raises:
            ApiError: the server refuses.
            TransportError: it cannot be reached.
        """


class PortForwarder:
    """Opens connections to Pods' ports, and carries their bytes while its block lasts.

    Use it as an async context manager, entered and left in one task.
    """

    def __init__(self, kube: KubeClient) -> None:
        """
        Args:
            kube: the API server; its transport must be able to upgrade.

        Raises:
            StreamError: it is not.
        """
        if not isinstance(kube.transport, WebSocketTransport):
            raise StreamError(f"a {type(kube.transport).__name__} carries no WebSockets: connect to the server itself")
        self._transport: WebSocketTransport = kube.transport
        self._tasks: TaskGroup = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        # The error of the block is not shown to the task group, which would wrap it in a group: nobody who uses a
        # tunnel expects that. It leaves as it is, because nothing is returned here.
        await self._tasks.__aexit__(None, None, None)

    async def dial(self, namespace: str, pod: str, port: int) -> socket.socket:
        """A connected, non-blocking socket to that port.

        Whether a program listens there shows only when bytes flow: the Pod's end opens the port after it has agreed to
        the stream. If it cannot, the socket closes.

        Raises:
            StreamError: the Pod's end refused at once.
            ApiError: the API server refuses: no such Pod, no right to forward.
            TransportError: it cannot be reached.
        """
        websocket = await self._transport.open_websocket(
            PODS.path(namespace, pod, "portforward"),
            query=(("ports", str(port)),),
            protocols=(PORT_FORWARD_PROTOCOL,),
        )
        if websocket.protocol != PORT_FORWARD_PROTOCOL:
            await websocket.close()
            raise StreamError(
                f"Pod {namespace}/{pod}: the server speaks {websocket.protocol!r}, not {PORT_FORWARD_PROTOCOL}"
            )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._tasks.start_soon(_carry, websocket, theirs, name=f"port-forward {namespace}/{pod}:{port}")
        return ours


async def _carry(websocket: aiohttp.ClientWebSocketResponse, end: socket.socket) -> None:
    """Carry bytes both ways until either side closes."""
    async with (
        await UNIXSocketStream.from_socket(end) as local,
        _closing(websocket),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_upload, local, websocket, tasks, name="port-forward upload")
        await _download(websocket, local)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _closing(websocket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with anyio.move_on_after(2, shield=True):
            await websocket.close()


async def _upload(local: SocketStream, websocket: aiohttp.ClientWebSocketResponse, tasks: TaskGroup) -> None:
    try:
        while True:
            await websocket.send_bytes(bytes([_DATA]) + await local.receive(_CHUNK))
    except (anyio.EndOfStream, anyio.BrokenResourceError, aiohttp.ClientError, ConnectionError):
        tasks.cancel_scope.cancel()


async def _download(websocket: aiohttp.ClientWebSocketResponse, local: SocketStream) -> None:
    announced: set[int] = set()
    async for message in websocket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            return
        channel, payload = message.data[0], message.data[1:]
        if channel not in announced:
            announced.add(channel)
            payload = payload[_PORT.size :]
        if channel == _ERROR and payload:
            return  # the Pod's end gave up; the closed socket says so to whoever uses it
        if channel == _DATA and payload:
            try:
                await local.send(payload)
            except anyio.BrokenResourceError:
                return


__all__ = ["PORT_FORWARD_PROTOCOL", "PortForwarder", "StreamError", "WebSocketTransport"]
