"""exec and attach over ``v4/v5.channel.k8s.io``: the first byte of each message names a channel.

0 is stdin, 1 stdout, 2 stderr, 3 the final status as JSON, 4 the terminal's size; in v5, 255 closes a channel.
"""

from typing import Any, Final

import anyio
import msgspec
from aiohttp import WSMsgType, web
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agent_sandbox.local.apiserver.endpoints.pod_streams import ExecStream
from agent_sandbox.local.apiserver.errors import StatusError
from agent_sandbox.local.apiserver.providers import ExecInput, Resize, StdinClosed, StdinData

_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2
_ERROR: Final = 3
_RESIZE: Final = 4
_CLOSE: Final = 255
_BUFFERED_MESSAGES: Final = 16
_MAX_CHUNK: Final = 32 * 1024


class ChannelSession:
    """The client's end of a command, on a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, inputs: MemoryObjectReceiveStream[ExecInput]) -> None:
        self._socket = socket
        self._inputs = inputs
        self.finished = False

    async def receive(self) -> ExecInput | None:
        """The next thing from the client; None when it has gone."""
        try:
            return await self._inputs.receive()
        except anyio.EndOfStream:
            return None

    async def send_stdout(self, data: bytes) -> None:
        """Send output."""
        await self._send(_STDOUT, data)

    async def send_stderr(self, data: bytes) -> None:
        """Send error output."""
        await self._send(_STDERR, data)

    async def finish(self, exit_code: int) -> None:
        """Report how the command ended."""
        self.finished = True
        await self._send(_ERROR, msgspec.json.encode(exit_status(exit_code)))

    async def refuse(self, error: StatusError) -> None:
        """Report that the command could not be run."""
        self.finished = True
        await self._send(_ERROR, msgspec.json.encode(error.status()))

    async def greet(self) -> None:
        """An empty message tells the client that the command's streams stand."""
        await self._send_message(bytes([_STDOUT]))

    async def _send(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), _MAX_CHUNK):
            await self._send_message(bytes([channel]) + data[start : start + _MAX_CHUNK])

    async def _send_message(self, message: bytes) -> None:
        try:
            await self._socket.send_bytes(message)
        except (ConnectionError, RuntimeError) as error:
            raise anyio.BrokenResourceError from error


def exit_status(exit_code: int) -> dict[str, Any]:
    """The status that tells an exit code."""
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {exit_code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


async def serve_exec(socket: web.WebSocketResponse, stream: ExecStream, *, closes_channels: bool) -> None:
    """Run the command for the client; it ends when either side does."""
    sender, receiver = anyio.create_memory_object_stream[ExecInput](_BUFFERED_MESSAGES)
    session = ChannelSession(socket, receiver)
    async with anyio.create_task_group() as group, sender, receiver:
        group.start_soon(_read, socket, sender.clone(), closes_channels, group.cancel_scope, name="exec input")
        try:
            await session.greet()
            await stream.provider(stream.call, session)
        except StatusError as error:
            await session.refuse(error)
        except anyio.BrokenResourceError:
            # The client went away while it was sent something.
            pass
        group.cancel_scope.cancel()


async def _read(
    socket: web.WebSocketResponse,
    inputs: MemoryObjectSendStream[ExecInput],
    closes_channels: bool,
    connection: anyio.CancelScope,
) -> None:
    """Sort what the client sends; when it goes, the command ends."""
    async with inputs:
        async for message in socket:
            data = message.data.encode("latin-1") if message.type == WSMsgType.TEXT else message.data
            found = _parse(data, closes_channels=closes_channels)
            if found is not None:
                await inputs.send(found)
    connection.cancel()


def _parse(data: bytes, *, closes_channels: bool) -> ExecInput | None:
    if not data:
        return None
    channel, body = data[0], data[1:]
    if channel == _STDIN and body:
        return StdinData(body)
    if channel == _RESIZE:
        return _parse_size(body)
    if channel == _CLOSE and closes_channels and body[:1] == bytes([_STDIN]):
        return StdinClosed()
    return None


def _parse_size(body: bytes) -> Resize | None:
    try:
        size = msgspec.json.decode(body)
        return Resize(int(size["Width"]), int(size["Height"]))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        # A size that cannot be read is no reason to end a session.
        return None
