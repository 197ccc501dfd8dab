"""What the node gives to the API server: logs of its containers, commands in them, connections to their ports."""

import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, SocketStream

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.errors import BadRequestError, NotFoundError
from agent_sandbox.local.apiserver.providers import (
    ExecCall,
    ExecSession,
    LogCall,
    PodProviders,
    Resize,
    StdinClosed,
    StdinData,
)
from agent_sandbox.local.node.commands import Command, read_piece
from agent_sandbox.local.node.container import ContainerRunner
from agent_sandbox.local.node.context import NodeContext
from agent_sandbox.local.node.errors import ContainerError, PodNotRunningError
from agent_sandbox.local.node.log_reader import LogQuery, read_log, run_files
from agent_sandbox.local.node.records import NodeDirectory
from agent_sandbox.local.node.runtime import ContainerProcess
from agent_sandbox.local.node.worker import PodWorker
from agent_sandbox_api.core import PODS

_START_FAILED: Final = 126

FindWorker = Callable[[str], PodWorker | None]
"""UID of a Pod to its worker."""


class PodAccess:
    """Answers for the Pods of one node."""

    def __init__(
        self, directory: NodeDirectory, clock: Clock, find: FindWorker, context: Callable[[], NodeContext]
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._find = find
        self._context = context

    def providers(self) -> PodProviders:
        """What to register with the API server."""
        return PodProviders(log=self.logs, exec=self.execute, attach=self.attach, port_forward=self.connect)

    # Logs

    async def logs(self, call: LogCall) -> AsyncIterator[bytes]:
        """The output of a container."""
        uid, name = call.pod["metadata"]["uid"], call.pod["metadata"]["name"]
        directory = self._directory.pod(uid) / "logs" / call.container
        runs = await anyio.to_thread.run_sync(run_files, directory)
        wanted = -2 if call.previous else -1
        if len(runs) < -wanted:
            if call.previous:
                raise BadRequestError(f'previous terminated container "{call.container}" in pod "{name}" not found')
            why = self._waiting(uid, call.container)
            raise BadRequestError(f'container "{call.container}" in pod "{name}" is waiting to start: {why}')
        query = LogQuery(call.tail_lines, call.since, call.timestamps, call.limit_bytes, call.follow)

        def is_open() -> bool:
            runner = self._runner(uid, call.container)
            return not call.previous and runner is not None and runner.process is not None and runner.process.alive

        async for piece in read_log(runs[wanted], query, self._clock, is_open):
            yield piece

    def _runner(self, uid: str, container: str) -> ContainerRunner | None:
        worker = self._find(uid)
        return worker.runners.get(container) if worker is not None else None

    def _waiting(self, uid: str, container: str) -> str:
        runner = self._runner(uid, container)
        return getattr(runner.state.state, "reason", "ContainerCreating") if runner else "ContainerCreating"

    # Commands

    async def execute(self, call: ExecCall, session: ExecSession) -> None:
        """Run a command in a container, joined to the client's streams."""
        uid = call.pod["metadata"]["uid"]
        runner = self._runner(uid, call.container)
        if runner is None or runner.process is None:
            raise NotFoundError(PODS, f"{call.pod['metadata']['name']}: container {call.container} is not running")
        command = Command(runner.process)
        pipes = _Terminal() if call.tty else _PlainPipes()
        try:
            await self._run(command, call, pipes, session)
        finally:
            pipes.close()
            with anyio.CancelScope(shield=True):
                await command.kill()

    async def _run(
        self, command: Command, call: ExecCall, pipes: "_Terminal | _PlainPipes", session: ExecSession
    ) -> None:
        try:
            await command.start(call.command, pipes.theirs)
        except (ContainerError, PodNotRunningError) as error:
            await session.send_stderr(f"{error}\n".encode())
            await session.finish(_START_FAILED)
            return
        pipes.did_start(with_stdin=call.stdin)
        async with anyio.create_task_group() as group:
            if call.stdin:
                group.start_soon(_feed, session, pipes)
            async with anyio.create_task_group() as outputs:
                outputs.start_soon(_copy, pipes.stdout, session.send_stdout)
                if pipes.stderr is not None:
                    outputs.start_soon(_copy, pipes.stderr, session.send_stderr)
            code = await command.wait()
            group.cancel_scope.cancel()
        await session.finish(code)

    async def attach(self, call: ExecCall, session: ExecSession) -> None:
        """Join the client's streams to what a container prints from now on, and to its input if it has one."""
        runner = self._runner(call.pod["metadata"]["uid"], call.container)
        if runner is None or runner.process is None:
            raise NotFoundError(PODS, f"{call.pod['metadata']['name']}: container {call.container} is not running")
        process, pipes = runner.process, _Heard()
        try:
            await process.listen(*pipes.theirs)
            pipes.did_start()
            async with anyio.create_task_group() as group:
                keep_open = call.tty or not runner.stdin_once
                group.start_soon(self._follow_client, session, process, call, keep_open, group.cancel_scope)
                async with anyio.create_task_group() as outputs:
                    outputs.start_soon(_copy, pipes.stdout, session.send_stdout)
                    outputs.start_soon(_copy, pipes.stderr, session.send_stderr)
                await process.wait()
                group.cancel_scope.cancel()
            if not process.alive:
                await session.finish(await process.wait())
        finally:
            pipes.close()
            if call.stdin and runner.stdin_once:
                with anyio.CancelScope(shield=True):
                    await process.end_input()

    @staticmethod
    async def _follow_client(
        session: ExecSession, process: ContainerProcess, call: ExecCall, keep_open: bool, scope: anyio.CancelScope
    ) -> None:
        """Give the client's input to the process, until the client goes."""
        while (message := await session.receive()) is not None:
            match message:
                case StdinData(data) if call.stdin and process.stdin is not None:
                    await _write_all(process.stdin, data)
                case Resize(columns, rows) if call.tty and process.stdin is not None:
                    _resize(process.stdin, columns, rows)
                case StdinClosed() if call.stdin and not keep_open:
                    await process.end_input()
        scope.cancel()

    # Ports

    async def connect(self, pod: dict[str, Any], port: int) -> ByteStream:
        """A connection to a port of a Pod."""
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise ConnectionRefusedError(f"pod {pod['metadata']['name']} has no address yet")
        connection = await self._context().network.connect(address, port)
        return await SocketStream.from_socket(connection)


async def _copy(fd: int, send: Callable[[bytes], Any]) -> None:
    while piece := await read_piece(fd):
        await send(piece)


async def _feed(session: ExecSession, pipes: "_Terminal | _PlainPipes") -> None:
    while True:
        match await session.receive():
            case StdinData(data):
                await pipes.write(data)
            case Resize(columns, rows):
                pipes.resize(columns, rows)
            case StdinClosed():
                pipes.end_input()
            case None:
                pipes.end_input()
                return


async def _write_all(fd: int, data: bytes) -> bool:
    """False if nobody reads any more."""
    view = memoryview(data)
    while view:
        await anyio.wait_writable(fd)
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            continue
        except (BrokenPipeError, OSError):
            return False
    return True


class _Heard:
    """Two pipes into which the helper copies what a container prints.

    A client that does not keep up loses what it missed: the container must not wait for it, and the log has it all.
    """

    def __init__(self) -> None:
        self.stdout, their_out = os.pipe()
        self.stderr, their_err = os.pipe()
        self.theirs = (their_out, their_err)
        self._open = [self.stdout, self.stderr, *self.theirs]
        for fd in (self.stdout, self.stderr):
            os.set_blocking(fd, False)

    def did_start(self) -> None:
        """The helper has its own copies now."""
        for fd in self.theirs:
            os.close(fd)
            self._open.remove(fd)

    def close(self) -> None:
        """Close what is left."""
        while self._open:
            os.close(self._open.pop())


def _resize(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class _PlainPipes:
    """Three pipes."""

    def __init__(self) -> None:
        self._their_in, self._stdin = os.pipe()
        self.stdout, self._their_out = os.pipe()
        self._stderr, self._their_err = os.pipe()
        self.stderr: int | None = self._stderr
        self._mine = [self._stdin, self.stdout, self._stderr]
        self._their = [self._their_in, self._their_out, self._their_err]
        for fd in self._mine:
            os.set_blocking(fd, False)

    @property
    def theirs(self) -> dict[int, int]:
        """What the command gets."""
        return {0: self._their_in, 1: self._their_out, 2: self._their_err}

    def did_start(self, *, with_stdin: bool) -> None:
        """The command has its own copies now."""
        while self._their:
            os.close(self._their.pop())
        if not with_stdin:
            self.end_input()

    async def write(self, data: bytes) -> None:
        """Give input to the command; lost if it reads no more."""
        if self._stdin in self._mine and not await _write_all(self._stdin, data):
            self.end_input()

    def resize(self, columns: int, rows: int) -> None:
        """Pipes have no size."""

    def end_input(self) -> None:
        """Let the command see the end of its input."""
        if self._stdin in self._mine:
            self._mine.remove(self._stdin)
            os.close(self._stdin)

    def close(self) -> None:
        """Close everything."""
        for fd in (*self._mine, *self._their):
            os.close(fd)
        self._mine, self._their = [], []


class _Terminal:
    """A pseudo-terminal."""

    stderr: int | None = None

    def __init__(self) -> None:
        self.stdout, self._slave = pty.openpty()
        os.set_blocking(self.stdout, False)
        self._open = True

    @property
    def theirs(self) -> dict[int, int]:
        """What the command gets."""
        return dict.fromkeys((0, 1, 2), self._slave)

    def did_start(self, *, with_stdin: bool) -> None:
        """The command has its own copies now."""
        os.close(self._slave)
        self._slave = -1

    async def write(self, data: bytes) -> None:
        """Type."""
        await _write_all(self.stdout, data)

    def resize(self, columns: int, rows: int) -> None:
        """The user's window has another size."""
        _resize(self.stdout, columns, rows)

    def end_input(self) -> None:
        """A terminal's input ends with the terminal."""

    def close(self) -> None:
        """Hang up."""
        if self._slave != -1:
            os.close(self._slave)
        if self._open:
            os.close(self.stdout)
            self._open = False
