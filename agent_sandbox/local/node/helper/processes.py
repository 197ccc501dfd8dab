"""The processes that the helper started: what they print, how they end, and what a later node needs to take them over.

Each is our own unreaped child for as long as its entry exists, so its number cannot mean another process. The entry of
a *lasting* one, a container's, also outlives its end: until it is forgotten, a node that comes later can read how it
ended. All others, such as commands in containers, belong to the node that started them and end with it.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from selectors import EVENT_READ, BaseSelector

from agent_sandbox.local.node.helper import spawn
from agent_sandbox.local.node.helper.channel import Message
from agent_sandbox.local.node.helper.output import LogFile, Output

_OUTPUT_PATIENCE = 5.0
"""Seconds after a process's end in which somebody who inherited its output may still print."""

_PAGE = 200
_NO_FD = -1


@dataclass(eq=False)
class Process:
    """One process.

    Attributes:
        key: its name.
        pod: whose it is.
        pid: our child.
        lasting: whether it outlives the node.
        pidfd: descriptor of the child, while it lives.
        first: the container's first process, where our child only watches over it; else the child itself.
        first_fd: its descriptor, while it lives.
        about: descriptor of a file in memory, which only nodes can read.
        input: the end of its input, or its terminal's other side, where it has one.
        output: what it prints, where the helper writes that down.
        code: its exit code, once it ended.
        started: Unix time of its start.
    """

    key: str
    pod: str
    pid: int
    lasting: bool
    pidfd: int
    first: int
    first_fd: int = _NO_FD
    about: int = _NO_FD
    input: int = _NO_FD
    output: Output | None = None
    code: int | None = None
    started: float = field(default_factory=time.time)

    def close_input(self) -> None:
        """Let it see the end of its input, as far as we hold it open."""
        self._close("input")

    def ended(self, code: int) -> None:
        """Remember how it ended."""
        self.code = code
        for name in ("pidfd", "first_fd", "input"):
            self._close(name)

    def close(self) -> None:
        """Give everything back."""
        for name in ("pidfd", "first_fd", "input", "about"):
            self._close(name)

    def _close(self, name: str) -> None:
        fd = getattr(self, name)
        if fd != _NO_FD:
            setattr(self, name, _NO_FD)
            os.close(fd)


class Processes:
    """All processes by key."""

    def __init__(self, selector: BaseSelector, tell: Callable[[Message], None]) -> None:
        """
        Args:
            selector: waits for descriptors; their data are called when they are readable.
            tell: takes what happened to the node, if there is one.
        """
        self._selector = selector
        self._tell = tell
        self._known: dict[str, Process] = {}
        self._draining: dict[str, float] = {}

    # Starting

    def add(self, key: str, pod: str, pid: int, *, lasting: bool) -> Process:
        """Watch over a child that was just started."""
        process = Process(key, pod, pid, lasting, os.pidfd_open(pid), first=pid)
        self._known[key] = process
        self._selector.register(process.pidfd, EVENT_READ, lambda _: self._exited(process))
        return process

    def keep(self, process: Process, fds: Mapping[str, int]) -> None:
        """Take copies of what the next node needs of a process: ``about`` and ``input``, if they are there."""
        for name in ("about", "input"):
            if name in fds:
                setattr(process, name, os.dup(fds[name]))

    def write_down(self, process: Process, log: LogFile, pipes: Mapping[str, int]) -> None:
        """Copy what a process prints to its log."""
        copies = {name: os.dup(fd) for name, fd in pipes.items()}
        process.output = Output(self._selector, log, copies, lambda: self._printed(process))

    def await_first(self, process: Process, pipe: int, told: Callable[[], None]) -> None:
        """Learn from bwrap which process is the container's first; it writes that in pieces, then closes.

        Args:
            process: bwrap.
            pipe: where it writes; owned by us.
            told: called once the first process is known, or bwrap has ended without.
        """
        text = bytearray()

        def read(_: object) -> None:
            piece = os.read(pipe, 4096)
            if piece:
                text.extend(piece)
                return
            self._selector.unregister(pipe)
            os.close(pipe)
            if text and process.code is None:
                process.first = json.loads(text)["child-pid"]
                with suppress(ProcessLookupError):
                    process.first_fd = os.pidfd_open(process.first)
            told()

        self._selector.register(pipe, EVENT_READ, read)

    # Looking

    def find(self, key: str) -> Process:
        """A process.

        Raises:
            KeyError: nobody has that key.
        """
        return self._known[key]

    def lasting(self, after: str) -> list[tuple[str, str]]:
        """Keys and Pods of lasting processes, ended ones too, in order; a page of those behind a key."""
        found = sorted((entry.key, entry.pod) for entry in self._known.values() if entry.lasting and entry.key > after)
        return found[:_PAGE]

    @property
    def any_lives(self) -> bool:
        """Whether a lasting process has not ended."""
        return any(entry.lasting and entry.code is None for entry in self._known.values())

    # Ending

    def kill(self, key: str, number: int) -> bool:
        """Signal a process; False if it has ended."""
        process = self._known.get(key)
        if process is None or process.code is not None:
            return False
        os.kill(process.pid, number)
        return True

    def forget(self, key: str) -> None:
        """Nobody will ask for a process again: one that lives is killed, and forgotten when it has ended."""
        process = self._known.get(key)
        if process is None:
            return
        process.lasting = False
        if process.code is None:
            os.kill(process.pid, signal.SIGKILL)
        elif process.output is None or not process.output.open:
            self._remove(process)

    def forget_all(self, pod: str) -> None:
        """Forget all lasting processes of a Pod."""
        for process in list(self._known.values()):
            if process.pod == pod and process.lasting:
                self.forget(process.key)

    def end_those_of_the_node(self) -> None:
        """The node is gone, and with it the commands that it ran in containers."""
        for process in self._known.values():
            if not process.lasting and process.code is None:
                os.kill(process.pid, signal.SIGKILL)

    def _exited(self, process: Process) -> None:
        _, status = os.waitpid(process.pid, 0)
        self._selector.unregister(process.pidfd)
        process.ended(spawn.exit_code(status))
        if process.output is not None and process.output.open:
            self._draining[process.key] = time.monotonic() + _OUTPUT_PATIENCE
        else:
            self._ended(process)

    def _printed(self, process: Process) -> None:
        """All that it printed is written down."""
        self._draining.pop(process.key, None)
        if process.code is not None:
            self._ended(process)

    def _ended(self, process: Process) -> None:
        """It has ended, and what it printed is written down."""
        self._tell({"event": "ended", "key": process.key, **ending(process)})
        if not process.lasting:
            self._remove(process)

    def _remove(self, process: Process) -> None:
        process.close()
        self._known.pop(process.key, None)

    def patience(self) -> float | None:
        """Seconds until ``tick`` has something to do; None: never."""
        return max(0.0, min(self._draining.values()) - time.monotonic()) if self._draining else None

    def tick(self) -> None:
        """Wait no longer for output that somebody else holds open."""
        now = time.monotonic()
        for key in [key for key, deadline in self._draining.items() if deadline <= now]:
            output = self._known[key].output
            assert output is not None, "only who prints is waited for"
            output.abandon()


def ending(process: Process) -> Message:
    """How a process ended, or a code of None; ``said`` is the beginning of its error output."""
    said = process.output.head if process.output is not None else b""
    printed = process.output is None or not process.output.open
    return {"code": process.code if printed else None, "said": said.decode("latin-1")}
