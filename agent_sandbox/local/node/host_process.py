"""Containers whose first process is a process of this machine, and the descriptors with which it starts."""

import asyncio
import os
import pty
import signal
from contextlib import suppress

from agent_sandbox.local.node.errors import PodNotRunningError
from agent_sandbox.local.node.logs import LogThread
from agent_sandbox.local.node.runtime import ContainerProcess, Launch


class HostProcess(ContainerProcess):
    """A container that is signalled through a descriptor of its first process."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch)
        self.pid = 0
        """Process id on the host of the container's first process; 0 until it exists."""
        self._pidfd: int | None = None

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
        super().did_exit(code)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def signal(self, number: int) -> None:
        """Signal the first process."""
        if self._pidfd is not None and self.alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def memory_file(name: str, data: bytes) -> int:
    """A file in memory that holds ``data``; its descriptor, at the beginning and closed on exec."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class StartPipes:
    """The descriptors of one start, closed whatever happens; the log thread takes over those it reads."""

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

    def info(self) -> tuple[int, int]:
        """A pipe on which the program tells something: the end to read, non-blocking, and the end to write."""
        read, write = self._pair()
        os.set_blocking(read, False)
        return read, write

    def capture(self, thread: LogThread, process: ContainerProcess) -> None:
        """Give the output to the log thread, and the input to the process."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            with suppress(RuntimeError):  # the loop is gone: the node was stopped and nobody waits any more
                loop.call_soon_threadsafe(process.did_log)

        thread.capture(self._output, self._error, process.launch.log, ended)
        given = [self._output, self._error]
        if self._input is not None and process.alive:
            process.stdin = self._input
            given.append(self._input)
        for fd in given:
            if fd is not None:
                self._open.remove(fd)

    def close_theirs(self, *more: int) -> None:
        """Close what the container has copies of, so that its end is seen."""
        for fd in {*self.standard.values(), *more}:
            os.close(fd)
            self._open.remove(fd)

    def close(self) -> None:
        """Close all that are left."""
        while self._open:
            os.close(self._open.pop())
