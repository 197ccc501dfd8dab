"""Runs one command to its end for the legacy contract: bounded output, a deadline, at most once.

In: an `ExecuteRequest`. Out: an `Outcome`. A request that carries an operation identifier is run once, however often it
arrives: repetitions wait for, or get, the first one's outcome.
"""

import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.abc

from agent_sandbox.sandboxd.child import Child, Launch, StartError, start_child
from agent_sandbox.sandboxd.errors import ConflictError, StoppingError
from agent_sandbox.sandboxd.reaper import Reaper

OUTPUT_GRACE: Final = 0.25
"""Seconds that output is still waited for once the command has ended but something it started holds its pipes."""

REMEMBERED_OUTPUT: Final = 64 * 1024 * 1024
"""Bytes of output of ended commands that are kept, in case they are asked for again; beyond, the oldest are dropped."""

KILL_GRACE: Final = 5.0
"""Seconds that a killed command may take to disappear; more means that the kernel does not let it go."""


@dataclass(frozen=True)
class ExecuteRequest:
    """A command to run to its end.

    Attributes:
        launch: what to run.
        timeout: seconds until the whole process group is killed; None means never.
        keep_running: whether the command goes on when the client that asked for it disconnects.
        operation_id: the caller's name for this very execution; None means that every request is a new one.
    """

    launch: Launch
    timeout: float | None = None
    keep_running: bool = False
    operation_id: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    stdout: bytes
    stderr: bytes
    exit_code: int
    started: bool
    timed_out: bool
    stdout_truncated: bool
    stderr_truncated: bool
    seconds: float


class Capture:
    """Keeps the beginning of a stream, up to a limit, until it is sealed."""

    def __init__(self, limit: int) -> None:
        self.truncated = False
        self._limit = limit
        self._data = bytearray()
        self._sealed = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._sealed:
            return
        room = self._limit - len(self._data)
        self._data += data[:room]
        self.truncated = self.truncated or len(data) > room

    def seal(self) -> bytes:
        """What was kept; whatever comes later is dropped."""
        self._sealed = True
        kept = bytes(self._data)
        self._data.clear()
        return kept


@dataclass(eq=False)
class Execution:
    """A command on its way, shared by everybody who waits for its outcome.

    Attributes:
        forgotten: whether its outcome was dropped to make room; it is still known that it ran.
    """

    request: ExecuteRequest
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Outcome | None = None
    ended_at: float | None = None
    waiting: int = 0
    child: Child | None = None
    abandoned: bool = False
    forgotten: bool = False

    @property
    def output_size(self) -> int:
        """Bytes that its outcome holds."""
        return 0 if self.outcome is None else len(self.outcome.stdout) + len(self.outcome.stderr)

    def abandon(self) -> None:
        """Nobody wants the outcome any more: end the command."""
        self.abandoned = True
        if self.child is not None:
            self.child.kill()


