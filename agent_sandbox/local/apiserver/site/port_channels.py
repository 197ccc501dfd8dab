"""port-forward over ``v4.channel.k8s.io``: two channels per port, one for data and one for an error.

Each channel begins with its port as two bytes, the low one first.
"""

import struct
from typing import Final

import anyio
from aiohttp import web
from anyio.abc import ByteStream

from agent_sandbox.local.apiserver.endpoints.pod_streams import PortForwardStream
from agent_sandbox.local.apiserver.site.pumping import pump, refused, write

_CHANNELS_PER_PORT: Final = 2


async def serve_ports(socket: web.WebSocketResponse, stream: PortForwardStream) -> None:
    """Connect to every port and carry bytes until the client goes or all ports are closed."""
    connections: dict[int, ByteStream] = {}
    for index, port in enumerate(stream.ports):
        for channel in (index * _CHANNELS_PER_PORT, index * _CHANNELS_PER_PORT + 1):
            await socket.send_bytes(bytes([channel]) + struct.pack("<H", port))
    try:
        async with anyio.create_task_group() as group:
            for index, port in enumerate(stream.ports):
                connection = await _connect(socket, stream, index, port)
                if connection is not None:
                    connections[index * _CHANNELS_PER_PORT] = connection
            if connections:
                group.start_soon(_send_all, socket, connections, group.cancel_scope, name="port-forward output")
                await _receive(socket, connections)
            group.cancel_scope.cancel()
    finally:  # also when the server stops and this is cancelled
        for connection in connections.values():
            await anyio.aclose_forcefully(connection)


async def _connect(
    socket: web.WebSocketResponse, stream: PortForwardStream, index: int, port: int
) -> ByteStream | None:
    try:
        return await stream.provider(stream.pod, port)
    except OSError as error:
        text = refused(port, stream.pod["metadata"]["name"], error)
        await socket.send_bytes(bytes([index * _CHANNELS_PER_PORT + 1]) + text.encode())
        return None


async def _send_all(
    socket: web.WebSocketResponse, connections: dict[int, ByteStream], forward: anyio.CancelScope
) -> None:
    async with anyio.create_task_group() as group:
        for channel, connection in connections.items():
            group.start_soon(_send, socket, channel, connection, name=f"port-forward channel {channel}")
    forward.cancel()


async def _send(socket: web.WebSocketResponse, channel: int, connection: ByteStream) -> None:
    async def send(chunk: bytes) -> None:
        await socket.send_bytes(bytes([channel]) + chunk)

    await pump(connection, send)


async def _receive(socket: web.WebSocketResponse, connections: dict[int, ByteStream]) -> None:
    async for message in socket:
        data = message.data if isinstance(message.data, bytes) else message.data.encode("latin-1")
        connection = connections.get(data[0]) if len(data) > 1 else None
        if connection is not None:
            await write(connection, data[1:])
