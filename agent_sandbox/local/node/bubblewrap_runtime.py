"""The default runtime: each container behind the walls of ``bwrap``, in its Pod's network.

What ``bwrap`` is told is in ``bubblewrap.py``; this starts it, signals what it started and enters it.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Final

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.bubblewrap import ARGS_FD, INFO_FD, SECCOMP_FD, Walls, box_arguments, box_command
from agent_sandbox.local.node.errors import ContainerError, HelperError
from agent_sandbox.local.node.host_process import HostProcess, StartPipes
from agent_sandbox.local.node.network import ExitHandler, Lasting, PodNetwork, Started, Survivor, memory_file
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.runtime import About, KillCommand, Launch
from agent_sandbox.local.node.seccomp import filter_program

BUBBLEWRAP: Final = "bubblewrap"

_EXEC_PATIENCE: Final = 60.0
_EXEC_PAUSE: Final = 0.001
_LONGEST_EXEC_PAUSE: Final = 0.05
_OPTIONS: Final = f"--args\0{ARGS_FD}\0--\0".encode()
"""How the command line of our own bwrap goes on, as the kernel shows it."""
_EXECVP: Final = re.compile(r"bwrap: execvp (?P<program>.*): (?P<why>[^:\n]+)\n?$")


@dataclass(frozen=True)
class _Entrance:
    """What it takes to start one more command behind the same walls."""

    network: PodNetwork
    filter_fd: int


def has_executed(pid: int) -> bool:
    """Whether a process that began as our bwrap is the container's command by now, whatever that is called."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended; the helper will say so
        return False
    return words != b"" and not words.partition(b"\0")[2].startswith(_OPTIONS)


class WalledProcess(HostProcess):
    """A container in bwrap."""

    def __init__(self, launch: Launch, entrance: _Entrance, key: str) -> None:
        super().__init__(launch, entrance.network, key)
        self._entrance = entrance

    def heeds(self, number: int) -> bool:
        """Whether its first process has a handler for a signal.

        Without one the signal does nothing: the kernel shields the first process of a process namespace.
        """
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
        return caught is None or bool(int(caught.group(1), 16) & (1 << (number - 1)))

    async def until_executed(self, clock: Clock) -> None:
        """Wait until bwrap has become the container's command (a few ms on a quiet machine), or has ended without.

        Nothing tells us of that moment, so this looks at the process's command line.
        """
        deadline, pause = clock.monotonic() + _EXEC_PATIENCE, _EXEC_PAUSE
        while self.alive and clock.monotonic() < deadline and not has_executed(self.pid):
            await clock.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_EXEC_PAUSE)

    def start_failure(self) -> str:
        """Why the command could not be started at all, or nothing if it ran."""
        text = self.said.decode(errors="replace")
        if self._code != 1 or not text.startswith("bwrap: "):
            return ""
        match = _EXECVP.match(text)
        if match:
            return f'exec: "{match["program"]}": {match["why"]}'
        return text.strip()

    async def enter(self, argv: Sequence[str], *, fds: Mapping[int, int], on_exit: ExitHandler) -> KillCommand:
        """Run a command with the container's environment, in all its namespaces and behind its filter."""
        box, key = self.launch.box, self.network.new_key(self.launch.pod)
        pidfd = self.pidfd()  # a copy: the container may end while we wait for our turn
        try:
            await self.network.enter(
                key,
                self.launch.pod,
                argv,
                env=box.env,
                fds=fds,
                uid=box.uid,
                gid=box.gid,
                on_exit=on_exit,
                pidfd=pidfd,
                seccomp_fd=self._entrance.filter_fd,
                cwd=box.workdir,
                cgroups=self.launch.cgroups,
                file_size=box.file_size,
            )
        except HelperError as error:
            raise ContainerError("StartError", f'exec: "{argv[0]}": {error}') from error
        finally:
            os.close(pidfd)
        return partial(self.network.kill, key, SIGKILL)


class BubblewrapRuntime:
    """Containers behind walls: see docs/isolation.md for what each wall stops."""

    name = BUBBLEWRAP
    pod_overhead = None

    def __init__(self, network: PodNetwork, walls: Walls, root: RootFiles) -> None:
        self._network = network
        self._walls = walls
        self._root = root
        self._filter = filter_program()
        self._entrance = _Entrance(network, memory_file("seccomp", self._filter))

    def close(self) -> None:
        """Give back the descriptor of the filter."""
        os.close(self._entrance.filter_fd)

    async def start(self, launch: Launch) -> WalledProcess:
        """Start a container and wait until its first process exists (about 5 ms)."""
        process = WalledProcess(launch, self._entrance, self._network.new_key(launch.pod))
        arguments = box_arguments(self._walls, launch.box, self._root, self._network.tree)
        assert not any("\0" in text for text in arguments), "Box lets no null byte in: it would end an option"
        pipes = StartPipes(stdin=launch.box.stdin, tty=launch.box.tty)
        try:
            fds = {
                **pipes.standard,
                ARGS_FD: pipes.memory("arguments", b"".join(text.encode() + b"\0" for text in arguments)),
                SECCOMP_FD: pipes.memory("seccomp", self._filter),
            }
            process.did_start(await self._spawn(process, pipes, fds))
            pipes.give_input(process)
        finally:
            pipes.close()
        return process

    async def _spawn(self, process: WalledProcess, pipes: StartPipes, fds: Mapping[int, int]) -> Started:
        launch = process.launch
        try:
            return await self._network.spawn(
                process.key,
                launch.pod,
                box_command(self._walls, launch.box),
                env={},
                fds=fds,
                uid=launch.host_uid,
                on_exit=process.did_exit,
                cgroups=launch.cgroups,
                file_size=launch.box.file_size,
                info=INFO_FD,
                output=pipes.output(launch.log),
                lasting=Lasting(About(launch).encode(), pipes.input, launch.replaces),
            )
        except HelperError as error:
            raise ContainerError("RunContainerError", str(error)) from error

    async def adopt(self, survivor: Survivor, about: About) -> WalledProcess:
        """Take over a container of an earlier node."""
        process = WalledProcess(about.launch, self._entrance, survivor.key)
        process.did_start(survivor.process)
        process.stdin = survivor.input
        await self._network.follow(survivor.key, process.did_exit)
        return process

    async def release(self, pod: str) -> None:
        """Nothing is kept: a Pod's containers share its network, which the node owns, and nothing else."""
