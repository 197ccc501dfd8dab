"""Containers as plain processes of the node's own user, for machines that allow no isolation. Not a sandbox."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from signal import SIGKILL
from typing import Final

from agent_sandbox.local.node.errors import ContainerError, HelperError
from agent_sandbox.local.node.host_process import HostProcess, StartPipes
from agent_sandbox.local.node.network import ExitHandler, Lasting, Output, PodNetwork, Started, Survivor
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.runtime import About, KillCommand, Launch

BARE: Final = "process"


class BareProcess(HostProcess):
    """A plain process."""

    def __init__(self, launch: Launch, runtime: "BareRuntime", key: str) -> None:
        super().__init__(launch, runtime.network, key)
        self._runtime = runtime

    def signal(self, number: int) -> None:
        """Signal its whole process group."""
        if self.pid and self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def enter(self, argv: Sequence[str], *, fds: Mapping[int, int], on_exit: ExitHandler) -> KillCommand:
        """Run one more plain process."""
        key = self.network.new_key(self.launch.pod)
        await self._runtime.run(key, self.launch, argv, fds, on_exit)
        return partial(self.network.kill, key, SIGKILL)


class BareRuntime:
    """No walls at all."""

    name = BARE
    pod_overhead = None

    def __init__(self, network: PodNetwork, root: RootFiles) -> None:
        self.network = network
        self._root = root

    async def start(self, launch: Launch) -> BareProcess:
        """Start the command as it is, in its directory."""
        process = BareProcess(launch, self, self.network.new_key(launch.pod))
        pipes = StartPipes()
        try:
            output, lasting = pipes.output(launch.log), Lasting(About(launch).encode(), replaces=launch.replaces)
            started = await self.run(
                process.key, launch, launch.box.argv, pipes.standard, process.did_exit, output, lasting
            )
            process.did_start(started)
        finally:
            pipes.close()
        return process

    async def adopt(self, survivor: Survivor, about: About) -> BareProcess:
        """Take over a process of an earlier node."""
        process = BareProcess(about.launch, self, survivor.key)
        process.did_start(survivor.process)
        await self.network.follow(survivor.key, process.did_exit)
        return process

    async def run(
        self,
        key: str,
        launch: Launch,
        argv: Sequence[str],
        fds: Mapping[int, int],
        on_exit: ExitHandler,
        output: Output | None = None,
        lasting: Lasting | None = None,
    ) -> Started:
        """Run a process in a container's place, or beside one.

        Raises:
            ContainerError: the program does not exist or does not start.
        """
        directory = launch.bare_directory
        env = {name: self._root.on_host(value, directory) for name, value in launch.box.env.items()}
        argv = [self._root.on_host(word, directory) for word in argv]
        path = env.get("PATH", os.defpath)
        program = argv[0] if "/" in argv[0] else shutil.which(argv[0], path=path)
        if program is None:
            raise ContainerError("StartError", f'exec: "{argv[0]}": executable file not found in {path}')
        try:
            return await self.network.spawn(
                key,
                launch.pod,
                [program, *argv[1:]],
                env=env,
                fds=fds,
                uid=None,
                on_exit=on_exit,
                cwd=str(directory),
                cgroups=launch.cgroups,
                output=output,
                lasting=lasting,
            )
        except HelperError as error:
            raise ContainerError("StartError", f'exec: "{argv[0]}": {error}') from error

    async def release(self, pod: str) -> None:
        """Nothing is kept."""
