"""What runs containers, seen from a Pod's life: one small interface, and the choice among those that this machine has.

In: a ``Launch``, a container made concrete. Out: a ``ContainerProcess``: signal it, wait for it, enter it. A runtime is
chosen by a Pod's ``runtimeClassName`` and never replaced by a weaker one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import msgspec

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.bubblewrap import Box
from agent_sandbox.local.node.cgroups import ControlGroup, Limits
from agent_sandbox.local.node.errors import HelperError, HelperGoneError, RuntimeUnavailableError
from agent_sandbox.local.node.network import Ended, ExitHandler, PodNetwork, Survivor

KillCommand = Callable[[], Awaitable[None]]
"""Kills a command inside a container; one that has ended is left in peace."""


@dataclass(frozen=True)
class Launch:
    """One run of one container.

    Attributes:
        pod: uid of the Pod, whose network exists already.
        host_uid: uid on the host, or None for the node's own.
        box: the container.
        log: the file to which its output goes; its directory exists.
        bare_directory: its working directory on the host, for the runtime without isolation.
        group: its control group, or None where limits cannot be enforced.
        earlier_oom_kills: how often the kernel had killed a process of that group before; it may be the Pod's.
        pod_uids: uids inside of all containers of the Pod; empty if there is this one only.
        pod_gids: likewise gids.
        container: its name.
        run: how often it was started before.
        ready_port: where its image says that it is ready, if nothing else does.
        replaces: key of the process of the run before.
    """

    pod: str
    host_uid: int | None
    box: Box
    log: Path
    bare_directory: Path
    group: ControlGroup | None = None
    earlier_oom_kills: int = 0
    pod_uids: frozenset[int] = frozenset()
    pod_gids: frozenset[int] = frozenset()
    container: str = ""
    run: int = 0
    ready_port: int | None = None
    replaces: str = ""

    @property
    def cgroups(self) -> list[str]:
        """What each of its processes joins."""
        return self.group.procs if self.group is not None else []


@dataclass(frozen=True)
class About:
    """What the next node is told of a process, should this one be killed.

    Attributes:
        launch: the run to which it belongs.
        identity: the runtime's own name for it, if it has one.
        is_container: False for a process that the runtime needs beside the containers.
    """

    launch: Launch
    identity: str = ""
    is_container: bool = True

    def encode(self) -> bytes:
        """The form in which it waits."""
        return msgspec.json.encode(self, enc_hook=str)

    @classmethod
    def decode(cls, data: bytes) -> "About":
        """Read that form.

        Raises:
            ValueError: somebody else wrote it.
        """
        return msgspec.json.decode(data, type=cls, dec_hook=_decode_path)


def _decode_path(kind: type, value: Any) -> Any:
    return kind(value)


class ContainerProcess(ABC):
    """A container that was started.

    Guarantees: ``wait`` returns once, whatever ends the container (its own end, a signal, the helper's death), after
    all it printed is in its log.
    """

    def __init__(self, launch: Launch, network: PodNetwork, key: str) -> None:
        """
        Args:
            launch: the run.
            network: where it runs.
            key: its name there.
        """
        self.launch = launch
        self.network = network
        self.key = key
        self.stdin: int | None = None
        """Where its input is written, or its terminal's other side; None if it has neither, or has ended."""
        self.said = b""
        """Once it ended: the beginning of its error output."""
        self._exited = anyio.Event()
        self._code = 0

    @property
    def alive(self) -> bool:
        """False once it ended."""
        return not self._exited.is_set()

    def did_exit(self, ended: Ended) -> None:
        """Called on the event loop when it ended and its output is complete."""
        self._code, self.said = ended
        self._exited.set()
        self._close_stdin()

    def _close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    async def end_input(self) -> None:
        """Let it see the end of its input."""
        if self.stdin is not None:
            self._close_stdin()
            with suppress(HelperError, HelperGoneError):  # it has ended meanwhile
                await self.network.close_input(self.key)

    async def listen(self, stdout: int, stderr: int) -> None:
        """Copy what it prints from now on into two pipes, which belong to the caller; they end as it does.

        Raises:
            HelperError: it is not known any more.
        """
        await self.network.listen_to(self.key, stdout, stderr)

    async def wait(self) -> int:
        """The exit code; 128 plus the signal for a killed one."""
        await self._exited.wait()
        return self._code

    @abstractmethod
    def signal(self, number: int) -> None:
        """Signal the container's first process; SIGKILL ends all of them. Returns at once, before the effect."""

    @abstractmethod
    async def enter(self, argv: Sequence[str], *, fds: Mapping[int, int], on_exit: ExitHandler) -> KillCommand:
        """Run one more command in the container, with its environment and behind its walls.

        Args:
            argv: the command.
            fds: what each of its descriptor numbers is; a terminal at 0 becomes its controlling one.
            on_exit: told how it ended.

        Raises:
            PodNotRunningError: the container is not running.
            ContainerError: the command could not be started.
        """

    def heeds(self, number: int) -> bool:
        """Whether a signal to its first process has an effect. May read files: call it from a worker thread."""
        return True

    async def until_executed(self, clock: Clock) -> None:
        """Wait until the runtime's own program has become the container's command, or has ended without."""
        await anyio.lowlevel.checkpoint()

    def start_failure(self) -> str:
        """Of a container that has ended: why its command could not be started at all, or nothing if it ran."""
        return ""


class Runtime(Protocol):
    """Runs containers in one way."""

    @property
    def name(self) -> str:
        """Its name, in container ids and in ``runtimeClassName``."""

    @property
    def pod_overhead(self) -> Limits | None:
        """None where each container has limits of its own; else all of a Pod share their sum and this much more."""

    async def start(self, launch: Launch) -> ContainerProcess:
        """Start a container.

        Raises:
            ContainerError: it could not be started.
        """

    async def adopt(self, survivor: Survivor, about: About) -> ContainerProcess:
        """Take over a container that an earlier node started, living or ended.

        Raises:
            ContainerError: something that it needs has ended; it cannot go on.
        """

    async def release(self, pod: str) -> None:
        """Give back what is kept for a Pod as a whole: its last container has ended for good. Never fails."""


FindRuntime = Callable[[], Awaitable[Runtime]]
"""Finds out by trying whether this machine has a runtime; raises ``RuntimeUnavailableError`` with the cure if not."""


class Runtimes:
    """The runtimes of this machine by ``runtimeClassName``; one beside the default is tried when first asked for."""

    def __init__(self, default: Runtime, others: Mapping[str, FindRuntime] | None = None) -> None:
        """
        Args:
            default: what Pods without a class get; its own name names it too.
            others: further classes.
        """
        self._default = default
        self._others = dict(others or {})

    async def find(self, class_name: str) -> Runtime:
        """The runtime of a class.

        Raises:
            RuntimeUnavailableError: this machine does not have it; the message says why and what to do.
        """
        if class_name in {"", self._default.name}:
            return self._default
        find = self._others.get(class_name)
        if find is not None:
            return await find()
        known = ", ".join(sorted({self._default.name, *self._others}))
        raise RuntimeUnavailableError(
            f"runtimeClassName {class_name!r} is not available on this machine; the local node knows: {known}."
            " It is not replaced by a weaker runtime; remove runtimeClassName to accept"
            f" the isolation of {self._default.name}"
        )
