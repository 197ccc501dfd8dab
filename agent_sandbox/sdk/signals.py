"""Makes SIGTERM unwind the program, as Ctrl-C does, while sandboxes may be held that must be deleted.

Two ways lead out. Synchronous code is left by SystemExit. Under a running event loop an exception raised by a signal
handler would hit whatever the loop happens to be doing, for example the very task that has written a claim and waits
for the answer. So there the tasks that hold clients are cancelled and clean up, and then SystemExit ends the loop.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final


class Hold:
    """One open client: SIGTERM unwinds as long as it is not released."""

    def __init__(self, guard: "TerminationGuard", task: "asyncio.Task[Any] | None") -> None:
        self._guard = guard
        self.task = task

    def release(self) -> None:
        """Cease to hold; a second time does nothing."""
        self._guard.drop(self)


class TerminationGuard:
    """Counts open clients; while there are any, SIGTERM ends the program with status 143 by way of its clean-up.

    SIGTERM's default ends the process on the spot, and every open ``with`` block with it. The guard replaces that
    default and nothing else: a program that handles or ignores SIGTERM keeps its own way. Signal handlers belong to the
    main thread, so a hold taken elsewhere installs none. The last holder restores the default.

    Tasks of an event loop in the main thread that hold clients are cancelled by the first SIGTERM, as ``asyncio.run``
    does to its main task at Ctrl-C; when all of them have ended, the loop ends with SystemExit. One that swallows the
    cancellation and ends in another way has decided for its program. A second SIGTERM does not wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Changed by single steps only: the handler reads it in the middle of anything, and cannot take the lock.
        self._holds: dict[Hold, None] = {}
        # Touched in the main thread only.
        self._ending: set[asyncio.Task[Any]] = set()
        self._cancelled = False
        self._blocking_calls = 0

    def hold(self) -> Hold:
        """Begin to hold. In the main thread, the current task is the one to cancel."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        hold = Hold(self, _current_task() if in_main_thread else None)
        with self._lock:
            self._holds[hold] = None
            if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._on_sigterm)
        if self._ending and hold.task is not None:
            self._cancel(hold.task)  # the program is on its way out
        return hold

    def drop(self, hold: Hold) -> None:
        """Forget a hold."""
        with self._lock:
            self._holds.pop(hold, None)
            if self._holds or threading.current_thread() is not threading.main_thread():
                return
            if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @contextmanager
    def blocking_call(self) -> Iterator[None]:
        """Says that the main thread waits in a synchronous call, be it in a task: only an exception ends that."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._blocking_calls += 1
        try:
            yield
        finally:
            self._blocking_calls -= 1

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        loop = _running_loop()
        if loop is not None and not self._ending and not self._blocking_calls:
            for hold in list(self._holds):
                if hold.task is not None and not hold.task.done() and hold.task.get_loop() is loop:
                    self._cancel(hold.task)
            if self._ending:
                loop.call_soon_threadsafe(lambda: None)  # it may be asleep
                return
        raise SystemExit(128 + number)

    def _cancel(self, task: "asyncio.Task[Any]") -> None:
        if task not in self._ending:
            self._ending.add(task)
            task.cancel()
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._ending.discard(task)
        self._cancelled |= task.cancelled()
        if not self._ending and self._cancelled:
            self._cancelled = False
            raise SystemExit(128 + signal.SIGTERM)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _current_task() -> "asyncio.Task[Any] | None":
    return None if _running_loop() is None else asyncio.current_task()


termination_guard: Final = TerminationGuard()
"""The guard of this process."""
