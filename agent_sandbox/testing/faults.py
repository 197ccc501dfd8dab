"""Faults on the wire, on purpose: what a network, a proxy or an overloaded API server does to a client.

``FaultyTransport`` stands between a client and any transport. A test tells it what shall go wrong, for which
requests, how often; the program under test cannot tell it from the real thing::

    transport = FaultyTransport(server.transport())
    transport.inject(Fault.lost_answer(), method="PATCH", path="/pods/")   # the write takes effect, nobody hears of it
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Unpack

import anyio
import msgspec

from agent_sandbox.kube import OutcomeUnknownError, RawResponse, RawStream, Transport, UnreachableError
from agent_sandbox.kube.transport import READING_METHODS, RequestOptions, StreamOptions, TransportDecorator


class _Kind(StrEnum):
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    LOST_REQUEST = "lost request"
    LOST_ANSWER = "lost answer"
    SLOW = "slow"
    BROKEN_STREAM = "broken stream"
    SILENT_STREAM = "silent stream"
    SLOW_STREAM = "slow stream"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; made by its named constructors."""

    kind: _Kind
    status: int = 0
    reason: str = ""
    seconds: float = 0.0
    lines: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def unreachable(cls) -> "Fault":
        """No connection: nothing was sent."""
        return cls(_Kind.UNREACHABLE)

    @classmethod
    def error(cls, status: int, reason: str = "", *, retry_after: int | None = None) -> "Fault":
        """The server answers with this status and does nothing."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls(_Kind.REFUSED, status=status, reason=reason, headers=headers)

    @classmethod
    def conflict(cls) -> "Fault":
        """409: somebody else was faster."""
        return cls.error(409, "Conflict")

    @classmethod
    def lost_request(cls) -> "Fault":
        """The request left and never arrived: no effect, and nobody knows."""
        return cls(_Kind.LOST_REQUEST)

    @classmethod
    def lost_answer(cls) -> "Fault":
        """The request takes effect, the answer is lost: a timeout after the write."""
        return cls(_Kind.LOST_ANSWER)

    @classmethod
    def slow(cls, seconds: float) -> "Fault":
        """The request arrives that much later, if its timeout allows."""
        return cls(_Kind.SLOW, seconds=seconds)

    @classmethod
    def broken_stream(cls, after_lines: int = 0) -> "Fault":
        """A lost watch: the connection breaks after that many lines."""
        return cls(_Kind.BROKEN_STREAM, lines=after_lines)

    @classmethod
    def silent_stream(cls, after_lines: int = 0) -> "Fault":
        """A watch that goes on and says nothing more after that many lines."""
        return cls(_Kind.SILENT_STREAM, lines=after_lines)

    @classmethod
    def slow_stream(cls, seconds: float) -> "Fault":
        """A slow watch: each chunk comes that much later. On some kinds only, it reorders delivery between kinds."""
        return cls(_Kind.SLOW_STREAM, seconds=seconds)


_STREAM_KINDS = frozenset({_Kind.BROKEN_STREAM, _Kind.SILENT_STREAM, _Kind.SLOW_STREAM})


@dataclass
class Rule:
    """A fault, for which requests, and how often still."""

    fault: Fault
    method: str | None
    path: str
    times: int | None
    only_if: Callable[[str, str], bool] | None
    watches: bool | None
    hits: int = 0

    def concerns(self, method: str, path: str, *, watch: bool) -> bool:
        """True if the next such request shall suffer it."""
        return (
            self.times != 0
            and self.method in (None, method)
            and self.path in path
            and (self.watches is None or self.watches == watch)
            and (self.only_if is None or self.only_if(method, path))
        )


@dataclass(frozen=True)
class SeenRequest:
    """A request that passed, or tried to."""

    method: str
    path: str
    body: Any
    at: float
    fault: Fault | None

    @property
    def is_write(self) -> bool:
        """True if it was to change something."""
        return self.method not in READING_METHODS


class FaultyTransport(TransportDecorator):
    """Decorates a transport. The first rule that concerns a request is applied to it.

    Attributes:
        seen: every request in order, with its loop time and the fault that it met.
    """

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._rules: list[Rule] = []
        # Cleared while the network is cut; requests then meet `unreachable` and streams break.
        self._cut = False
        # How often watches were dropped; a stream that was opened before the last time is dead.
        self._drops = 0
        # Streams that wait for their next chunk.
        self._waiting: set[anyio.CancelScope] = set()
        self.seen: list[SeenRequest] = []

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "",
        times: int | None = 1,
        only_if: Callable[[str, str], bool] | None = None,
    ) -> Rule:
        """Let requests suffer.

        Args:
            fault: what happens.
            method: only this method; None means any.
            path: only paths that contain this.
            times: how many requests; None means all, until ``heal``.
            only_if: a further condition on method and path.
        """
        watches = True if fault.kind in _STREAM_KINDS else None
        rule = Rule(fault, method, path, times, only_if, watches)
        self._rules.append(rule)
        return rule

    def partition(self) -> None:
        """Cut the network: requests wait for their timeout, as in a real partition, and running watches fall silent."""
        self._cut = True

    def heal(self) -> None:
        """No more faults. Watches that fell silent stay so: their connection is dead."""
        self._rules.clear()
        self._cut = False

    def drop_watches(self) -> None:
        """Break every running watch now."""
        self._drops += 1
        for scope in self._waiting:
            scope.cancel()

    @property
    def writes(self) -> list[SeenRequest]:
        """The writes that were tried, in order."""
        return [request for request in self.seen if request.is_write]

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        """Send one request, unless a fault says otherwise."""
        timeout = options.get("timeout")
        fault = self._note(method, path, options.get("body"), watch=False)
        if self._cut:
            await anyio.sleep(timeout if timeout is not None else 60.0)
            raise OutcomeUnknownError(f"{method} {path}: the network is cut")
        if fault is None:
            return await self._inner.request(method, path, **options)
        match fault.kind:
            case _Kind.UNREACHABLE:
                raise UnreachableError(f"{method} {path}: injected: no connection")
            case _Kind.LOST_REQUEST:
                raise OutcomeUnknownError(f"{method} {path}: injected: the request was lost")
            case _Kind.LOST_ANSWER:
                await self._inner.request(method, path, **options)
                raise OutcomeUnknownError(f"{method} {path}: injected: the answer was lost")
            case _Kind.REFUSED:
                return _refusal(fault)
        if timeout is not None and fault.seconds >= timeout:
            await anyio.sleep(timeout)
            raise OutcomeUnknownError(f"{method} {path}: injected: no answer within {timeout} s")
        await anyio.sleep(fault.seconds)
        if timeout is not None:
            options["timeout"] = timeout - fault.seconds
        return await self._inner.request(method, path, **options)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[RawStream]:
        """Open a stream, unless a fault says otherwise."""
        fault = self._note(method, path, None, watch=True)
        if self._cut or (fault is not None and fault.kind is _Kind.UNREACHABLE):
            raise UnreachableError(f"{method} {path}: injected: no connection")
        if fault is not None and fault.kind is _Kind.REFUSED:
            refusal = _refusal(fault)
            yield _Refused(refusal.status, refusal.headers, refusal.body)
            return
        read_timeout = options.pop("read_timeout", None)
        async with self._inner.stream(method, path, **options) as stream:
            yield _FaultyStream(self, stream, fault, read_timeout)

    def _note(self, method: str, path: str, body: bytes | None, *, watch: bool) -> Fault | None:
        fault = None
        for rule in self._rules:
            if rule.concerns(method, path, watch=watch):
                rule.hits += 1
                if rule.times is not None:
                    rule.times -= 1
                fault = rule.fault
                break
        decoded = msgspec.json.decode(body) if body else None
        self.seen.append(SeenRequest(method, path, decoded, anyio.current_time(), fault))
        return fault


@dataclass(frozen=True)
class _Refused:
    status: int
    headers: Mapping[str, str]
    body: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


class _FaultyStream:
    """A stream that may break, fall silent or lag. It hands out whole lines, so that faults fall between events."""

    def __init__(
        self, owner: FaultyTransport, inner: RawStream, fault: Fault | None, read_timeout: float | None
    ) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._owner = owner
        self._inner = inner
        self._fault = fault
        self._read_timeout = read_timeout
        self._drops = owner._drops  # noqa: SLF001 - two halves of one thing

    async def __aiter__(self) -> AsyncIterator[bytes]:
        lines = 0
        chunks = aiter(self._inner)
        while True:
            chunk = await self._next(chunks)
            if chunk is None:
                return
            if self._fault is not None and self._fault.kind is _Kind.SLOW_STREAM:
                await anyio.sleep(self._fault.seconds)
            for line in chunk.splitlines(keepends=True):
                await self._suffer(lines)
                if self._owner._cut:  # noqa: SLF001
                    await self._fall_silent()
                yield line
                lines += line.endswith(b"\n")
            await self._suffer(lines)

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """The next chunk; or the end, if the test drops the watch first."""
        if self._drops == self._owner._drops:  # noqa: SLF001
            with self._until_dropped():
                return await anext(chunks, None)
        raise OutcomeUnknownError("injected: the connection was dropped")

    @contextmanager
    def _until_dropped(self) -> Iterator[None]:
        """Leave the block when the test drops the watches."""
        waiting = self._owner._waiting  # noqa: SLF001
        with anyio.CancelScope() as scope:
            waiting.add(scope)
            try:
                yield
            finally:
                waiting.discard(scope)

    async def _suffer(self, lines: int) -> None:
        if self._fault is None or self._fault.kind not in _STREAM_KINDS or lines < self._fault.lines:
            return
        if self._fault.kind is _Kind.BROKEN_STREAM:
            raise OutcomeUnknownError(f"injected: the connection broke after {lines} lines")
        if self._fault.kind is _Kind.SILENT_STREAM:
            await self._fall_silent()

    async def _fall_silent(self) -> None:
        with self._until_dropped():
            await anyio.sleep(self._read_timeout if self._read_timeout is not None else float("inf"))
            raise OutcomeUnknownError(f"injected: nothing came for {self._read_timeout} s")
        raise OutcomeUnknownError("injected: the connection was dropped")


def _refusal(fault: Fault) -> RawResponse:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": fault.reason,
        "message": f"injected: {fault.reason or fault.status}",
        "code": fault.status,
    }
    return RawResponse(fault.status, fault.headers, msgspec.json.encode(status))
