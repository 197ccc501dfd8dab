"""Learns that processes ended, and takes them off the process table.

In: the identifiers of our children. Out: one call per child with its return code, made *before* it is reaped, so that
its process group can still be signalled without hitting a stranger that got the same number. As PID 1 the reaper also
takes in orphans: processes whose parent died become our children, and would stay as zombies for ever.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

OnExit = Callable[[int], None]
"""Called with the return code: 0 or more, or the negative number of the signal."""


class Reaper:
    """Waits for children without a thread per child.

    Args:
        init: True for PID 1: then every child ends here, ours or not.
    """

    def __init__(self, *, init: bool) -> None:
        self._init = init
        self._loop = asyncio.get_running_loop()
        self._children: dict[int, OnExit] = {}
        self._pidfds: dict[int, int] = {}
        # Processes being started now: a child that ends before `watch` knows it must not be taken for an orphan.
        self._starting = 0
        self._by_signal = init or not _has_pidfds()
        if self._by_signal:
            self._loop.add_signal_handler(signal.SIGCHLD, self._sweep)

    def close(self) -> None:
        """Stop watching. Children that still live stay alive."""
        if self._by_signal:
            self._loop.remove_signal_handler(signal.SIGCHLD)
        for pid in list(self._pidfds):
            self._forget_pidfd(pid)
        self._children.clear()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Hold around fork and `watch`."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            if self._by_signal:
                self._sweep()

    def watch(self, pid: int, on_exit: OnExit) -> None:
        """Call `on_exit` once when our child `pid` has ended; it may have ended already."""
        self._children[pid] = on_exit
        if self._by_signal:
            return  # SIGCHLD tells, and `starting` sweeps at its end.
        self._pidfds[pid] = pidfd = os.pidfd_open(pid)
        self._loop.add_reader(pidfd, self._end, pid)

    def _sweep(self) -> None:
        """Take in all children that have ended; leave those whose start has not come to its end."""
        if not self._init:
            for pid in list(self._children):
                self._end(pid)
            return
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid in self._children:
                self._end(ended.si_pid)
            elif self._starting:
                return
            else:
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _end(self, pid: int) -> None:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        self._forget_pidfd(pid)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        try:
            self._children.pop(pid)(code)
        finally:
            os.waitpid(pid, os.WNOHANG)

    def _forget_pidfd(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid, None)
        if pidfd is not None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)


def _has_pidfds() -> bool:
    """Whether the kernel gives descriptors of processes; old ones and some sandboxes do not."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