class Executor:
    """Starts executions in the application's task group and remembers their outcomes.

    Args:
        max_output: bytes kept of each stream.
        max_running: commands at once.
        ttl: seconds that the outcome of a named operation is kept.
    """

    def __init__(self, *, max_output: int, max_running: int, ttl: float) -> None:
        self._tasks: anyio.abc.TaskGroup | None = None
        self._reaper: Reaper | None = None
        self._max_output = max_output
        self._max_running = max_running
        self._ttl = ttl
        self._running: set[Execution] = set()
        self._operations: dict[str, Execution] = {}
        # Named operations that have ended, in the order of their ends; and those of them whose output is kept.
        self._ended: deque[Execution] = deque()
        self._with_output: deque[Execution] = deque()
        self._remembered_output = 0
        self._idle: anyio.Event | None = None

    def start(self, tasks: anyio.abc.TaskGroup, reaper: Reaper) -> None:
        """Accept commands from now on.

        Args:
            tasks: where commands are waited for; it outlives every request.
        """
        self._tasks = tasks
        self._reaper = reaper

    @property
    def running(self) -> int:
        """How many commands are running."""
        return len(self._running)

    async def execute(self, request: ExecuteRequest, *, on_refusal: Callable[[str], Outcome]) -> Outcome:
        """Run the command, or wait for the operation of that name.

        Args:
            on_refusal: makes the outcome for a command that does not start, from the reason.

        Raises:
            ConflictError: the operation identifier belongs to another command.
            StoppingError: the daemon was stopped meanwhile.
        """
        execution = self._known(request)
        if execution is None:
            if len(self._running) >= self._max_running:
                return on_refusal(
                    f"{self._max_running} commands run in this sandbox, as many as it allows; wait for one to end"
                )
            execution = self._begin(request, on_refusal)
        execution.waiting += 1
        try:
            await execution.done.wait()
        finally:
            execution.waiting -= 1
            if not execution.done.is_set() and execution.waiting == 0 and not execution.request.keep_running:
                execution.abandon()
        if execution.forgotten:
            raise ConflictError(
                f"the operation {request.operation_id!r} has ended; its output was dropped to make room for others"
            )
        if execution.outcome is None:
            raise StoppingError("the daemon stopped while the command was running; the command was killed")
        return execution.outcome

    async def stop(self, grace: float) -> None:
        """Start nothing more, ask every command to end, and kill what is left after `grace` seconds."""
        self._tasks = None
        for execution in self._running:
            if execution.child is not None:
                execution.child.signal(signal.SIGTERM)
        with anyio.move_on_after(grace):
            while self._running:
                self._idle = anyio.Event()
                await self._idle.wait()
        for execution in self._running:
            execution.abandon()

    def _known(self, request: ExecuteRequest) -> Execution | None:
        if request.operation_id is None:
            return None
        self._forget_old()
        known = self._operations.get(request.operation_id)
        if known is not None and list(known.request.launch.argv) != list(request.launch.argv):
            raise ConflictError(
                f"the operation {request.operation_id!r} is another command; give every command its own identifier"
            )
        return known

    def _begin(self, request: ExecuteRequest, on_refusal: Callable[[str], Outcome]) -> Execution:
        if self._tasks is None:
            raise StoppingError("the daemon does not accept commands now")
        execution = Execution(request)
        self._running.add(execution)
        if request.operation_id is not None:
            self._operations[request.operation_id] = execution
        self._tasks.start_soon(self._run, execution, on_refusal, name=f"execute {request.launch.argv[0]}")
        return execution

    async def _run(self, execution: Execution, on_refusal: Callable[[str], Outcome]) -> None:
        try:
            try:
                execution.outcome = await self._run_child(execution)
            except StartError as error:
                execution.outcome = on_refusal(str(error))
        finally:
            execution.ended_at = anyio.current_time()
            self._remember(execution)
            execution.done.set()
            self._running.discard(execution)
            if self._idle is not None:
                self._idle.set()

    async def _run_child(self, execution: Execution) -> Outcome:
        request = execution.request
        assert self._reaper is not None
        stdout, stderr = Capture(self._max_output), Capture(self._max_output)
        began = anyio.current_time()
        child = execution.child = await start_child(
            request.launch, self._reaper, on_stdout=stdout.feed, on_stderr=stderr.feed
        )
        if execution.abandoned:
            child.kill()
        elif self._tasks is None:
            child.signal(signal.SIGTERM)  # `stop` was called while it was being started.
        try:
            with anyio.move_on_after(request.timeout) as deadline:
                await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
        if deadline.cancelled_caught:
            with anyio.move_on_after(KILL_GRACE):
                await child.wait()
        await child.wait_for_output(OUTPUT_GRACE)
        return Outcome(
            stdout=stdout.seal(),
            stderr=stderr.seal(),
            exit_code=child.returncode if child.returncode is not None else -signal.SIGKILL,
            started=True,
            timed_out=deadline.cancelled_caught,
            stdout_truncated=stdout.truncated,
            stderr_truncated=stderr.truncated,
            seconds=anyio.current_time() - began,
        )

    def _remember(self, execution: Execution) -> None:
        """Keep a named operation for repetitions; what is too much is dropped, but for what somebody waits for."""
        if execution.request.operation_id is None:
            return
        self._ended.append(execution)
        if execution.output_size:
            self._with_output.append(execution)
            self._remembered_output += execution.output_size
        while self._remembered_output > REMEMBERED_OUTPUT and not self._with_output[0].waiting:
            oldest = self._with_output.popleft()
            self._remembered_output -= oldest.output_size
            oldest.outcome, oldest.forgotten = None, True

    def _forget_old(self) -> None:
        oldest = anyio.current_time() - self._ttl
        while self._ended and (self._ended[0].ended_at or 0) < oldest:
            execution = self._ended.popleft()
            if self._with_output and self._with_output[0] is execution:
                self._with_output.popleft()
                self._remembered_output -= execution.output_size
            self._operations.pop(execution.request.operation_id or "", None)


def refused(reason: str) -> Outcome:
    """The outcome of a command that did not start, in the words of the original runtime."""
    return Outcome(
        stdout=b"",
        stderr=f"Failed to execute command: {reason}".encode(),
        exit_code=1,
        started=False,
        timed_out=False,
        stdout_truncated=False,
        stderr_truncated=False,
        seconds=0.0,
    )
