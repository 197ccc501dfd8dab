"""The runtime ``gvisor``: every Pod a kernel of its own in user space, run by ``runsc`` in the Pod's network.

What ``runsc`` reads is in ``gvisor.py``; this starts it, signals what it started and enters it. The first container of
a Pod starts its kernel; ``release`` ends it. If a kernel dies, all its containers end with it, and the next start of
one makes another.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import TaskGroup

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.bubblewrap import Mount, own_mounts
from agent_sandbox.local.node.cgroups import Limits
from agent_sandbox.local.node.errors import ContainerError, HelperError, HelperGoneError, PodNotRunningError
from agent_sandbox.local.node.gvisor import (
    Users,
    container_config,
    host_ids,
    keeper_config,
    make_root,
    process_config,
    system_mounts,
)
from agent_sandbox.local.node.host_process import StartPipes
from agent_sandbox.local.node.network import Ended, ExitHandler, Lasting, Output, PodNetwork, Survivor, memory_file
from agent_sandbox.local.node.records import NodeDirectory, remove_tree
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.runtime import About, ContainerProcess, KillCommand, Launch

log = structlog.get_logger(__name__)

GVISOR: Final = "gvisor"

_START_TIMEOUT: Final = 20.0
_END_TIMEOUT: Final = 10.0
_START_PAUSE: Final = 0.005
_PROCESS_FD: Final = 10
_RUNSC_FAILED: Final = 128
_KILLED: Final = 137
_DEATH_PATIENCE: Final = 0.3
_FAILURES: Final = ("running container: ", "creating container: ", "starting container: ", "loading container: ")


@dataclass(frozen=True)
class Runsc:
    """A ``runsc`` that works here.

    Attributes:
        program: its path.
        platform: how it intercepts system calls, ``systrap`` or ``ptrace``.
        flags: further flags that this build knows and we want.
    """

    program: str
    platform: str
    flags: tuple[str, ...] = ()

    def command(self, state: str, *words: str) -> list[str]:
        """A command line; ``state`` is the directory of its own records."""
        options = ["--root", state, "--ignore-cgroups", f"--platform={self.platform}", "--network=sandbox"]
        return [self.program, *options, *self.flags, *words]


@dataclass(eq=False)
class _Kernel:
    """The kernel of one Pod.

    Attributes:
        keeper: id of the container that keeps it.
        key: its ``runsc`` as the helper knows it.
        ended: set when it is gone.
    """

    keeper: str
    key: str
    ended: anyio.Event


class GvisorProcess(ContainerProcess):
    """A container in its Pod's kernel."""

    def __init__(self, launch: Launch, runtime: "GvisorRuntime", network: PodNetwork, key: str, identity: str) -> None:
        super().__init__(launch, network, key)
        self._runtime = runtime
        self.identity = identity
        """The container's name for ``runsc``."""

    def signal(self, number: int) -> None:
        """Have ``runsc`` signal the first process, or all of them."""
        if self.alive:
            self._runtime.signal_soon(self.launch.pod, self.identity, number)

    async def until_executed(self, clock: Clock) -> None:
        """Wait until ``runsc`` has recorded that the container runs (some 0.3 s), or has ended without."""
        deadline = clock.monotonic() + _START_TIMEOUT
        while self.alive and clock.monotonic() < deadline and not await self._runtime.is_running(self.identity):
            await clock.sleep(_START_PAUSE)

    def start_failure(self) -> str:
        """Why ``runsc`` could not start it, or nothing if it ran."""
        text = self.said.decode(errors="replace").strip()
        if self._code != _RUNSC_FAILED or not text.startswith(_FAILURES):
            return ""
        return text.rpartition("]: ")[2] if "]: " in text else text

    async def enter(self, argv: Sequence[str], *, fds: Mapping[int, int], on_exit: ExitHandler) -> KillCommand:
        """Run a command in the container's namespaces of the Pod's kernel."""
        if not self.alive:
            raise PodNotRunningError("the container is not running")
        return await self._runtime.enter(self, argv, fds, on_exit)


