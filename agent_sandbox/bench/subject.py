"""The controllers under test: processes that the benchmark starts, or whatever runs in the cluster already."""

import shlex
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import aiohttp
import anyio
import anyio.abc

from agent_sandbox.bench.meters import ProcessReading, parse_process_metrics, read_processes


class SubjectError(Exception):
    """The controllers ended by themselves, or cannot be measured."""


class Subject(Protocol):
    """What a scenario may do with the controllers."""

    @property
    def name(self) -> str:
        """How results call it."""

    @property
    def is_ours(self) -> bool:
        """True if it may be stopped, started and killed."""

    async def read(self) -> ProcessReading | None:
        """Its CPU and memory so far; None if nobody tells."""

    async def start(self) -> None:
        """Start one more process; the first leads."""

    async def stop(self) -> None:
        """End all processes in order."""

    async def kill_leader(self) -> None:
        """Kill the process that was started first, as a power cut would."""


class External:
    """Controllers that run already; at most their metrics are known."""

    is_ours = False

    def __init__(self, name: str = "cluster", metrics_url: str | None = None) -> None:
        self.name = name
        self._url = metrics_url

    async def read(self) -> ProcessReading | None:
        """Ask their ``/metrics``.

        Raises:
            SubjectError: the address does not answer with metrics.
        """
        if self._url is None:
            return None
        try:
            async with aiohttp.ClientSession() as session, session.get(self._url) as answer:
                answer.raise_for_status()
                return parse_process_metrics(await answer.read())
        except aiohttp.ClientError as error:
            raise SubjectError(f"the controllers' metrics at {self._url} cannot be read: {error}") from error

    async def start(self) -> None:
        """Nothing: they run."""

    async def stop(self) -> None:
        """Nothing: they are not ours."""

    async def kill_leader(self) -> None:
        """Nothing: they are not ours."""


class Processes:
    """Controllers started by a command line, any implementation's.

    In the command ``{kubeconfig}`` stands for the kubeconfig and ``{port}`` for a free port, one for each place and
    process. Output goes to files of the folder. Use it as an async context manager: all processes end with it.
    """

    is_ours = True

    def __init__(
        self, name: str, command: str, *, kubeconfig: Path, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._command = command
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._environment = dict(environment)
        self._running: list[anyio.abc.Process] = []
        self._spent = ProcessReading(0.0, 0)  # by those that ended
        self._started = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.stop()

    async def read(self) -> ProcessReading:
        """CPU of all processes, also of those that ended; the largest memory of those that run.

        Raises:
            SubjectError: one of them ended by itself.
        """
        for process in self._running:
            if process.returncode is not None:
                raise SubjectError(
                    f"{self.name}: the controllers ended with status {process.returncode}; their output is in "
                    f"{self._folder}"
                )
        now = read_processes(process.pid for process in self._running)
        return ProcessReading(now.cpu_seconds + self._spent.cpu_seconds, now.memory_bytes)

    async def start(self) -> None:
        """One more process."""
        self._started += 1
        command = self._command.replace("{kubeconfig}", shlex.quote(str(self._kubeconfig)))
        while "{port}" in command:
            command = command.replace("{port}", str(_free_port()), 1)
        with (self._folder / f"{self.name}-{self._started}.log").open("wb") as log:
            self._running.append(
                await anyio.open_process(shlex.split(command), stdout=log, stderr=log, env=self._environment)
            )

    async def stop(self) -> None:
        """SIGTERM to all, SIGKILL after twenty seconds."""
        for process in self._running:
            self._remember(process)
            if process.returncode is None:
                process.terminate()
        for process in self._running:
            with anyio.move_on_after(20):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        self._running.clear()

    async def kill_leader(self) -> None:
        """SIGKILL to the one that was started first."""
        leader = self._running.pop(0)
        self._remember(leader)
        leader.send_signal(signal.SIGKILL)
        await leader.wait()

    def _remember(self, process: anyio.abc.Process) -> None:
        spent = read_processes([process.pid])
        self._spent = ProcessReading(self._spent.cpu_seconds + spent.cpu_seconds, 0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
