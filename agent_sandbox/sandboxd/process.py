"""A command that lives by itself: started once, watched by whoever attaches, remembered for a while after its end.

In: a `StartRequest`. Out: a `Process` whose output log, state and input outlive every connection.
"""

import os
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio

from agent_sandbox.sandboxd.child import Child, Launch, StartError, start_child, start_in_terminal
from agent_sandbox.sandboxd.errors import ConflictError
from agent_sandbox.sandboxd.execution import KILL_GRACE, OUTPUT_GRACE
from agent_sandbox.sandboxd.input_pipe import InputPipe, Writer
from agent_sandbox.sandboxd.output_log import OutputLog, Overflow
from agent_sandbox.sandboxd.reaper import Reaper
from agent_sandbox.sandboxd.terminal import Terminal

STDOUT, STDERR = 1, 2


@dataclass(frozen=True)
class StartRequest:
    """A command to start.

    Attributes:
        stdin: whether input will come; without, it reads an empty file.
        terminal: columns and rows of its terminal, or None for pipes.
        timeout: seconds until its whole group is killed; None means never.
        keep_running: whether it goes on when the last reader leaves.
        buffer: bytes of output held.
    """

    launch: Launch
    stdin: bool
    terminal: tuple[int, int] | None
    timeout: float | None
    keep_running: bool
    operation_id: str | None
    overflow: Overflow
    buffer: int


@dataclass(eq=False)
class Process:
    """A command, from its start until it is forgotten.

    Attributes:
        ended: set once it has ended and its output was read, or it did not start.
        ended_at: time of the loop at that moment.
        error: why it did not start; empty otherwise.
    """

    id: str
    request: StartRequest
    ended: anyio.Event = field(default_factory=anyio.Event)
    settled: anyio.Event = field(default_factory=anyio.Event)
    ended_at: float | None = None
    error: str = ""
    timed_out: bool = False
    child: Child | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None

    def __post_init__(self) -> None:
        self.log = OutputLog(
            limit=self.request.buffer, overflow=self.request.overflow, hold=self._hold, go_on=self._go_on
        )
        self._input: InputPipe | None = None
        self._terminal: Terminal | None = None
        # Sent before it was started: it gets them as soon as it is.
        self._early_signals: list[tuple[int, bool]] = []

    async def run(self, reaper: Reaper) -> None:
        """Start it and wait for its end. Never raises for what the command does."""
        try:
            self.child = await self._start(reaper)
        except StartError as error:
            self.error = f"Failed to execute command: {error}"
            self._end()
            return
        self.settled.set()
        for number, group in self._early_signals:
            self.signal(number, group=group)
        try:
            with anyio.move_on_after(self.request.timeout) as deadline:
                await self.child.wait()
            if deadline.cancelled_caught:
                self.timed_out = True
                self.child.kill()
                with anyio.move_on_after(KILL_GRACE):
                    await self.child.wait()
            await self.child.wait_for_output(OUTPUT_GRACE)
            while self.log.held:
                # What it wrote before its end waits in the pipes for a reader with room.
                await self.child.wait_for_output(OUTPUT_GRACE)
        finally:
            if self.child.returncode is None:
                self.child.kill()
            self._end()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self.ended.is_set()

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal; one that has ended takes none, silently."""
        if self.child is None:
            self._early_signals.append((number, group))
        elif number == signal.SIGKILL and group:
            self.child.kill()
        else:
            self.child.signal(number, group=group)

    def resize(self, columns: int, rows: int) -> None:
        """Give its terminal another size.

        Raises:
            ConflictError: it has no terminal.
        """
        if self.request.terminal is None:
            raise ConflictError(f"process {self.id} has no terminal; start it with one (pty)")
        if self._terminal is not None and self._terminal.master >= 0:
            self._terminal.resize(columns, rows)

    async def write_input(self, offset: int, data: bytes, *, name: str | None = None) -> None:
        """Give it input; what it received before from the client of that name is skipped.

        Raises:
            ConflictError: it takes no input.
            InvalidRequestError: bytes before `offset` are missing.
        """
        await self._open_input().write(offset, data, name=name)

    def end_input(self) -> None:
        """Tell it that no more input comes.

        Raises:
            ConflictError: it takes no input.
        """
        self._open_input().end()

    def to_json(self, name: str | None = None) -> dict[str, Any]:
        """What is told about it, to the client of that name."""
        code = self.child.returncode if self.child is not None else None
        if self.ended.is_set() and code is None and not self.error:
            code = -signal.SIGKILL
        finished = self.finished
        writer = self._input.writer(name) if self._input is not None else Writer()
        duration = ((finished or datetime.now(UTC)) - self.started).total_seconds() * 1000
        return {
            "id": self.id,
            "operation_id": self.request.operation_id,
            "pid": self.child.pid if self.child is not None else None,
            "argv": list(self.request.launch.argv),
            "state": "running" if self.running else "failed" if self.error else "exited",
            "exit_code": code if self.ended.is_set() else None,
            "timed_out": self.timed_out,
            "error": self.error or None,
            "started_at": self.started.isoformat(),
            "finished_at": finished.isoformat() if finished is not None else None,
            "duration_ms": round(duration, 3),
            "last_seq": self.log.last,
            "stdin_received": writer.received,
            "stdin_written": writer.written,
            "pty": self.request.terminal is not None,
        }

    async def _start(self, reaper: Reaper) -> Child:
        if self.request.terminal is not None:
            return await self._start_in_terminal(reaper, *self.request.terminal)
        reading: int | None = None
        if self.request.stdin:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self._input = InputPipe(writing)
        try:
            return await start_child(
                self.request.launch,
                reaper,
                on_stdout=lambda data: self.log.append(STDOUT, data),
                on_stderr=lambda data: self.log.append(STDERR, data),
                stdin=reading,
            )
        finally:
            if reading is not None:
                os.close(reading)

    async def _start_in_terminal(self, reaper: Reaper, columns: int, rows: int) -> Child:
        try:
            self._terminal = Terminal(columns, rows)
        except OSError as error:
            raise StartError(f"no terminal: {error}") from error
        self._input = InputPipe(os.dup(self._terminal.master), terminal=True)
        return await start_in_terminal(
            self.request.launch, reaper, self._terminal, on_output=lambda data: self.log.append(STDOUT, data)
        )

    def _open_input(self) -> InputPipe:
        if self._input is None:
            raise ConflictError(f"process {self.id} takes no input; start it with stdin or a terminal")
        return self._input

    def _hold(self) -> None:
        for pump in self.child.pumps if self.child is not None else ():
            pump.pause()

    def _go_on(self) -> None:
        for pump in self.child.pumps if self.child is not None else ():
            pump.resume()

    def _end(self) -> None:
        self.finished = datetime.now(UTC)
        self.ended_at = anyio.current_time()
        if self._input is not None:
            self._input.close()
        if self._terminal is not None:
            self._terminal.close()
        self.settled.set()
        self.ended.set()
        self.log.wake()
