"""A process in a sandbox, watched and fed over a WebSocket that may break and be opened again.

In: pieces of output, numbered by the daemon. Out: the same pieces, each once and in order, whatever happened to the
connection meanwhile. Three silences are told apart: a command that says nothing (the daemon sends heartbeats), a
network that is away (we connect again for as long as ``RECONNECT_SECONDS``), and a sandbox that is dead (a typed error
in seconds).
"""

import json
import secrets
import struct
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Self, cast

import aiohttp
import anyio

from agent_sandbox.sdk.collecting import Collector
from agent_sandbox.sdk.errors import (
    CommandTimeoutError,
    RequestTimeoutError,
    SandboxConnectionError,
    SandboxError,
    SandboxFileNotFoundError,
    SandboxGoneError,
    SandboxNotReadyError,
    SandboxOutcomeUnknownError,
    SandboxProcessNotFoundError,
    SandboxProtocolError,
)
from agent_sandbox.sdk.refusals import error_for_code
from agent_sandbox.sdk.results import OUTPUT_LIMIT, ExecutionResult, Output, OutputCallback, ProcessInfo
from agent_sandbox.sdk.wire import Wire, close_websocket

SILENCE_SECONDS: Final = 16.0
"""The daemon says something at least every 5 seconds: after three missed heartbeats the connection is dead."""

RECONNECT_SECONDS: Final = 60.0
"""How long a lost network is waited for before a stream gives up."""

DEAD_SECONDS: Final = 3.0
"""How long a sandbox that is reachable, but whose daemon is not, is waited for."""

STDIN_WINDOW: Final = 4 * 2**20
"""Bytes of standard input that may be under way, and are kept to be sent again after a reconnect."""

STDIN_PIECE: Final = 2**18
"""Bytes of standard input per message; the daemon closes a stream over messages that are too long."""

ACK_BYTES: Final = 2**20
"""The daemon holds back what was not confirmed, in case the connection breaks; so often it is confirmed."""

ATTEMPT_SECONDS: Final = 3.0
_PAUSE: Final = 0.25
_SHORTEST_PAUSE: Final = 0.004
_OUTPUT_HEAD: Final = struct.Struct(">BQ")
_STDIN_HEAD: Final = struct.Struct(">Q")
_CHANNELS: Final[Mapping[int, str]] = {1: "stdout", 2: "stderr"}


