"""Processes of the versioned API on the wire: start, list, signal, and the stream that survives lost connections."""

import json
import signal
import struct
from typing import Any, Final

import anyio
from aiohttp import WSMsgType, web

from agent_sandbox.sandboxd.child import Launch
from agent_sandbox.sandboxd.errors import InvalidRequestError, SandboxdError
from agent_sandbox.sandboxd.options import MIB, SandboxdOptions
from agent_sandbox.sandboxd.output_log import Overflow, Reader
from agent_sandbox.sandboxd.process import Process, StartRequest
from agent_sandbox.sandboxd.process_table import ProcessTable
from agent_sandbox.sandboxd.requests import Fields, read_object

HEARTBEAT: Final = 5.0
"""Seconds of silence after which a stream says that it is alive."""

BUFFER: Final = 8 * MIB
MAX_READER_NAME: Final = 64
FIRST_MESSAGE: Final = 30.0
"""Seconds that a client may take to say what it wants to start."""

_OUTPUT_HEAD: Final = struct.Struct(">BQ")
_INPUT_HEAD: Final = struct.Struct(">Q")


class ProcessApi:
    """Handlers for processes.

    Args:
        environment: variables that every command starts from.
    """

    def __init__(self, options: SandboxdOptions, table: ProcessTable, environment: dict[str, str]) -> None:
        self._options = options
        self._table = table
        self._environment = environment

    def routes(self) -> list[web.RouteDef]:
        """The routes of this API."""
        return [
            web.post("/v1/processes", self.start),
            web.get("/v1/processes", self.list_processes),
            web.get("/v1/processes/{id}", self.show),
            web.delete("/v1/processes/{id}", self.remove),
            web.post("/v1/processes/{id}/signal", self.signal),
            web.post("/v1/processes/{id}/resize", self.resize),
            web.get("/v1/processes/{id}/wait", self.wait),
            web.get("/v1/processes/{id}/stream", self.stream),
            web.get("/v1/exec", self.start_and_stream),
        ]

    async def start(self, request: web.Request) -> web.Response:
        """Start a process; one whose operation is known is not started again."""
        process, new = await self._table.start(self._read_start(Fields(read_object(await request.read()))))
        return web.json_response(process.to_json(), status=201 if new else 200)

    async def list_processes(self, request: web.Request) -> web.Response:
        """All processes that are remembered."""
        return web.json_response({"processes": [process.to_json() for process in self._table.all()]})

    async def show(self, request: web.Request) -> web.Response:
        """One process."""
        return web.json_response(self._named(request).to_json(_reader_name(request.query.get("reader"))))

    async def remove(self, request: web.Request) -> web.Response:
        """Kill a process and forget it."""
        await self._table.remove(request.match_info["id"])
        return web.Response(status=204)

    async def signal(self, request: web.Request) -> web.Response:
        """Send a signal."""
        process = self._named(request)
        _send_signal(process, read_object(await request.read()))
        return web.json_response(process.to_json())

    async def resize(self, request: web.Request) -> web.Response:
        """Give the process's terminal another size."""
        process = self._named(request)
        _resize(process, read_object(await request.read()))
        return web.json_response(process.to_json())

    async def wait(self, request: web.Request) -> web.Response:
        """Wait for the end, at most the asked time; the answer says whether it came."""
        process = self._named(request)
        with anyio.move_on_after(_seconds(request, "timeout", default=60.0)):
            await process.ended.wait()
        return web.json_response(process.to_json())

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        """Attach to a process: its output behind a number, its input, its end."""
        process = self._named(request)
        after, name = _whole(request.query.get("after", "0")), _reader_name(request.query.get("reader"))
        socket = await _open(request)
        await self._attach(request, socket, process, process.log.attach(after, name))
        return socket

    async def start_and_stream(self, request: web.Request) -> web.WebSocketResponse:
        """Start (or find) a process and attach to it, in one round trip."""
        socket = await _open(request)
        try:
            first = await socket.receive(timeout=FIRST_MESSAGE)
            if first.type is not WSMsgType.TEXT:
                raise InvalidRequestError("the first message must be a text with what to start")
            fields = Fields(read_object(first.data.encode()))
            after = fields.number("after", low=0, high=2**63) or 0
            name = _reader_name(fields.text("reader"))
            process, _ = await self._table.start(self._read_start(fields))
        except SandboxdError as error:
            await socket.send_str(json.dumps({"type": "error", "code": error.code, "message": str(error)}))
            await socket.close(code=1008)
            return socket
        except TimeoutError:
            await socket.close(code=1008)
            return socket
        await self._attach(request, socket, process, process.log.attach(after, name))
        return socket

    async def _attach(
        self, request: web.Request, socket: web.WebSocketResponse, process: Process, reader: Reader
    ) -> None:
        async def give_way(scope: anyio.CancelScope) -> None:
            await reader.replaced.wait()
            scope.cancel()
            if request.transport is not None:
                request.transport.abort()  # A farewell would wait for a network that is not there.

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_receive, socket, process, reader, tasks.cancel_scope, name=f"input of {process.id}")
                tasks.start_soon(give_way, tasks.cancel_scope, name=f"successor of a reader of {process.id}")
                await _send_output(socket, process, reader)
                tasks.cancel_scope.cancel()
        except ExceptionGroup as group:
            if group.split(ConnectionError)[1] is not None:
                raise
        finally:
            process.log.detach(reader)
            if not process.request.keep_running and not process.log.attached:
                process.signal(signal.SIGKILL, group=True)

    def _named(self, request: web.Request) -> Process:
        return self._table.get(request.match_info["id"])

    def _read_start(self, fields: Fields) -> StartRequest:
        argv, shell = fields.strings("argv"), fields.text("shell")
        if (argv is None) == (shell is None):
            raise InvalidRequestError("give either argv (a list) or shell (a string)")
        if argv is not None and (not argv or not argv[0]):
            raise InvalidRequestError("argv must name a program")
        terminal = fields.nested("pty")
        size = None if terminal is None else _size(terminal)
        return StartRequest(
            launch=Launch(
                argv=argv if argv is not None else ["/bin/sh", "-c", shell or ""],
                cwd=(cwd := str(self._options.root / (fields.text("cwd") or ""))),
                environment=self._variables(fields, cwd, in_terminal=size is not None),
                user=fields.user("user"),
            ),
            stdin=fields.flag("stdin"),
            terminal=size,
            timeout=self._timeout(fields),
            keep_running=fields.choice("on_disconnect", "continue", "kill") == "continue",
            operation_id=fields.operation_id(),
            overflow=Overflow(fields.choice("overflow", *Overflow)),
            buffer=fields.number("buffer_bytes", low=4096, high=256 * MIB) or BUFFER,
        )

    def _variables(self, fields: Fields, cwd: str, *, in_terminal: bool) -> dict[str, str]:
        environment = {**self._environment, "PWD": cwd}
        if in_terminal:
            environment["TERM"] = "xterm-256color"
        return environment | fields.variables("env")

    def _timeout(self, fields: Fields) -> float | None:
        timeout = fields.seconds("timeout") or self._options.default_timeout
        if self._options.max_timeout is not None:
            return min(timeout or self._options.max_timeout, self._options.max_timeout)
        return timeout


