"""Virtual time: an event loop whose clock jumps to the next timer when every task waits.

A test that sleeps for ten virtual minutes takes a millisecond and sees exact times. Because the loop itself jumps, not
only ``Clock.sleep`` but ``anyio.sleep``, ``anyio.move_on_after`` and every timeout are virtual::

    @pytest.mark.virtual_time
    async def test_something(virtual_clock: VirtualClock) -> None:
        await virtual_clock.sleep(600)

Sockets and threads still take real time: the loop waits for a thread that works, and looks at its sockets before each
jump. Nothing outside can be known to be under way, so a test that talks to another process belongs on an ordinary loop.
"""

import asyncio
import importlib
import importlib.util
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The wall clock's time at the start of every virtual loop."""


STUCK_AFTER: Final = 1.0
"""Real seconds without any timer, socket or thread after which a virtual loop gives up."""


LONGEST_TEST: Final = 30 * 86_400.0
"""Virtual seconds after which a loop gives up: whatever the test waits for is not going to happen."""


class StuckError(RuntimeError):
    """A deadlock, or a wait without end, in virtual time: found at once instead of by the test's timeout."""


class RealTimeLoop(asyncio.SelectorEventLoop):
    """An ordinary asyncio loop, which anyio also recognises in callbacks, as under ``anyio.run``."""

    def run_forever(self) -> None:
        """As asyncio."""
        with _recognised_as_asyncio():
            super().run_forever()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time, which starts at 0."""

    def __init__(self) -> None:
        # Moves only in jump(), and only forwards.
        self._virtual_now = 0.0
        # Calls of run_in_executor that have not returned: while there are any, time stands still.
        self._threads_busy = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual_now

    def jump(self, seconds: float) -> None:
        """Move time forwards; the loop does that by itself when every task waits."""
        self._virtual_now += seconds
        if self._virtual_now > LONGEST_TEST:
            self._virtual_now = 0.0  # so that the tasks can still be cancelled
            raise StuckError("a month of virtual time has passed: the test waits for what never happens")

    def run_forever(self) -> None:
        """As asyncio, and recognised by anyio between tasks, too: that is where the loop asks for its threads."""
        with _recognised_as_asyncio():
            super().run_forever()

    @property
    def waits_for_threads(self) -> bool:
        """True while a thread works for a task of this loop."""
        if self._threads_busy:
            return True
        if not self.is_running():
            return False
        return anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As asyncio; time stands still until the call returns."""
        self._threads_busy += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_returned)
        return future

    def _thread_returned(self, _: asyncio.Future[T]) -> None:
        self._threads_busy -= 1


@contextmanager
def _recognised_as_asyncio() -> Iterator[None]:
    """Where sniffio is installed, anyio asks it which loop runs, and sniffio knows asyncio by the current task only."""
    if importlib.util.find_spec("sniffio") is None:
        yield
        return
    local = importlib.import_module("sniffio").thread_local
    before, local.name = local.name, "asyncio"
    try:
        yield
    finally:
        local.name = before


class _JumpingSelector(selectors.BaseSelector):
    """Where the loop would wait for its next timer, time moves instead."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self._loop.waits_for_threads:
            # Only a thread or a socket can go on from here.
            ready = self._real.select(STUCK_AFTER if timeout is None else None)
            if not ready and not self._loop.waits_for_threads and len(self._real.get_map()) <= 1:
                raise StuckError("every task waits, no timer is set, and there is no socket or thread to wake anybody")
            return ready
        self._loop.jump(max(0.0, timeout))
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end on a virtual loop of its own; for tests that are not coroutines, as
    hypothesis' are not."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


class VirtualClock:
    """The ``Clock`` of a virtual loop: the same time that anyio's timeouts see.

    On an ordinary loop it shows real durations from a fixed wall clock; virtual is the loop, not the clock.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start

    def now(self) -> datetime:
        """The wall clock: ``start`` plus the loop's time."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's time."""
        return anyio.current_time()

    async def sleep(self, seconds: float) -> None:
        """Wait in the loop's time."""
        await anyio.sleep(max(0.0, seconds))
