"""The seam between the client and the wire: bytes over HTTP, nothing of Kubernetes' objects.

``AiohttpTransport`` (http.py) speaks to a server; ``agent_sandbox.testing`` has one without sockets and one that
injects faults. Decorators of a transport are how metrics and fencing reach every single request.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol, TypedDict, Unpack
from urllib.parse import urlencode

NO_QUERY: Final[Mapping[str, str]] = MappingProxyType({})

READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing: safe to repeat, and allowed to a process that lost its leadership."""


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RawStream(Protocol):
    """An answer whose body is still arriving. Iterate to get chunks, cut anywhere."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of the body as they arrive."""


class Transport(Protocol):
    """Carries requests to one API server.

    Errors:
        UnreachableError: nothing was sent.
        OutcomeUnknownError: sent, and no (complete) answer within the timeout.
    An answer of any status is an answer, not an error.
    """

    @property
    def host(self) -> str:
        """``host:port`` of the server, for metrics and messages."""

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
        """Send one request and read the whole answer; ``timeout`` in seconds covers both."""

    def stream(
        self, method: str, path: str, *, query: Mapping[str, str] = NO_QUERY, read_timeout: float | None = None
    ) -> AbstractAsyncContextManager[RawStream]:
        """Send one request and read its answer piece by piece.

        ``read_timeout`` is the longest silence, in seconds, before ``OutcomeUnknownError``. The context manager must
        not hold a cancel scope or task group open while its body runs.
        """

    async def aclose(self) -> None:
        """Close all connections."""


class RequestOptions(TypedDict, total=False):
    """The keywords of ``Transport.request``."""

    query: Mapping[str, str]
    body: bytes | None
    content_type: str | None
    timeout: float | None


class StreamOptions(TypedDict, total=False):
    """The keywords of ``Transport.stream``."""

    query: Mapping[str, str]
    read_timeout: float | None


class TransportDecorator:
    """A transport that passes everything on to an inner one; a subclass overrides what it adds to."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    @property
    def host(self) -> str:
        """The server of the inner transport."""
        return self._inner.host

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        """As the inner transport."""
        return await self._inner.request(method, path, **options)

    def stream(
        self, method: str, path: str, **options: Unpack[StreamOptions]
    ) -> AbstractAsyncContextManager[RawStream]:
        """As the inner transport."""
        return self._inner.stream(method, path, **options)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


def target_of(path: str, query: Mapping[str, str]) -> str:
    """The request target: path and encoded query."""
    return f"{path}?{_encoded(tuple(query.items()))}" if query else path


@lru_cache(maxsize=256)
def _encoded(query: tuple[tuple[str, str], ...]) -> str:
    # Nearly all writes carry the same one, and encoding it costs a twentieth of a request.
    return urlencode(query)
