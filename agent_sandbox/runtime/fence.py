"""The gate that every write passes: open while this process leads, shut by the clock alone when it may not any longer.

Leadership that only a task knows of is not enough: that task may be late. The fence knows until when it is open, and
every single request asks it; what is under way at the deadline is cut.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Unpack

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.kube import RawResponse, Transport
from agent_sandbox.kube.transport import READING_METHODS, RequestOptions, TransportDecorator
from agent_sandbox.runtime.errors import LeadershipLostError, WriteCutError


class Fence:
    """Open until a moment that renewals move on."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        # Monotonic. No write starts at or after it, and none runs on beyond it.
        self._open_until = float("-inf")
        # The scopes of the writes under way. Invariant: each one's deadline is _open_until.
        self._under_way: set[anyio.CancelScope] = set()

    @property
    def is_open(self) -> bool:
        """True if a write may start now."""
        return self._clock.monotonic() < self._open_until

    def open_until(self, moment: float) -> None:
        """Keep open until then (monotonic), for new writes and for those under way."""
        self._open_until = moment
        for scope in self._under_way:
            scope.deadline = self._deadline()

    def close(self) -> None:
        """Shut now, and cut the writes under way."""
        self._open_until = float("-inf")
        for scope in self._under_way:
            scope.cancel()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run one write inside.

        Raises:
            LeadershipLostError: the fence is shut; nothing was sent.
            WriteCutError: it shut while the write was under way.
        """
        if not self.is_open:
            raise LeadershipLostError("this process does not lead: the write was not sent")
        with anyio.CancelScope(deadline=self._deadline()) as scope:
            self._under_way.add(scope)
            try:
                yield
            finally:
                self._under_way.discard(scope)
        if scope.cancelled_caught:
            raise WriteCutError("the leadership ended while a write was under way: it was cut")

    def _deadline(self) -> float:
        return anyio.current_time() + self._open_until - self._clock.monotonic()


class FencedTransport(TransportDecorator):
    """Reads pass, writes ask the fence. Streams are watches and logs: reads."""

    def __init__(self, inner: Transport, fence: Fence) -> None:
        super().__init__(inner)
        self._fence = fence

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        """Send, if it is a read or the fence is open."""
        if method in READING_METHODS:
            return await self._inner.request(method, path, **options)
        with self._fence.guard():
            return await self._inner.request(method, path, **options)