async def _open(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, max_msg_size=16 * MIB)
    await socket.prepare(request)
    return socket


async def _send_output(socket: web.WebSocketResponse, process: Process, reader: Reader) -> None:
    """Send the process, then everything behind the reader's place as it comes, then the end."""
    log = process.log
    await _notify(socket, type="process", process=process.to_json(reader.name))
    while True:
        if (missed := log.gap(reader)) is not None:
            await _notify(socket, type="gap", first=missed[0], last=missed[1])
        elif (piece := log.following(reader)) is not None:
            await socket.send_bytes(_OUTPUT_HEAD.pack(piece.channel, piece.sequence) + piece.data)
            log.sent(reader, piece)
        elif not process.running:
            await _notify(socket, type="exit", process=process.to_json(reader.name))
            # The receiving side ends with this, and ends the attachment. It must not cut the farewell short: a
            # connection closed over input that nobody read is reset, and output under way is lost with it.
            with anyio.CancelScope(shield=True):
                await socket.close()
            return
        else:
            with anyio.move_on_after(HEARTBEAT) as silence:
                await log.wait()
            if silence.cancelled_caught:
                await _notify(socket, type="heartbeat", last_seq=log.last)


async def _receive(
    socket: web.WebSocketResponse, process: Process, reader: Reader, attached: anyio.CancelScope
) -> None:
    """Take input, confirmations, sizes and signals until the client goes away; then end the attachment."""
    try:
        async for message in socket:
            try:
                if message.type is WSMsgType.BINARY:
                    await _take_input(process, reader, message.data)
                elif message.type is WSMsgType.TEXT:
                    _take_notice(process, reader, read_object(message.data.encode()))
            except SandboxdError as error:
                await _notify(socket, type="error", code=error.code, message=str(error))
                await socket.close(code=1008)
    finally:
        attached.cancel()


async def _take_input(process: Process, reader: Reader, data: bytes) -> None:
    if len(data) < _INPUT_HEAD.size:
        raise InvalidRequestError("input must begin with its offset: 8 bytes, the highest first")
    (offset,) = _INPUT_HEAD.unpack_from(data)
    await process.write_input(offset, data[_INPUT_HEAD.size :], name=reader.name)


def _take_notice(process: Process, reader: Reader, notice: dict[str, Any]) -> None:
    match notice.get("type"):
        case "stdin_eof":
            process.end_input()
        case "resize":
            _resize(process, notice)
        case "signal":
            _send_signal(process, notice)
        case "ack":
            process.log.confirm(reader, Fields(notice).number("seq", low=0, high=2**63) or 0)
        case other:
            raise InvalidRequestError(f"unknown message type {other!r}")


def _send_signal(process: Process, body: dict[str, Any]) -> None:
    fields = Fields(body)
    process.signal(fields.signal("signal"), group=fields.choice("scope", "group", "process") == "group")


def _resize(process: Process, body: dict[str, Any]) -> None:
    process.resize(*_size(Fields(body)))


def _size(fields: Fields) -> tuple[int, int]:
    return fields.number("cols", low=1, high=10000) or 80, fields.number("rows", low=1, high=10000) or 24


async def _notify(socket: web.WebSocketResponse, **notice: Any) -> None:
    await socket.send_str(json.dumps(notice))


def _reader_name(text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= MAX_READER_NAME and text.isprintable()):
        raise InvalidRequestError(f"reader must be 1 to {MAX_READER_NAME} printable characters")
    return text


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InvalidRequestError(f"{text!r} is not a whole number")
    return int(text)


def _seconds(request: web.Request, name: str, *, default: float) -> float:
    try:
        seconds = float(request.query.get(name, default))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise InvalidRequestError(f"{name} must be a number of seconds from 0 to 86400")
    return seconds
