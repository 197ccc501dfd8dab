"""Counts every request of a transport under client-go's metric names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeError, RawResponse, RawStream, Transport
from agent_sandbox.kube.transport import RequestOptions, StreamOptions, TransportDecorator
from agent_sandbox.runtime.metrics import Metrics


class MeteredTransport(TransportDecorator):
    """Passes everything on and counts it. A request without an answer counts with the code ``<error>``, as in Go."""

    def __init__(self, inner: Transport, metrics: Metrics, *, clock: Clock) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._clock = clock

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        """Send and count."""
        metrics, host = self._metrics, self._inner.host
        started = self._clock.monotonic()
        code = "<error>"
        try:
            answer = await self._inner.request(method, path, **options)
            code = str(answer.status)
            metrics.response_size.labels(method, host).observe(len(answer.body))
            if answer.status == 429:
                metrics.request_retries.labels(code, method, host).inc()
            return answer
        finally:
            metrics.requests.labels(code, method, host).inc()
            metrics.request_duration.labels(method, host).observe(self._clock.monotonic() - started)
            metrics.request_size.labels(method, host).observe(len(options.get("body") or b""))

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
