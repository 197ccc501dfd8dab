"""Containers whose first process is a process of this machine, and the descriptors with which it starts."""

import asyncio
import os
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

    @property
    def standard(self) -> dict[int, int]:
        """Input, output and error output of the container."""
        return {0: self.null, 1: self.out_write, 2: self.err_write}

    def memory(self, name: str, data: bytes) -> int:
        """A file in memory for the program that is started."""
        return self._keep(memory_file(name, data))

    def info(self) -> tuple[int, int]:
        """A pipe on which the program tells something: the end to read, non-blocking, and the end to write."""
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
