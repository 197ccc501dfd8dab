"""Containers whose first process is a process of this machine, and the descriptors with which it starts."""

import os
import pty
import signal
from contextlib import suppress
from pathlib import Path

from agent_sandbox.local.node.errors import PodNotRunningError
from agent_sandbox.local.node.network import Ended, Output, PodNetwork, Started, memory_file
from agent_sandbox.local.node.runtime import ContainerProcess, Launch


class HostProcess(ContainerProcess):
    """A container that is signalled through a descriptor of its first process."""

    def __init__(self, launch: Launch, network: PodNetwork, key: str) -> None:
        super().__init__(launch, network, key)
        self.pid = 0
        """Process id on the host of the container's first process; 0 until it exists."""
        self._pidfd: int | None = None

    def pidfd(self) -> int:
        """A descriptor of the container's first process, which belongs to the caller.

        Raises:
            PodNotRunningError: it has ended, or never came to life.
        """
        if self._pidfd is None or not self.alive:
            raise PodNotRunningError("the container is not running")
        return os.dup(self._pidfd)

    def did_start(self, started: Started) -> None:
        """Remember the first process."""
        self.pid, self._pidfd = started.pid, started.pidfd
        if not self.alive:
            self._close_pidfd()

    def did_exit(self, ended: Ended) -> None:
        """Called on the event loop when it ended."""
        super().did_exit(ended)
        self._close_pidfd()

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def signal(self, number: int) -> None:
        """Signal the first process."""
        if self._pidfd is not None and self.alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


class StartPipes:
    """The descriptors of one start, closed whatever happens; the helper has copies of those that it reads."""

    def __init__(self, *, stdin: bool = False, tty: bool = False) -> None:
        """
        Args:
            stdin: give the container input that somebody may write to; otherwise it reads nothing.
            tty: give it a terminal.
        """
        self._open: list[int] = []
        self._input: int | None = None
        self._error: int | None = None
        self.standard: dict[int, int]
        """Input, output and error output of the container."""
        if tty:
            master, slave = pty.openpty()
            self._open += [master, slave]
            self._output, self._input = master, self._keep(os.dup(master))
            self.standard = dict.fromkeys((0, 1, 2), slave)
        else:
            source = self._source(stdin)
            self._output, output = self._pair()
            self._error, error = self._pair()
            self.standard = {0: source, 1: output, 2: error}
        if self._input is not None:
            os.set_blocking(self._input, False)

    def _source(self, stdin: bool) -> int:
        if not stdin:
            return self._keep(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        source, self._input = self._pair()
        return source

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def _pair(self) -> tuple[int, int]:
        read, write = os.pipe()
        self._open += [read, write]
        return read, write

    def memory(self, name: str, data: bytes) -> int:
        """A file in memory for the program that is started."""
        return self._keep(memory_file(name, data))

    def output(self, log: Path) -> Output:
        """What the helper shall write down, and where."""
        pipes = {"stdout": self._output} if self._error is None else {"stdout": self._output, "stderr": self._error}
        return Output(log.parent, log.name, pipes)

    @property
    def input(self) -> int | None:
        """The end of the container's input, or its terminal's other side; None if it has neither."""
        return self._input

    def give_input(self, process: ContainerProcess) -> None:
        """Let the process own its input."""
        if self._input is not None and process.alive:
            self._open.remove(self._input)
            process.stdin = self._input

    def close(self) -> None:
        """Close all that are left."""
        while self._open:
            os.close(self._open.pop())