class GvisorRuntime:
    """Containers in gVisor: see docs/isolation.md for what it stops beyond bubblewrap."""

    name = GVISOR
    pod_overhead = Limits(memory=128 << 20, cpu=Decimal(0), processes=512)

    def __init__(
        self,
        network: PodNetwork,
        root: RootFiles,
        directory: NodeDirectory,
        runsc: Runsc,
        tasks: TaskGroup,
    ) -> None:
        """
        Args:
            network: the pod network.
            root: the root file system of containers.
            directory: the node's directory.
            runsc: the program.
            tasks: owns the signals under way.
        """
        self._network = network
        self._root = root
        self._directory = directory
        self.runsc = runsc
        """The program that runs them."""
        self._tasks = tasks
        self._kernels: dict[str, _Kernel] = {}
        self._starting = anyio.Lock()

    @property
    def _state(self) -> str:
        """Where ``runsc`` keeps its records: in the helper's memory, so that they end with what they describe."""
        return str(self._network.tree / "own")

    # Starting

    async def start(self, launch: Launch) -> GvisorProcess:
        """Start a container; for a Pod's first one, its kernel before (some 0.3 s each)."""
        kernel = await self._kernel(launch)
        key = self._network.new_key(launch.pod)
        identity = _identity(launch.pod, key)
        process = GvisorProcess(launch, self, self._network, key, identity)
        bundle = await self._bundle(launch, kernel.keeper)
        pipes = StartPipes(stdin=launch.box.stdin, tty=launch.box.tty)
        try:
            words = ["run", "--bundle", str(self._seen(bundle)), identity]
            await self._spawn(
                key,
                launch,
                words,
                pipes.standard,
                partial(self._ended, process, kernel),
                pipes.output(launch.log),
                Lasting(About(launch, identity).encode(), pipes.input, launch.replaces),
            )
            pipes.give_input(process)
        finally:
            pipes.close()
        return process

    async def adopt(self, survivor: Survivor, about: About) -> GvisorProcess:
        """Take over a container of an earlier node, and its Pod's kernel with the first one."""
        async with self._starting:
            if survivor.pod not in self._kernels:
                self._kernels[survivor.pod] = await self._find_kernel(survivor.pod)
        kernel = self._kernels[survivor.pod]
        process = GvisorProcess(about.launch, self, self._network, survivor.key, about.identity)
        process.stdin = survivor.input
        if survivor.process.pidfd is not None:
            os.close(survivor.process.pidfd)
        await self._network.follow(survivor.key, partial(self._ended, process, kernel))
        return process

    async def _find_kernel(self, pod: str) -> _Kernel:
        """The kernel that an earlier node started for a Pod: the last one."""
        kernels = []
        for survivor in await self._network.survivors(pod):
            survivor.close()
            about = About.decode(survivor.about)
            if not about.is_container:
                kernels.append(_Kernel(about.identity, survivor.key, anyio.Event()))
        if not kernels:
            raise ContainerError("RunContainerError", "the Pod's kernel is not there any more")
        kernel = kernels[-1]
        await self._network.follow(kernel.key, lambda _: kernel.ended.set())
        return kernel

    @staticmethod
    def _ended(process: GvisorProcess, kernel: _Kernel, ended: Ended) -> None:
        """A container's ``runsc`` has ended: with the container's code, or with its own if the kernel died under it."""

        def decide() -> None:
            process.did_exit(ended._replace(code=_KILLED) if kernel.ended.is_set() else ended)

        if ended.code == _RUNSC_FAILED:  # which of the two? The kernel's end is told within milliseconds
            asyncio.get_running_loop().call_later(_DEATH_PATIENCE, decide)
        else:
            process.did_exit(ended)

    async def _spawn(
        self,
        key: str,
        launch: Launch,
        words: Sequence[str],
        fds: Mapping[int, int],
        on_exit: ExitHandler,
        output: Output | None = None,
        lasting: Lasting | None = None,
    ) -> None:
        """Run ``runsc`` in a Pod's network."""
        try:
            await self._network.spawn(
                key,
                launch.pod,
                self.runsc.command(self._state, *words),
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                fds=fds,
                uid=None,
                on_exit=on_exit,
                cgroups=launch.cgroups,
                for_gvisor=True,
                output=output,
                lasting=lasting,
            )
        except HelperError as error:
            raise ContainerError("RunContainerError", f"runsc: {error}") from error

    def _bundles(self, pod: str) -> Path:
        return self._directory.pod(pod) / "gvisor"

    def _seen(self, path: Path) -> Path:
        """A path of the state directory as the helper's processes see it."""
        return self._network.tree / path.relative_to(self._directory.root)

    async def _kernel(self, launch: Launch) -> _Kernel:
        async with self._starting:
            kernel = self._kernels.get(launch.pod)
            if kernel is not None and not kernel.ended.is_set():
                return kernel
            if kernel is not None:  # it took the Pod's address with it
                await self._network.renew(launch.pod)
            kernel = self._kernels[launch.pod] = await self._start_kernel(launch)
            return kernel

    async def _start_kernel(self, launch: Launch) -> _Kernel:
        key, ended = self._network.new_key(launch.pod), anyio.Event()
        identity = _identity(launch.pod, key, "-kernel")
        bundle = self._bundles(launch.pod) / ".kernel"
        config = keeper_config(str(self._seen(bundle) / "root"), launch.box.hostname, _users(launch))
        await anyio.to_thread.run_sync(_write_bundle, bundle, config, [("/usr", False)], "/")
        read, write = os.pipe()
        os.set_blocking(read, False)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            await self._spawn(
                key,
                launch,
                ["run", "--bundle", str(self._seen(bundle)), identity],
                {0: null, 1: write, 2: write},
                lambda _: ended.set(),
                lasting=Lasting(About(launch, identity, is_container=False).encode()),
            )
            os.close(write)
            write = -1
            kernel = _Kernel(identity, key, ended)
            await self._until_running(kernel, launch, read)
        finally:
            for fd in (read, write, null):
                if fd != -1:
                    os.close(fd)
        return kernel

    async def _until_running(self, kernel: _Kernel, launch: Launch, output: int) -> None:
        """Wait until ``runsc`` has recorded that the keeper runs.

        Raises:
            ContainerError: it has ended, or does not come.
        """
        with anyio.move_on_after(_START_TIMEOUT):
            while not kernel.ended.is_set():
                if await self.is_running(kernel.keeper):
                    return
                await anyio.sleep(_START_PAUSE)
        if not kernel.ended.is_set():
            await self._network.kill(kernel.key, signal.SIGKILL)
            await kernel.ended.wait()
        with suppress(BlockingIOError):
            text = os.read(output, 4096).decode(errors="replace").strip()
            raise ContainerError("RunContainerError", f"gVisor did not start: {text or 'no answer'}")
        raise ContainerError("RunContainerError", f"gVisor did not start within {_START_TIMEOUT:.0f} s")

    async def is_running(self, identity: str) -> bool:
        """Whether ``runsc`` has recorded that a container runs."""
        return await anyio.to_thread.run_sync(_is_running, self._network.on_host(self._state), identity)

    async def _bundle(self, launch: Launch, keeper: str) -> Path:
        """Write what ``runsc`` reads."""
        bundle = self._bundles(launch.pod) / launch.bare_directory.parent.name
        root = launch.box.root or str(self._seen(bundle) / "root")
        mounts = [] if launch.box.root else [*system_mounts(), *own_mounts(self._root, self._network.tree)]
        mounts += [await self._openable(launch, number, mount) for number, mount in enumerate(launch.box.mounts)]
        config = container_config(launch.box, root, mounts, _users(launch), keeper)
        targets = await anyio.to_thread.run_sync(self._targets, mounts)
        await anyio.to_thread.run_sync(_write_bundle, bundle, config, targets, launch.box.workdir)
        return bundle

    def _targets(self, mounts: Sequence[Mount]) -> list[tuple[str, bool]]:
        return [(mount.target, self._network.on_host(mount.source).is_file()) for mount in mounts]

    async def _openable(self, launch: Launch, number: int, mount: Mount) -> Mount:
        """The same mount by a path that the process which opens files, a stranger to the host, may walk."""
        files = self._seen(self._directory.pod(launch.pod) / "files")
        source = Path(mount.source)
        if files not in source.parents:
            return mount
        tree, owner = self._network.tree, -1 if launch.host_uid is None else launch.host_uid
        name = f"gvisor-{launch.bare_directory.parent.name}-{number}"
        path = await self._network.part_of_volume(
            launch.pod, name, str(files.relative_to(tree)), str(source.relative_to(files)), owner
        )
        return replace(mount, source=path)

    # Entering

    async def enter(
        self, process: GvisorProcess, argv: Sequence[str], fds: Mapping[int, int], on_exit: ExitHandler
    ) -> KillCommand:
        """Run a command in a container; see ``ContainerProcess.enter``."""
        launch, key = process.launch, self._network.new_key(process.launch.pod)
        config = process_config(launch.box, argv, terminal=os.isatty(fds[0]))
        pid_file = self._bundles(launch.pod) / _identity(process.identity, key, "-exec")
        description = memory_file("process", msgspec.json.encode(config))
        try:
            words = ["--process", f"/proc/self/fd/{_PROCESS_FD}", "--internal-pid-file", str(self._seen(pid_file))]

            def ended(how: Ended) -> None:
                pid_file.unlink(missing_ok=True)
                on_exit(how)

            await self._spawn(key, launch, ["exec", *words, process.identity], {**fds, _PROCESS_FD: description}, ended)
        finally:
            os.close(description)
        return partial(self._kill_command, process, pid_file, key)

    async def _kill_command(self, process: GvisorProcess, pid_file: Path, key: str) -> None:
        pid = await anyio.to_thread.run_sync(_read_pid, pid_file)
        if pid and process.alive:
            with suppress(HelperError, HelperGoneError, ContainerError):
                await self._run(process.launch.pod, "kill", "--pid", pid, process.identity, "KILL")
        await self._network.kill(key, signal.SIGKILL)

    # Ending

    def signal_soon(self, pod: str, identity: str, number: int) -> None:
        """Signal a container's first process; SIGKILL ends all of them."""
        self._tasks.start_soon(self._signal, pod, identity, number)

    async def _signal(self, pod: str, identity: str, number: int) -> None:
        # Shielded, because a node that is stopping signals its containers, too.
        # A refusal means that the Pod has ended meanwhile, and need not be signalled.
        with anyio.CancelScope(shield=True), suppress(HelperError, HelperGoneError):
            await self._run(pod, "kill", identity, str(number))

    async def _run(self, pod: str, *words: str) -> int:
        """Run ``runsc`` to its end."""
        done, codes = anyio.Event(), [0]

        def ended(how: Ended) -> None:
            codes[0] = how.code
            done.set()

        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            await self._network.spawn(
                self._network.new_key(pod),
                pod,
                self.runsc.command(self._state, *words),
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                fds=dict.fromkeys((0, 1, 2), null),
                uid=None,
                on_exit=ended,
                for_gvisor=True,
            )
        finally:
            os.close(null)
        await done.wait()
        return codes[0]

    async def release(self, pod: str) -> None:
        """End the Pod's kernel."""
        kernel = self._kernels.pop(pod, None)
        if kernel is not None:
            with anyio.CancelScope(shield=True), suppress(HelperError, HelperGoneError):
                with anyio.move_on_after(_END_TIMEOUT):
                    await self._run(pod, "kill", kernel.keeper, "KILL")
                    await kernel.ended.wait()
                await self._network.kill(kernel.key, signal.SIGKILL)
        await anyio.to_thread.run_sync(remove_tree, self._bundles(pod))


def _identity(before: str, key: str, kind: str = "") -> str:
    """A name for ``runsc`` that nothing else has."""
    return f"{before}{kind}-{key.rpartition('/')[2].replace('.', '-')}"


def _users(launch: Launch) -> Users:
    uid, box = launch.host_uid, launch.box
    assert uid is not None, "gVisor is offered only where Pods have uids of their own"
    return Users(host_ids(uid, launch.pod_uids or {box.uid}), host_ids(uid, launch.pod_gids or {box.gid}))


def _write_bundle(
    bundle: Path, config: Mapping[str, object], targets: Sequence[tuple[str, bool]], workdir: str
) -> None:
    remove_tree(bundle)  # that of an earlier run
    for directory in (bundle.parent, bundle):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o711)
    make_root(bundle / "root", targets, workdir)
    path = bundle / "config.json"
    path.touch(0o600)  # its environment may hold secrets
    path.write_bytes(msgspec.json.encode(config))


def _is_running(records: Path, identity: str) -> bool:
    """Whether ``runsc`` has recorded that a container runs."""
    for path in records.glob(f"{identity}_*.state"):
        with suppress(OSError, ValueError, KeyError):
            return bool(json.loads(path.read_text())["status"] == "running")
    return False


def _read_pid(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
