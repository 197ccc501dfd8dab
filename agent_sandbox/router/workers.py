"""Several processes behind one port: the kernel spreads connections over them, one process looks after them.

In: how to start a worker, and how many. Out: workers that serve until cancelled; one that ends by itself is started
anew. Each worker has a listening socket of its own (SO_REUSEPORT), and the supervisor holds all of them open: while a
worker is replaced, connections wait in its socket's queue instead of being refused.
"""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from agent_sandbox.router.control import serve_control, url_of
from agent_sandbox.router.errors import RouterError
from agent_sandbox.router.options import RouterOptions

log = structlog.get_logger(__name__)

START_SECONDS: Final = 180.0
"""How long a worker may take until it serves; it reads all sandboxes of the cluster first."""

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to start a worker that ends again and again."""

KILL_SECONDS: Final = 5.0
"""How much longer than its own drain a worker may take to end."""

METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
READY: Final = b"r"


class WorkerFailedError(RouterError):
    """A worker ended before it served; what it wrote says why."""


@dataclass(frozen=True)
class WorkerSockets:
    """What a worker inherits, as file descriptors.

    Attributes:
        listener: where it accepts connections.
        supervisor: it says there that it serves, and sees there when the supervisor is gone.
    """

    listener: int
    supervisor: int


Command = Callable[[WorkerSockets], Sequence[str]]
"""The command line of a worker."""


@dataclass(eq=False)
class _Worker:
    process: anyio.abc.Process
    line: socket.socket
    ended: anyio.Event = field(default_factory=anyio.Event)
    dismissed: bool = False


@dataclass(eq=False)
class _Slot:
    """The place of one worker: its listening socket stays, the worker may change."""

    number: int
    listener: socket.socket
    worker: _Worker | None = None


class Supervisor:
    """Runs workers.

    Args:
        command: makes the command line of a worker.
        count: how many.
        options: address, port and control endpoints; the rest is the workers' own business.

    Attributes:
        url: where the workers listen, once they do.
        control_url: where the control endpoints are, once they are served; None without a control port.
    """

    def __init__(self, command: Command, count: int, options: RouterOptions) -> None:
        self.url = ""
        self.control_url: str | None = None
        self._command = command
        self._count = count
        self._options = options
        self._slots: list[_Slot] = []
        self._metrics = Path()
        self._tasks: anyio.abc.TaskGroup
        self._restarting = anyio.Lock()
        self._stopping = False

    async def serve(self, *, task_status: anyio.abc.TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, then let the workers end what they have begun; reports the URL.

        Raises:
            WorkerFailedError: a worker does not start.
            OSError: the address is in use or not this machine's.
        """
        with tempfile.TemporaryDirectory(prefix="agent-sandbox-router-") as metrics:
            self._metrics = Path(metrics)
            self._slots = _bind(self._options.host, self._options.port, self._count)
            try:
                async with anyio.create_task_group() as self._tasks:
                    await self._serve(task_status)
            finally:
                for slot in self._slots:
                    slot.listener.close()

    async def restart(self) -> None:
        """Replace every worker by a new one, one after the other; no connection is refused meanwhile.

        Raises:
            WorkerFailedError: a new worker does not start. The old ones go on.
        """
        async with self._restarting:
            for slot in self._slots:
                old = slot.worker
                slot.worker = await self._start(slot)
                if old is not None:
                    await self._dismiss(old)

    async def _serve(self, task_status: anyio.abc.TaskStatus[str]) -> None:
        try:
            async with anyio.create_task_group() as starting:
                for slot in self._slots:
                    starting.start_soon(self._fill, slot)
        except ExceptionGroup as group:
            await self._stop()
            raise group.exceptions[0] from None
        except BaseException:
            await self._stop()
            raise
        try:
            if self._options.control_port is not None:
                self.control_url = await self._tasks.start(self._serve_control, self._options.control_port)
            secure = self._options.tls_certificate is not None
            self.url = url_of(self._slots[0].listener, secure=secure)
            task_status.started(self.url)
            await anyio.sleep_forever()
        finally:
            await self._stop()

    async def _serve_control(self, port: int, *, task_status: anyio.abc.TaskStatus[str]) -> None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
        await serve_control(
            self._options.control_host,
            port,
            registry,
            ready=lambda: not self._stopping and all(slot.worker is not None for slot in self._slots),
            task_status=task_status,
        )

    async def _fill(self, slot: _Slot) -> None:
        slot.worker = await self._start(slot)

    async def _start(self, slot: _Slot) -> _Worker:
        """A worker that serves; one that does not, or is wanted no longer before it does, is ended."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            sockets = WorkerSockets(slot.listener.fileno(), theirs.fileno())
            try:
                with anyio.CancelScope(shield=True):  # a process that we never got to know would outlive us
                    process = await anyio.open_process(
                        list(self._command(sockets)),
                        stdin=subprocess.DEVNULL,
                        stdout=None,
                        stderr=None,
                        env={**os.environ, METRICS_VARIABLE: str(self._metrics)},
                        pass_fds=(sockets.listener, sockets.supervisor),
                    )
            except BaseException:
                ours.close()
                raise
        worker = _Worker(process, ours)
        self._tasks.start_soon(self._watch, slot, worker, name=f"worker {slot.number}")
        served = False
        try:
            with anyio.move_on_after(START_SECONDS):
                await anyio.wait_readable(ours)
                with suppress(OSError):
                    served = ours.recv(1) == READY
        finally:
            if not served:
                await self._dismiss(worker)
        if served:
            log.info("a worker serves", worker=slot.number, process=process.pid)
            return worker
        raise WorkerFailedError(
            f"worker {slot.number} of the router did not start (exit status {process.returncode}); its output says why"
        )

    async def _watch(self, slot: _Slot, worker: _Worker) -> None:
        """Wait for the worker's end, and replace it if nobody wanted it to end."""
        with anyio.CancelScope(shield=True):
            await worker.process.wait()
        worker.ended.set()
        worker.line.close()
        with suppress(FileNotFoundError):
            await anyio.to_thread.run_sync(mark_process_dead, worker.process.pid, str(self._metrics))
        if worker.dismissed or slot.worker is not worker:
            return
        slot.worker = None
        log.error("a worker ended", worker=slot.number, exit_status=worker.process.returncode)
        pause = FIRST_PAUSE
        while slot.worker is None and not self._stopping:
            await anyio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            async with self._restarting:
                with suppress(WorkerFailedError):
                    slot.worker = slot.worker or await self._start(slot)

    async def _stop(self) -> None:
        self._stopping = True
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for slot in self._slots:
                    if slot.worker is not None:
                        tasks.start_soon(self._dismiss, slot.worker)
            self._tasks.cancel_scope.cancel()

    async def _dismiss(self, worker: _Worker) -> None:
        """Have a worker end: by itself, or by force if it takes too long."""
        worker.dismissed = True
        with suppress(ProcessLookupError):
            worker.process.terminate()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(self._options.drain_delay + self._options.drain_timeout + KILL_SECONDS):
                await worker.ended.wait()
                return
            with suppress(ProcessLookupError):
                worker.process.kill()
            await worker.ended.wait()


async def follow_supervisor(line: socket.socket) -> None:
    """In a worker: say that it serves, then return when the supervisor is gone."""
    line.setblocking(False)
    line.send(READY)
    await anyio.wait_readable(line)


def _bind(host: str, port: int, count: int) -> list[_Slot]:
    slots: list[_Slot] = []
    try:
        for number in range(count):
            listener = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, reuse_port=True, backlog=2048
            )
            slots.append(_Slot(number, listener))
            port = listener.getsockname()[1]
    except BaseException:
        for slot in slots:
            slot.listener.close()
        raise
    return slots
