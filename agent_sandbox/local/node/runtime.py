"""Runs the processes of containers: behind bubblewrap's walls, or bare where the user asked for no isolation.

In: a ``Launch``, a container made concrete. Out: a ``ContainerProcess``: signal it, wait for it, enter it.
"""

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.bubblewrap import ARGS_FD, INFO_FD, SECCOMP_FD, Box, Walls, box_arguments, box_command
from agent_sandbox.local.node.cgroups import ControlGroup
from agent_sandbox.local.node.errors import ContainerError, HelperError, PodNotRunningError
from agent_sandbox.local.node.logs import LogFile, LogThread
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.seccomp import filter_program

_LOG_END_TIMEOUT: Final = 5.0
_EXEC_PATIENCE: Final = 1.0
_EXEC_PAUSE: Final = 0.001
_EXECVP: Final = re.compile(r"bwrap: execvp (?P<program>.*): (?P<why>[^:\n]+)\n?$")

_keys = count(1)


@dataclass(frozen=True)
class Launch:
    """One run of one container.

    Attributes:
        pod: uid of the Pod, whose network exists already.
        host_uid: uid on the host, or None for the node's own.
        box: the container.
        log: where its output goes.
        bare_directory: its working directory on the host, for the runtime without isolation.
        group: its control group, or None where limits cannot be enforced.
    """

    pod: str
    host_uid: int | None
    box: Box
    log: LogFile
    bare_directory: Path
    group: ControlGroup | None = None

    @property
    def cgroups(self) -> list[str]:
        """What each of its processes joins."""
        return self.group.procs if self.group is not None else []


class ContainerProcess:
    """A container that was started.

    Guarantees: ``wait`` returns once, whatever ends the container (its own end, a signal, the helper's death), after
    all it printed is in its log.
    """

    def __init__(self, launch: Launch, *, walled: bool = True) -> None:
        self.launch = launch
        self._walled = walled
        self.pid = 0
        """Process id on the host of the container's first process; 0 until it exists."""
        self._pidfd: int | None = None
        self._exited = anyio.Event()
        self._logged = anyio.Event()
        self._code = 0

    @property
    def alive(self) -> bool:
        """False once it ended."""
        return not self._exited.is_set()

    @property
    def pidfd(self) -> int:
        """Descriptor of the container's first process.

        Raises:
            PodNotRunningError: it has ended, or never came to life.
        """
        if self._pidfd is None or not self.alive:
            raise PodNotRunningError("the container is not running")
        return self._pidfd

    def did_start(self, pid: int) -> None:
        """Remember the first process."""
        self.pid = pid
        with suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def did_exit(self, code: int) -> None:
        """Called on the event loop when it ended."""
        self._code = code
        self._exited.set()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def did_log(self) -> None:
        """Called on the event loop when its output is complete."""
        self._logged.set()

    def signal(self, number: int) -> None:
        """Signal the container's first process (without walls: its session); SIGKILL ends all of them."""
        if self._pidfd is None or not self.alive:
            return
        with suppress(ProcessLookupError):
            if self._walled:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.killpg(self.pid, number)

    def heeds(self, number: int) -> bool:
        """Whether its first process has a handler for a signal.

        Without one the signal does nothing: the kernel shields the first process of a process namespace.
        """
        if not self._walled:
            return True
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
        return caught is None or bool(int(caught.group(1), 16) & (1 << (number - 1)))

    async def until_executed(self, clock: Clock) -> None:
        """Wait until bwrap has become the container's command (a few ms), or has ended without.

        Nothing tells us of that moment, so this looks at the process's name; a command that is itself called bwrap
        costs a second.
        """
        deadline, pause = clock.monotonic() + _EXEC_PATIENCE, _EXEC_PAUSE
        while self.alive and clock.monotonic() < deadline and self._name() == "bwrap":
            await clock.sleep(pause)
            pause *= 1.5

    def _name(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:  # it has ended; the helper will say so
            return "bwrap"

    async def wait(self) -> int:
        """The exit code; 128 plus the signal for a killed one."""
        await self._exited.wait()
        with anyio.move_on_after(_LOG_END_TIMEOUT):
            await self._logged.wait()
        return self._code

    def start_failure(self) -> str:
        """Why the command could not be started at all, or nothing if it ran."""
        text = self.launch.log.head.decode(errors="replace")
        if self._code != 1 or not text.startswith("bwrap: "):
            return ""
        match = _EXECVP.match(text)
        if match:
            return f'exec: "{match["program"]}": {match["why"]}'
        return text.strip()


class Runtime(Protocol):
    """What the life of a Pod needs of a runtime."""

    async def start(self, launch: Launch) -> ContainerProcess:
        """Start a container.

        Raises:
            ContainerError: it could not be started.
        """

    async def enter(
        self,
        process: ContainerProcess,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int],
        on_exit: Callable[[int], None],
    ) -> str:
        """Run a command inside a running container; returns the key to kill it by.

        Raises:
            PodNotRunningError: the container is not running.
            ContainerError: the command could not be started.
        """


