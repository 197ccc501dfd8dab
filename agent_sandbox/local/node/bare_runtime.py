"""Containers as plain processes of the node's own user, for machines that allow no isolation. Not a sandbox."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from signal import SIGKILL
from typing import Final

from agent_sandbox.local.node.errors import ContainerError, HelperError
from agent_sandbox.local.node.host_process import HostProcess, StartPipes
from agent_sandbox.local.node.logs import LogThread
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.runtime import ExitHandler, KillCommand, Launch

BARE: Final = "process"

_keys = count(1)


class BareProcess(HostProcess):
    """A plain process."""

    def __init__(self, launch: Launch, runtime: "BareRuntime") -> None:
        super().__init__(launch)
        self._runtime = runtime

    def signal(self, number: int) -> None:
        """Signal its whole process group."""
        if self.pid and self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def enter(self, argv: Sequence[str], *, fds: Mapping[int, int], on_exit: ExitHandler) -> KillCommand:
        """Run one more plain process."""
        key, _ = await self._runtime.run(self.launch, argv, fds, on_exit)
        return partial(self._runtime.network.kill, key, SIGKILL)


class BareRuntime:
    """No walls at all."""

    name = BARE
    pod_overhead = None

    def __init__(self, network: PodNetwork, logs: LogThread, root: RootFiles) -> None:
        self.network = network
        self._logs = logs
        self._root = root

    async def start(self, launch: Launch) -> BareProcess:
        """Start the command as it is, in its directory."""
        process = BareProcess(launch, self)
        pipes = StartPipes()
        try:
            _, pid = await self.run(launch, launch.box.argv, pipes.standard, process.did_exit)
            pipes.capture(self._logs, process)
            process.did_start(pid)
        finally:
            pipes.close()
        return process

    async def run(
        self, launch: Launch, argv: Sequence[str], fds: Mapping[int, int], on_exit: ExitHandler
    ) -> tuple[str, int]:
        """Run a process beside a container; the key by which the helper knows it, and its process id.

        Raises:
            ContainerError: the program does not exist or does not start.
        """
        key, directory = f"{launch.pod}/{next(_keys)}", launch.bare_directory
        env = {name: self._root.on_host(value, directory) for name, value in launch.box.env.items()}
        argv = [self._root.on_host(word, directory) for word in argv]
        path = env.get("PATH", os.defpath)
        program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=path)
        if program is None:
            raise ContainerError("StartError", f'exec: "{argv[0]}": executable file not found in {path}')
        try:
            pid = await self.network.spawn(
                key,
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
        return key, pid

    async def release(self, pod: str) -> None:
        """Nothing is kept."""
