"""All commands that were started by themselves: by identifier, by operation, at most once each."""

import secrets
import signal
from typing import Final

import anyio
import anyio.abc

from agent_sandbox.sandboxd.errors import ConflictError, ExhaustedError, ProcessNotFoundError, StoppingError
from agent_sandbox.sandboxd.process import Process, StartRequest
from agent_sandbox.sandboxd.reaper import Reaper

REMEMBERED: Final = 1000
"""Ended processes kept at most; the one that ended first goes first."""

REMEMBERED_OUTPUT: Final = 64 * 1024 * 1024
"""Bytes of output kept of ended processes in all."""


class ProcessTable:
    """The daemon's processes.

    Args:
        max_running: how many may run at once.
        ttl: seconds that an ended one is remembered.
    """

    def __init__(self, *, max_running: int, ttl: float) -> None:
        self.started = 0
        self._max_running = max_running
        self._ttl = ttl
        self._tasks: anyio.abc.TaskGroup | None = None
        self._reaper: Reaper | None = None
        self._processes: dict[str, Process] = {}
        self._operations: dict[str, Process] = {}

    def begin(self, tasks: anyio.abc.TaskGroup, reaper: Reaper) -> None:
        """Accept processes from now on; they live in `tasks`."""
        self._tasks, self._reaper = tasks, reaper

    @property
    def running(self) -> int:
        """How many are running."""
        return sum(process.running for process in self._processes.values())

    async def start(self, request: StartRequest) -> tuple[Process, bool]:
        """Start a process, or find the one of the same operation; gives it and whether it is new.

        Returns once it is known whether it started.

        Raises:
            ConflictError: the operation is another command.
            ExhaustedError: as many as allowed are running.
            StoppingError: the daemon is shutting down.
        """
        known = self._operations.get(request.operation_id) if request.operation_id is not None else None
        if known is not None:
            if list(known.request.launch.argv) != list(request.launch.argv):
                raise ConflictError(
                    f"the operation {request.operation_id!r} is another command; give every command its own identifier"
                )
            await known.settled.wait()
            return known, False
        self._forget_old()
        process = self._begin_process(request)
        try:
            await process.settled.wait()
        except BaseException:
            if not request.keep_running:
                process.signal(signal.SIGKILL, group=True)  # Its reader left before it could be attached.
            raise
        return process, True

    def get(self, identifier: str) -> Process:
        """The process of that identifier.

        Raises:
            ProcessNotFoundError: there is none.
        """
        process = self._processes.get(identifier)
        if process is None:
            raise ProcessNotFoundError(f"no process {identifier}: it was forgotten, or the daemon was started anew")
        return process

    def all(self) -> list[Process]:
        """Every process that is remembered, in order of their start."""
        return list(self._processes.values())

    async def remove(self, identifier: str) -> None:
        """Kill a process if it runs, and forget it.

        Raises:
            ProcessNotFoundError: there is none.
        """
        process = self.get(identifier)
        process.signal(signal.SIGKILL, group=True)
        await process.ended.wait()
        self._forget(process)

    async def stop(self, grace: float) -> None:
        """Start nothing more, ask every process to end, kill what is left after `grace` seconds."""
        self._tasks = None
        running = [process for process in self._processes.values() if process.running]
        for process in running:
            process.signal(signal.SIGTERM, group=True)
        with anyio.move_on_after(grace):
            for process in running:
                await process.ended.wait()
        for process in running:
            process.signal(signal.SIGKILL, group=True)

    def _begin_process(self, request: StartRequest) -> Process:
        if self._tasks is None or self._reaper is None:
            raise StoppingError("the daemon does not accept commands now")
        if self.running >= self._max_running:
            raise ExhaustedError(
                f"{self._max_running} commands run in this sandbox, as many as it allows; wait for one to end"
            )
        process = Process(secrets.token_hex(8), request)
        self.started += 1
        self._processes[process.id] = process
        if request.operation_id is not None:
            self._operations[request.operation_id] = process
        self._tasks.start_soon(process.run, self._reaper, name=f"process {process.id}")
        return process

    def _forget_old(self) -> None:
        now = anyio.current_time()
        ended = [process for process in self._processes.values() if process.ended_at is not None]
        ended.sort(key=lambda process: process.ended_at or 0)
        held = sum(process.log.size for process in ended)
        left = len(ended)
        for process in ended:
            expired = now - (process.ended_at or 0) > self._ttl
            if not expired and left <= REMEMBERED and held <= REMEMBERED_OUTPUT:
                break
            left -= 1
            held -= process.log.size
            self._forget(process)

    def _forget(self, process: Process) -> None:
        self._processes.pop(process.id, None)
        if process.request.operation_id is not None:
            self._operations.pop(process.request.operation_id, None)