def _memory_file(name: str, data: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Pipes:
    """The descriptors of one start, closed whatever happens; the log thread takes over its two."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self.null = self._keep(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        self.out_read, self.out_write = self._pair()
        self.err_read, self.err_write = self._pair()

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def _pair(self) -> tuple[int, int]:
        read, write = os.pipe()
        self._open += [read, write]
        return read, write

    def memory(self, name: str, data: bytes) -> int:
        """A file in memory, for bwrap to read."""
        return self._keep(_memory_file(name, data))

    def info(self) -> tuple[int, int]:
        """A pipe on which bwrap tells the container's process id."""
        read, write = self._pair()
        os.set_blocking(read, False)
        return read, write

    def capture(self, thread: LogThread, process: ContainerProcess) -> None:
        """Give the output to the log thread."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            with suppress(RuntimeError):  # the loop is gone: the node was stopped and nobody waits any more
                loop.call_soon_threadsafe(process.did_log)

        thread.capture(self.out_read, self.err_read, process.launch.log, ended)
        self._open.remove(self.out_read)
        self._open.remove(self.err_read)

    def close(self, *fds: int) -> None:
        """Close some now, or all that are left."""
        for fd in fds or tuple(self._open):
            os.close(fd)
            self._open.remove(fd)


class BubblewrapRuntime:
    """Containers behind walls: see docs/isolation.md for what each wall stops."""

    def __init__(self, network: PodNetwork, logs: LogThread, walls: Walls, root: RootFiles) -> None:
        self._network = network
        self._logs = logs
        self._walls = walls
        self._root = root
        self._filter = filter_program()
        self._filter_fd = _memory_file("seccomp", self._filter)

    def close(self) -> None:
        """Give back the descriptor of the filter."""
        os.close(self._filter_fd)

    async def start(self, launch: Launch) -> ContainerProcess:
        """Start a container and wait until its first process exists (about 5 ms)."""
        process = ContainerProcess(launch)
        arguments = box_arguments(self._walls, launch.box, self._root, self._network.tree)
        pipes = _Pipes()
        try:
            info_read, info_write = pipes.info()
            fds = {
                0: pipes.null,
                1: pipes.out_write,
                2: pipes.err_write,
                ARGS_FD: pipes.memory("arguments", b"".join(text.encode() + b"\0" for text in arguments)),
                SECCOMP_FD: pipes.memory("seccomp", self._filter),
                INFO_FD: info_write,
            }
            await self._spawn(process, fds)
            pipes.capture(self._logs, process)
            pipes.close(pipes.out_write, pipes.err_write, info_write)
            pid = await _read_child_pid(info_read)
            if pid:
                process.did_start(pid)
        finally:
            pipes.close()
        return process

    async def _spawn(self, process: ContainerProcess, fds: Mapping[int, int]) -> None:
        launch = process.launch
        try:
            await self._network.spawn(
                f"{launch.pod}/{next(_keys)}",
                launch.pod,
                box_command(self._walls, launch.box),
                env={},
                fds=fds,
                uid=launch.host_uid,
                on_exit=process.did_exit,
                cgroups=launch.cgroups,
            )
        except HelperError as error:
            raise ContainerError("RunContainerError", str(error)) from error

    async def enter(
        self,
        process: ContainerProcess,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int],
        on_exit: Callable[[int], None],
    ) -> str:
        """Run a command with the container's environment, in all its namespaces and behind its filter."""
        key = f"{process.launch.pod}/exec/{next(_keys)}"
        box = process.launch.box
        try:
            await self._network.enter(
                key,
                argv,
                env=box.env,
                fds=fds,
                uid=box.uid,
                on_exit=on_exit,
                pidfd=process.pidfd,
                seccomp_fd=self._filter_fd,
                cwd=box.workdir,
                cgroups=process.launch.cgroups,
            )
        except HelperError as error:
            raise ContainerError("StartError", f'exec: "{argv[0]}": {error}') from error
        return key


class BareRuntime:
    """Containers as plain processes of the node's own user, for machines that allow no isolation. Not a sandbox."""

    def __init__(self, network: PodNetwork, logs: LogThread, root: RootFiles) -> None:
        self._network = network
        self._logs = logs
        self._root = root

    async def start(self, launch: Launch) -> ContainerProcess:
        """Start the command as it is, in its directory."""
        process = ContainerProcess(launch, walled=False)
        pipes = _Pipes()
        try:
            fds = {0: pipes.null, 1: pipes.out_write, 2: pipes.err_write}
            pid = await self._run(launch, launch.box.argv, fds, process.did_exit)
            pipes.capture(self._logs, process)
            process.did_start(pid)
        finally:
            pipes.close()
        return process

    async def _run(
        self, launch: Launch, argv: Sequence[str], fds: Mapping[int, int], on_exit: Callable[[int], None], key: str = ""
    ) -> int:
        directory = launch.bare_directory
        env = {name: self._root.on_host(value, directory) for name, value in launch.box.env.items()}
        argv = [self._root.on_host(word, directory) for word in argv]
        path = env.get("PATH", os.defpath)
        program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=path)
        if program is None:
            raise ContainerError("StartError", f'exec: "{argv[0]}": executable file not found in {path}')
        try:
            return await self._network.spawn(
                key or f"{launch.pod}/{next(_keys)}",
                launch.pod,
                [program, *argv[1:]],
                env=env,
                fds=fds,
                uid=None,
                on_exit=on_exit,
                cwd=str(directory),
                cgroups=launch.cgroups,
            )
        except HelperError as error:
            raise ContainerError("StartError", f'exec: "{argv[0]}": {error}') from error

    async def enter(
        self,
        process: ContainerProcess,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int],
        on_exit: Callable[[int], None],
    ) -> str:
        """Run one more plain process."""
        key = f"{process.launch.pod}/exec/{next(_keys)}"
        await self._run(process.launch, argv, fds, on_exit, key)
        return key


async def _read_child_pid(fd: int) -> int:
    """What bwrap tells on its info pipe, which it writes in pieces and then closes; 0 if it died before."""
    data = b""
    while True:
        await anyio.wait_readable(fd)
        try:
            piece = os.read(fd, 4096)
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    if not data:
        return 0
    pid: int = json.loads(data)["child-pid"]
    return pid
