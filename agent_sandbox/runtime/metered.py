"""Counts every request of a transport under client-go's metric names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeError, RawResponse, RawStream, Transport
from agent_sandbox.kube.transport import RequestOptions, StreamOptions, TransportDecorator
from agent_sandbox.runtime.metrics import Metrics, RequestMetrics


class MeteredTransport(TransportDecorator):
    """Passes everything on and counts it. A request without an answer counts with the code ``<error>``, as in Go."""

    def __init__(self, inner: Transport, metrics: Metrics, *, clock: Clock) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._clock = clock
        self._meters: dict[str, RequestMetrics] = {}  # by method

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        """Send and count."""
        started = self._clock.monotonic()
        code = "<error>"
        try:
            answer = await self._inner.request(method, path, **options)
            code = str(answer.status)
            self._of(method).response_size.observe(len(answer.body))
            if answer.status == 429:
                self._metrics.request_retries.labels(code, method, self.host).inc()
            return answer
        finally:
            meters = self._of(method)
            meters.count(code)
            meters.duration.observe(self._clock.monotonic() - started)
            meters.request_size.observe(len(options.get("body") or b""))

    def _of(self, method: str) -> RequestMetrics:
        known = self._meters.get(method)
        if known is None:
            known = self._meters[method] = self._metrics.of_requests(method, self.host)
        return known

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[RawStream]:
        """Open and count; how long a watch lasts is no request duration and not counted as one."""
        try:
            async with self._inner.stream(method, path, **options) as stream:
                self._metrics.requests.labels(str(stream.status), method, self._inner.host).inc()
                yield stream
        except KubeError:
            self._metrics.requests.labels("<error>", method, self._inner.host).inc()
            raise