class AsyncProcess:
    """A process that was started, or found again. Iterate over it to get its output as it comes.

    >>> async def build(sandbox) -> None:
    ...     process = await sandbox.commands.start(["make", "-j4"])
    ...     async for output in process:
    ...         print(output.text, end="")
    ...     print(process.info.exit_code)

    It lives on in the sandbox when the handle, or its program, goes away; ``sandbox.commands.connect`` finds it again.

    Attributes:
        id: its name in this sandbox.
        info: what the daemon last said of it.
        missed: how many pieces of output were forgotten before this handle could read them.
    """

    def __init__(
        self,
        wire: Wire,
        info: ProcessInfo,
        *,
        after: int = 0,
        socket: aiohttp.ClientWebSocketResponse | None = None,
        reader: str | None = None,
    ) -> None:
        self.id: str = info.id
        self.info: ProcessInfo = info
        self.missed: int = 0
        # Names this handle to the daemon, so that a new connection of it takes the place of the old one.
        self._reader = reader or secrets.token_hex(8)
        self._wire = wire
        self._sequence = after
        self._socket = socket
        self._attaching = anyio.Lock()
        self._pieces: deque[Output] = deque()
        self._ended = False
        # What was handed out and not confirmed yet: its last number, and how many bytes.
        self._taken = after
        self._unconfirmed = 0
        # Standard input that the daemon has not confirmed, and the offset of its first byte.
        self._stdin = bytearray()
        self._stdin_offset = 0
        self._stdin_received = 0
        self._stdin_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Output:
        """The next piece of output; the end of the iteration is the end of the process.

        Raises:
            SandboxGoneError: the sandbox or its daemon died, and the process with it.
            SandboxConnectionError: the network was away for too long; the process may still run.
        """
        while not self._pieces:
            if self._ended:
                await self.detach()
                raise StopAsyncIteration
            await self._receive()
        piece = self._pieces.popleft()
        self._taken = piece.sequence
        self._unconfirmed += len(piece.data)
        return piece

    async def wait(
        self,
        *,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        max_output: int = OUTPUT_LIMIT,
    ) -> ExecutionResult:
        """Wait for the end, collecting what is still to come.

        Args:
            on_stdout: gets standard output as it comes.
            on_stderr: gets standard error as it comes.
            max_output: bytes kept of each; the rest is dropped and the result says so. Callbacks get all of it.

        Raises:
            CommandTimeoutError: it was killed because of its timeout; carries the output until then.
            SandboxGoneError: it was ended because the sandbox was deleted; carries the output until then.
            SandboxError: the sandbox died, or the network was away for too long.
        """
        stdout, stderr = Collector(max_output, on_stdout), Collector(max_output, on_stderr)
        async for output in self:
            await (stdout if output.channel == "stdout" else stderr).add(output.data)
        await stdout.finish()
        await stderr.finish()
        result = self._result(stdout, stderr)
        await self._wire.check_not_ended(result, f"command {list(self.info.argv)}")
        return result

    async def send_stdin(self, data: bytes | str) -> None:
        """Write to the process's standard input. It must have been started with ``stdin=True`` or a terminal.

        Waits while too much is under way, as with any pipe: what answers its input must also be read. Bytes arrive once
        and in order, reconnects included.

        Raises:
            SandboxProcessNotFoundError: it has ended.
            SandboxError: the sandbox died, or the network was away for too long.
        """
        content = memoryview(data.encode() if isinstance(data, str) else data)
        self._check_open()
        for start in range(0, len(content), STDIN_PIECE):
            await self._send_piece(bytes(content[start : start + STDIN_PIECE]))

    async def close_stdin(self) -> None:
        """Tell the process that no more input comes."""
        self._check_open()
        socket = await self._attach()
        self._stdin_closed = True
        await self._transmit(socket, {"type": "stdin_eof"})

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the process's terminal its new size."""
        await self._post("resize", {"cols": columns, "rows": rows})

    async def signal(self, signal: str | int, *, group: bool = True) -> None:
        """Send a signal, by default to the process and everything it started.

        Args:
            signal: name or number, for example ``SIGINT``.
            group: False sends it to the process alone.

        Raises:
            SandboxProcessNotFoundError: it has ended and is forgotten.
        """
        await self._post("signal", {"signal": signal, "scope": "group" if group else "process"})

    async def kill(self) -> None:
        """End the process and everything it started, at once. One that has ended already is fine."""
        try:
            await self.signal("SIGKILL")
        except SandboxProcessNotFoundError:
            return

    async def refresh(self) -> ProcessInfo:
        """Ask the daemon about the process.

        Raises:
            SandboxProcessNotFoundError: it does not know it any more.
        """
        try:
            answer = await self._wire.request(
                "GET", f"v1/processes/{self.id}", timeout=30, query={"reader": self._reader}
            )
        except SandboxFileNotFoundError as error:
            raise self._unknown(error.status) from error
        data = answer.json()
        self._note(data)
        return self.info

    async def detach(self) -> None:
        """Let go of the process without ending it; output until now is not lost for a later attachment."""
        await self._drop(self._socket)

    def _result(self, stdout: Collector, stderr: Collector) -> ExecutionResult:
        info = self.info
        if info.timed_out:
            raise CommandTimeoutError(
                f"command {list(info.argv)} was killed at its timeout",
                stdout=stdout.text,
                stderr=stderr.text,
                killed=True,
            )
        errors = stderr.kept + info.error.encode()
        duration = (info.finished - info.started).total_seconds() if info.finished and info.started else None
        return ExecutionResult(
            stdout=stdout.text,
            stderr=errors.decode("utf-8", "replace"),
            exit_code=info.exit_code if info.exit_code is not None else 127,
            stdout_truncated=stdout.truncated or self.missed > 0,
            stderr_truncated=stderr.truncated or self.missed > 0,
            duration=duration,
            stdout_bytes=stdout.kept,
            stderr_bytes=errors,
        )

    # Receiving

    async def _receive(self) -> None:
        """Wait for one message, opening the stream again where it broke."""
        socket = await self._attach()
        if self._unconfirmed >= ACK_BYTES:
            self._unconfirmed = 0
            # On a broken connection it means nothing, and what has already arrived over it must still be read.
            with suppress(aiohttp.ClientError, ConnectionError):
                await socket.send_str(json.dumps({"type": "ack", "seq": self._taken}))
        try:
            message = await socket.receive(timeout=SILENCE_SECONDS)
        except TimeoutError:
            await self._drop(socket)
            return
        if message.type is aiohttp.WSMsgType.BINARY:
            self._take_output(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            self._take_notice(message.json())
        elif not self._ended:
            await self._drop(socket)

    def _take_output(self, data: bytes) -> None:
        if len(data) < _OUTPUT_HEAD.size:
            raise SandboxProtocolError(f"process {self.id}: a piece of output is cut short")
        channel, sequence = _OUTPUT_HEAD.unpack_from(data)
        if sequence <= self._sequence:
            return  # sent twice, because a connection broke
        self._sequence = sequence
        name = cast("Any", _CHANNELS.get(channel, "stdout"))
        self._pieces.append(Output(name, data[_OUTPUT_HEAD.size :], sequence))

    def _take_notice(self, data: dict[str, Any]) -> None:
        match data.get("type"):
            case "process":
                self._note(data["process"])
            case "exit":
                self._note(data["process"])
                self._ended = True
            case "gap":
                last = int(data["last"])
                self.missed += max(0, last - max(self._sequence, int(data["first"]) - 1))
                self._sequence = max(self._sequence, last)
            case "error":
                if data.get("code") == "NOT_FOUND":
                    raise self._unknown(404)
                raise error_for_code(data.get("code", ""), str(data.get("message", "")), f"process {self.id}")
            case _:
                return  # a heartbeat, or something that a newer daemon says

    def _note(self, data: dict[str, Any]) -> None:
        self.info = read_process(data)
        self._stdin_received = int(data.get("stdin_received") or 0)
        # Confirmed is what the command has, or could have: so no more than the window is ever held for it.
        confirmed = int(data.get("stdin_written", self._stdin_received) or 0)
        if confirmed > self._stdin_offset:
            del self._stdin[: confirmed - self._stdin_offset]
            self._stdin_offset = confirmed

    # Connecting

    async def _attach(self) -> aiohttp.ClientWebSocketResponse:
        """The open stream; a broken one is opened again, and input that was not confirmed is sent again.

        Raises:
            SandboxGoneError: the sandbox or its daemon died.
            SandboxConnectionError: the network was away for too long.
        """
        async with self._attaching:
            began = anyio.current_time()
            while self._socket is None or self._socket.closed:
                socket = await self._reconnect(began)
                try:
                    await self._greet(socket)
                    self._socket = socket
                except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                    self._judge_silence(error, began, None)
                    await anyio.sleep(_PAUSE)
                finally:
                    if self._socket is not socket:
                        await close_websocket(socket)
            return self._socket

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Hear what the daemon has got, and send again what it has not. To one that has ended nothing is sent."""
        first = await socket.receive(timeout=SILENCE_SECONDS)
        if first.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionError(f"the stream ended with {first.type.name}")
        self._take_notice(first.json())
        if self.info.state == "running":
            await self._resend_stdin(socket)

    async def _reconnect(self, began: float) -> aiohttp.ClientWebSocketResponse:
        open_since: float | None = None
        while True:
            try:
                with anyio.fail_after(ATTEMPT_SECONDS):
                    return await self._wire.open_websocket(
                        f"v1/processes/{self.id}/stream",
                        query={"after": str(self._sequence), "reader": self._reader},
                        patience=0,
                    )
            except SandboxFileNotFoundError as error:
                raise self._unknown(error.status) from error
            except (
                SandboxConnectionError,
                SandboxNotReadyError,
                SandboxOutcomeUnknownError,
                RequestTimeoutError,
                TimeoutError,
            ) as error:
                # An attempt may have failed because of a network that has just come back. Only failures while the way
                # was open all the time speak of the sandbox.
                if not await self._wire.is_way_open():
                    open_since = None
                elif open_since is None:
                    open_since = anyio.current_time()
                self._judge_silence(error, began, open_since)
            await anyio.sleep(_PAUSE)

    def _judge_silence(self, error: Exception, began: float, open_since: float | None) -> None:
        """Raise if waiting any longer makes no sense."""
        now, why = anyio.current_time(), str(error) or type(error).__name__
        if now - began > RECONNECT_SECONDS:
            raise SandboxConnectionError(
                f"process {self.id}: no connection to the sandbox for {now - began:.0f} s ({why}); the process "
                f"may still run: connect to it again by its id"
            ) from error
        if open_since is not None and now - open_since > DEAD_SECONDS:
            raise SandboxGoneError(
                f"process {self.id}: the way to the sandbox is open, but nothing answers there ({why}): the sandbox "
                "or its daemon died, and the process with it"
            ) from error

    async def _drop(self, socket: aiohttp.ClientWebSocketResponse | None) -> None:
        """Give up a connection; a newer one, of whoever else uses this handle, stays."""
        if self._socket is socket:
            self._socket = None
        if socket is not None:
            await close_websocket(socket)

    # Sending

    async def _send_piece(self, piece: bytes) -> None:
        socket = await self._attach()
        # Nothing is awaited from here until the message is on its way: a cancelled call has sent a piece or has not.
        offset = self._stdin_offset + len(self._stdin)
        self._stdin += piece
        await self._transmit(socket, _STDIN_HEAD.pack(offset) + piece)
        moved, pause = anyio.current_time(), _SHORTEST_PAUSE
        while len(self._stdin) > STDIN_WINDOW:
            if await self._confirm_stdin():
                moved, pause = anyio.current_time(), _SHORTEST_PAUSE
                continue
            await anyio.sleep(pause)  # the process does not read at present
            pause = min(2 * pause, _PAUSE)
            if anyio.current_time() - moved > SILENCE_SECONDS:
                # Perhaps the connection broke, and nobody reads who would have noticed.
                moved = anyio.current_time()
                await self._drop(socket)
                socket = await self._attach()

    async def _transmit(self, socket: aiohttp.ClientWebSocketResponse, message: bytes | dict[str, Any]) -> None:
        try:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(json.dumps(message))
        except (aiohttp.ClientError, ConnectionError):
            await self._drop(socket)
            await self._attach()  # sends again what was not confirmed

    async def _resend_stdin(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        # In pieces, so that on a bad network some of it arrives. What is confirmed meanwhile makes no difference.
        offset = max(self._stdin_offset, self._stdin_received)
        content = bytes(self._stdin[offset - self._stdin_offset :])
        for start in range(0, len(content), STDIN_PIECE):
            await socket.send_bytes(_STDIN_HEAD.pack(offset + start) + content[start : start + STDIN_PIECE])
        if self._stdin_closed:
            await socket.send_str(json.dumps({"type": "stdin_eof"}))

    async def _confirm_stdin(self) -> bool:
        """Ask how far the input has come; False if it has not."""
        before = self._stdin_offset
        try:
            await self.refresh()
        except (SandboxConnectionError, SandboxOutcomeUnknownError, RequestTimeoutError):
            await self._drop(self._socket)
            await self._attach()  # waits for the network, or says that there is no hope
        self._check_open()
        return self._stdin_offset > before

    def _check_open(self) -> None:
        if self.info.state != "running":
            raise SandboxProcessNotFoundError(
                f"process {self.id} has ended, it takes no input", status=409, detail="ended"
            )

    async def _post(self, action: str, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        try:
            await self._wire.request(
                "POST",
                f"v1/processes/{self.id}/{action}",
                timeout=30,
                body=lambda: body,
                headers={"Content-Type": "application/json"},
            )
        except SandboxFileNotFoundError as error:
            raise self._unknown(error.status) from error

    def _unknown(self, status: int) -> SandboxError:
        return SandboxProcessNotFoundError(
            f"the sandbox knows no process {self.id}: it was forgotten, or its daemon was started anew",
            status=status,
            detail="no such process",
        )

    def __repr__(self) -> str:
        return f"AsyncProcess({self.id}, {list(self.info.argv)}, {self.info.state})"


def read_process(data: Any) -> ProcessInfo:
    """What the daemon says of a process.

    Raises:
        SandboxProtocolError: it is not that.
    """
    try:
        return ProcessInfo(
            id=str(data["id"]),
            pid=data.get("pid"),
            argv=tuple(data.get("argv") or ()),
            state=data["state"],
            exit_code=data.get("exit_code"),
            timed_out=bool(data.get("timed_out")),
            error=data.get("error") or "",
            started=read_time(data.get("started_at")),
            finished=read_time(data.get("finished_at")),
            last_sequence=int(data.get("last_seq") or 0),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SandboxProtocolError(f"the daemon describes a process in a form not understood here: {error}") from error


def read_time(value: Any) -> datetime | None:
    """A moment that the daemon sent: RFC 3339 or seconds since 1970."""
    if value is None:
        return None
    return datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(float(value), tz=UTC)


__all__ = ["AsyncProcess"]
