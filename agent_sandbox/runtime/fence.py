"""The gate that every write passes: open while this process leads, shut by the clock alone when it may not any longer.

Leadership that only a task knows of is not enough: that task may be late. The fence knows until when it is open, and
every single request asks it; what is under way at the deadline is cut.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.kube import RawResponse, RawStream, Transport
from agent_sandbox.kube.transport import NO_QUERY, READING_METHODS
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


class FencedTransport:
    """Reads pass, writes ask the fence."""

    def __init__(self, inner: Transport, fence: Fence) -> None:
        self._inner = inner
        self._fence = fence

    @property
    def host(self) -> str:
        """The server of the inner transport."""
        return self._inner.host

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: bytes | None = None,
        content_type: str | None = None,
        timeout: float | None = None,
    ) -> RawResponse:
        """Send, if it is a read or the fence is open."""
        if method in READING_METHODS:
            return await self._inner.request(
                method, path, query=query, body=body, content_type=content_type, timeout=timeout
            )
        with self._fence.guard():
            return await self._inner.request(
                method, path, query=query, body=body, content_type=content_type, timeout=timeout
            )

    def stream(
        self, method: str, path: str, *, query: Mapping[str, str] = NO_QUERY, read_timeout: float | None = None
    ) -> AbstractAsyncContextManager[RawStream]:
        """Streams are watches and logs: reads."""
        return self._inner.stream(method, path, query=query, read_timeout=read_timeout)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()
