"""How a process is asked to end: a first signal is an order, its echo is nothing, a later one ends the process at once.

Python answers SIGINT with KeyboardInterrupt wherever the program happens to be. Under an event loop that breaks what
must not break: a callback that tells a worker thread to stop is skipped, and the process waits for the thread for ever.
And a signal easily comes twice: ``timeout``, ``uv run`` and many supervisors send it to the process and to its group.
"""

import asyncio
import atexit
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import anyio

ECHO_SECONDS: Final = 1.0
"""Within this time after the first, a signal is its echo; whoever sends one later has lost patience."""


class Arrivals:
    """The signals that a process has got, for one reader."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._arrived: deque[signal.Signals] = deque()
        self._came = anyio.Event()
        self._reader: asyncio.AbstractEventLoop | None = None
        self._ending_since: float | None = None

    @property
    def is_ending(self) -> bool:
        """True once the process ends."""
        return self._ending_since is not None

    def end(self) -> None:
        """From now on the process ends: echoes are dropped, and a later signal has its default effect on the spot."""
        if self._ending_since is None:
            self._ending_since = self._now()

    async def each(self) -> AsyncGenerator[signal.Signals, None]:
        """One after the other, for ever; what came before there was an event loop comes first."""
        self._reader = asyncio.get_running_loop()
        try:
            while True:
                while not self._arrived:
                    self._came = anyio.Event()
                    await self._came.wait()
                yield self._arrived.popleft()
        finally:
            self._reader = None

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler: runs between any two steps of the main thread, so it touches nothing that a step may hold."""
        if self._ending_since is not None:
            if self._now() - self._ending_since >= ECHO_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self._arrived.append(signal.Signals(number))
        if self._reader is not None:
            self._reader.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._came.set()


@contextmanager
def arriving_signals(*numbers: signal.Signals, now: Callable[[], float] = time.monotonic) -> Iterator[Arrivals]:
    """Take signals while the block lasts, in the main thread. Best put around the event loop, start and end included.

    A SIGHUP that whoever started the process has ignored (``nohup``) stays ignored. After the block the former handlers
    are back, unless the process ends: then the handlers stay, since a signal in its last moments must not break them.

    Raises:
        ValueError: this is not the main thread.
    """
    arrivals = Arrivals(now)
    taken = [
        number for number in numbers if not (number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN)
    ]
    former = {number: signal.signal(number, arrivals.take) for number in taken}
    try:
        yield arrivals
    finally:
        for number, handler in former.items():
            if arrivals.is_ending:
                # An interpreter that winds up gives handled signals their default back, and ignored ones not.
                atexit.register(signal.signal, number, signal.SIG_IGN)
            else:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
