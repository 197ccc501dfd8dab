"""The controllers under test: processes that the benchmark starts, or whatever runs in the cluster already."""

import shlex
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
import anyio
import anyio.abc

from agent_sandbox.bench.meters import ProcessReading, parse_process_metrics, read_processes

LAST_LINES: Final = 15
"""How much of their output is told when controllers end by themselves."""


class SubjectError(Exception):
    """The controllers do not start, ended by themselves, or cannot be measured."""


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

    Errors:
        ``SubjectError``, in an ``ExceptionGroup``, cancels the block as soon as a process ends that was not told to.
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
        self._watchers = anyio.create_task_group()
        self._spent = ProcessReading(0.0, 0)  # by those that ended
        self._started = 0

    async def __aenter__(self) -> Self:
        await self._watchers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            await self.stop()
        return await self._watchers.__aexit__(kind, error, trace)

    async def read(self) -> ProcessReading:
        """CPU of all processes, also of those that ended; the largest memory of those that run."""
        now = read_processes(process.pid for process in self._running)
        return ProcessReading(now.cpu_seconds + self._spent.cpu_seconds, now.memory_bytes)

    async def start(self) -> None:
        """One more process.

        Raises:
            SubjectError: the command is no program.
        """
        self._started += 1
        command = self._command.replace("{kubeconfig}", shlex.quote(str(self._kubeconfig)))
        while "{port}" in command:
            command = command.replace("{port}", str(_free_port()), 1)
        path = self._folder / f"controllers-{self._started}.log"
        try:
            words = shlex.split(command)
            with path.open("wb") as log:
                process = await anyio.open_process(words, stdout=log, stderr=log, env=self._environment)
        except (OSError, ValueError) as error:
            raise SubjectError(f"{self.name}: the controllers cannot be started: {error}") from error
        self._running.append(process)
        self._watchers.start_soon(self._watch, process, path, name=f"{self.name}, process {self._started}")

    async def stop(self) -> None:
        """SIGTERM to all, SIGKILL after twenty seconds."""
        ending, self._running = self._running, []
        for process in ending:
            self._remember(process)
            if process.returncode is None:
                process.terminate()
        for process in ending:
            with anyio.move_on_after(20):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def kill_leader(self) -> None:
        """SIGKILL to the one that was started first."""
        leader = self._running.pop(0)
        self._remember(leader)
        leader.send_signal(signal.SIGKILL)
        await leader.wait()

    async def _watch(self, process: anyio.abc.Process, log: Path) -> None:
        status = await process.wait()
        if process in self._running:  # nobody has told it to end
            words = await anyio.Path(log).read_text(errors="replace")
            last = "\n".join(words.splitlines()[-LAST_LINES:]) or "(nothing)"
            raise SubjectError(
                f"{self.name}: the controllers ended by themselves {_ending(status)}; the last they said:\n{last}"
            )

    def _remember(self, process: anyio.abc.Process) -> None:
        spent = read_processes([process.pid])
        self._spent = ProcessReading(self._spent.cpu_seconds + spent.cpu_seconds, 0)


def _ending(status: int) -> str:
    return f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
