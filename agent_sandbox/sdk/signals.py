"""Makes SIGTERM unwind the program, as Ctrl-C does, while sandboxes may be held that must be deleted."""

import signal
import threading
from types import FrameType
from typing import Final


class TerminationGuard:
    """Counts open clients; while there are any, SIGTERM raises SystemExit in the main thread.

    SIGTERM's default ends the process on the spot, and every open ``with`` block with it. The guard replaces that
    default and nothing else: a program that handles or ignores SIGTERM keeps its own way. Signal handlers belong to the
    main thread, so a guard taken elsewhere does nothing. The last holder restores the default.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._installed = False

    def hold(self) -> None:
        """Begin to hold."""
        with self._lock:
            self._holders += 1
            if self._installed or threading.current_thread() is not threading.main_thread():
                return
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _raise_system_exit)
                self._installed = True

    def release(self) -> None:
        """Cease to hold."""
        with self._lock:
            self._holders -= 1
            if self._holders or not self._installed or threading.current_thread() is not threading.main_thread():
                return
            if signal.getsignal(signal.SIGTERM) is _raise_system_exit:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False


def _raise_system_exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


termination_guard: Final = TerminationGuard()
"""The guard of this process."""
