"""What runs containers, seen from a Pod's life: one small interface, and the choice among those that this machine has.

In: a ``Launch``, a container made concrete. Out: a ``ContainerProcess``: signal it, wait for it, enter it. A runtime is
chosen by a Pod's ``runtimeClassName`` and never replaced by a weaker one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.bubblewrap import Box
from agent_sandbox.local.node.cgroups import ControlGroup, Limits
from agent_sandbox.local.node.errors import RuntimeUnavailableError
from agent_sandbox.local.node.logs import LogFile

_LOG_END_TIMEOUT: Final = 5.0

ExitHandler = Callable[[int], None]
"""Called on the event loop with an exit code, once."""

KillCommand = Callable[[], Awaitable[None]]
"""Kills a command inside a container; one that has ended is left in peace."""


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
        earlier_oom_kills: how often the kernel had killed a process of that group before; it may be the Pod's.
        pod_uids: uids inside of all containers of the Pod; empty if there is this one only.
        pod_gids: likewise gids.
    """

    pod: str
    host_uid: int | None
    box: Box
    log: LogFile
    bare_directory: Path
    group: ControlGroup | None = None
    earlier_oom_kills: int = 0
    pod_uids: frozenset[int] = frozenset()
    pod_gids: frozenset[int] = frozenset()

    @property
    def cgroups(self) -> list[str]:
        """What each of its processes joins."""
        return self.group.procs if self.group is not None else []


class ContainerProcess(ABC):
    """A container that was started.

    Guarantees: ``wait`` returns once, whatever ends the container (its own end, a signal, the helper's death), after
    all it printed is in its log.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.stdin: int | None = None
        """Where its input is written, or its terminal's other side; None if it has neither, or has ended."""
        self._exited = anyio.Event()
        self._logged = anyio.Event()
        self._code = 0

    @property
    def alive(self) -> bool:
        """False once it ended."""
        return not self._exited.is_set()

    def did_exit(self, code: int) -> None:
        """Called on the event loop when it ended."""
        self._code = code
        self._exited.set()
        self.close_stdin()

    def close_stdin(self) -> None:
        """Let it see the end of its input."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def did_log(self) -> None:
        """Called on the event loop when its output is complete."""
        self._logged.set()

    async def wait(self) -> int:
        """The exit code; 128 plus the signal for a killed one."""
        await self._exited.wait()
        with anyio.move_on_after(_LOG_END_TIMEOUT):
            await self._logged.wait()
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
