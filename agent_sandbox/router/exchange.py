"""One request and its response, through the router: streams both ways, keeps the framing, knows what was sent.

In: a client's wire on which a request's head was read, and a wire to the Pod. Out: whether the client's connection may
serve another request. The body and the response flow at the same time; a half-close is handed on; an upgraded
connection becomes a plain tunnel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import anyio

from agent_sandbox import tracing
from agent_sandbox.router.errors import BadRequestError, BrokenError, TimedOutError, TooLargeError
from agent_sandbox.router.http1 import (
    LAST_CHUNK,
    MAX_HEAD,
    NO_BODY,
    BodyDecoder,
    BodyKind,
    Framing,
    RequestHead,
    ResponseHead,
    encode_chunk,
    parse_response,
    response_framing,
)
from agent_sandbox.router.options import RouterOptions
from agent_sandbox.router.rewrite import interim_to_client, request_to_sandbox, response_to_client, upgrade_to_client
from agent_sandbox.router.routing import Route
from agent_sandbox.router.wire import Wire, WireError

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CONTINUE_PATIENCE: Final = 1.0
"""Seconds that a client which asked for 100-continue waits before we say it ourselves: some servers never do."""


REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""Methods without effect."""


class After(Enum):
    """What becomes of a connection after an exchange."""

    REUSE = auto()
    CLOSE = auto()


@dataclass
class Progress:
    """How far an exchange came; read when it fails.

    Attributes:
        answering: the response's head was sent to the client: no other answer is possible.
        status: of the response, 0 before.
        received: bytes of the request's body.
        sent: bytes of the response's body.
    """

    answering: bool = False
    status: int = 0
    received: int = 0
    sent: int = 0


class Exchange:
    """The way of one request to the sandbox, and of its response back.

    Args:
        route: where the request goes.
        is_draining: asked when the response begins: whether the client's connection must be closed after it.
    """

    def __init__(
        self,
        client: Wire,
        head: RequestHead,
        framing: Framing,
        options: RouterOptions,
        *,
        route: Route,
        is_draining: Callable[[], bool],
    ) -> None:
        self.progress = Progress()
        self.upstream_after = After.CLOSE
        self._client = client
        self._head = head
        self._framing = framing
        self._options = options
        self._route = route
        self._name = route.identifier
        self._is_draining = is_draining
        self._body = BodyDecoder(framing)
        self._body_done = self._body.done
        self._continued = False

    @property
    def client(self) -> Wire:
        """The client's connection."""
        return self._client

    @property
    def body_done(self) -> bool:
        """Whether the request's whole body was read from the client."""
        return self._body_done

    @property
    def repeatable(self) -> bool:
        """Whether the request has no effect: it may use a kept connection, and go out again if that was closed."""
        head = self._head
        return head.method in REPEATABLE and self._framing.kind is BodyKind.NONE and head.upgrade is None

    async def run(self, upstream: Wire) -> After:
        """Send the request, hand the response on.

        Raises:
            BrokenError: the sandbox closed the connection or spoke no HTTP. `progress` and the wire tell what was sent.
            TimedOutError: the sandbox was too slow.
            TooLargeError: the request's body is over the limit.
            BadRequestError: the request's body is malformed.
            WireError: the client's connection broke.
        """
        try:
            upstream.write(
                request_to_sandbox(
                    self._head,
                    self._framing,
                    self._route,
                    peer=self._client.peer,
                    proto=self._options.client_proto,
                    trace=tracing.current(),
                )
            )
        except WireError as error:
            raise self._broken() from error
        try:
            if self._body_done:
                self._follow_client_end(upstream)
                return await self._respond(upstream)
            return await self._both_ways(upstream)
        finally:
            self._client.on_eof = None

    async def _both_ways(self, upstream: Wire) -> After:
        after = After.CLOSE
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send_body, upstream, name="request body")
                after = await self._respond(upstream)
                # An answer before the end of the request: what is left of it is not wanted.
                tasks.cancel_scope.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return after if self._body_done else After.CLOSE

    # The request's body

    async def _send_body(self, upstream: Wire) -> None:
        chunked = self._framing.kind is BodyKind.CHUNKED
        while not self._body.done:
            piece = self._body.feed(await self._read_body())
            self.progress.received += len(piece)
            limit = self._options.max_body_bytes
            if limit is not None and self.progress.received > limit:
                raise TooLargeError(f"The request body is larger than {limit} bytes.")
            if piece:
                self._to_sandbox(upstream, encode_chunk(piece) if chunked else piece)
                await self._drained(upstream)
        if chunked:
            self._to_sandbox(upstream, LAST_CHUNK)
        self._client.unread(self._body.rest)
        self._body_done = True
        self._follow_client_end(upstream)

    async def _read_body(self) -> bytes:
        if self._expects_continue and not self._continued and not self._client.pending:
            with anyio.move_on_after(CONTINUE_PATIENCE):
                return await self._client_bytes()
            self._say_continue()
        with anyio.move_on_after(self._options.idle_timeout):
            return await self._client_bytes()
        raise TimedOutError("Timed out waiting for the rest of the request body.")

    async def _client_bytes(self) -> bytes:
        data = await self._client.read()
        if not data:
            raise WireError("the client ended in the middle of its request body")
        return data

    @property
    def _expects_continue(self) -> bool:
        return self._head.minor == 1 and any(value.lower() == b"100-continue" for value in self._head.all(b"expect"))

    def _say_continue(self) -> None:
        if not self._continued and not self.progress.answering:
            self._continued = True
            self._client.write(CONTINUE)

    def _to_sandbox(self, upstream: Wire, data: bytes) -> None:
        try:
            upstream.write(data)
        except WireError:
            # It may have answered before it closed: the response's reader decides what this means.
            return

    async def _drained(self, upstream: Wire) -> None:
        if not upstream.blocked:
            return
        with anyio.move_on_after(self._options.idle_timeout):
            try:
                await upstream.drain()
            except WireError:
                return
            return
        raise self._slow()

    def _follow_client_end(self, upstream: Wire) -> None:
        """From now on the sandbox sees what the client does: a half-close as a half-close, a loss as a loss."""

        def ended() -> None:
            if self._client.closed:
                upstream.abort()
            else:
                upstream.write_eof()

        self._client.on_eof = ended

    # The response

    async def _respond(self, upstream: Wire) -> After:
        head = await self._response_head(upstream)
        self.progress.status = head.status
        if head.status == 101:
            if not self._body_done:
                # The rest of the body would be taken for the new protocol's first words.
                raise self._broken()
            return await self._tunnel(upstream, head)
        try:
            framing = response_framing(head, self._head.method)
        except BadRequestError as error:
            raise self._broken() from error
        after = self._client_after(framing)
        answer = response_to_client(head, framing, self._head, self._route, close=after is After.CLOSE)
        rest = await self._hand_on(answer, upstream, framing)
        if head.keep_alive and self._body_done and not rest and framing.kind is not BodyKind.UNTIL_CLOSE:
            self.upstream_after = After.REUSE
        return after

    async def _response_head(self, upstream: Wire) -> ResponseHead:
        """The final response's head, or that of a 101; other interim responses are handed on."""
        while True:
            head = await self._next_head(upstream)
            if head.status >= 200 or (head.status == 101 and self._head.upgrade is not None):
                return head
            if head.status == 101:
                raise self._broken()
            if head.status == 100:
                if self._expects_continue:
                    self._say_continue()
            elif self._head.minor == 1:
                self._client.write(interim_to_client(head))

    async def _next_head(self, upstream: Wire) -> ResponseHead:
        while True:
            before = self.progress.received
            with anyio.move_on_after(self._patience()):
                try:
                    raw = await upstream.read_head(MAX_HEAD)
                    if raw is None:
                        raise self._broken()
                    return parse_response(raw)
                except (WireError, ValueError, BadRequestError) as error:
                    raise self._broken() from error
            if self._body_done or before == self.progress.received:
                raise self._slow()

    def _patience(self) -> float | None:
        """Seconds that the next head may take. A caller's own bound on the whole exchange replaces the general one."""
        if not self._body_done:
            return self._options.idle_timeout
        return self._options.response_timeout if self._route.timeout is None else None

    def _client_after(self, framing: Framing) -> After:
        if self._is_draining() or not self._head.keep_alive or not self._body_done or self._client.ended:
            return After.CLOSE
        if self._head.minor == 0 and framing.kind in (BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE):
            return After.CLOSE
        return After.REUSE

    async def _hand_on(self, head: bytes, upstream: Wire, framing: Framing) -> bytes:
        """Hand the answer on; gives bytes that came after its end.

        What is there goes in one write, since each is a system call; nothing waits for what is not.
        """
        if framing == NO_BODY:
            self._answer(head)
            return b""
        body = BodyDecoder(framing)
        chunked = framing.kind is not BodyKind.LENGTH and self._head.minor == 1
        ready = head
        while not body.done:
            if ready and not upstream.pending:
                self._answer(ready)
                ready = b""
            piece = await self._next_piece(upstream, body)
            self.progress.sent += len(piece)
            ready += encode_chunk(piece) if chunked and piece else piece
            if chunked and body.done:
                ready += LAST_CHUNK
            if ready:
                self._answer(ready)
                ready = b""
                await self._client_took()
        return body.rest

    def _answer(self, data: bytes) -> None:
        self.progress.answering = True
        self._client.write(data)

    async def _next_piece(self, upstream: Wire, body: BodyDecoder) -> bytes:
        with anyio.move_on_after(self._options.idle_timeout):
            try:
                data = await upstream.read()
                if data:
                    return body.feed(data)
            except (WireError, BadRequestError) as error:
                raise self._broken() from error
            if not body.end():
                raise self._broken()
            return b""
        raise self._slow()

    async def _client_took(self) -> None:
        if not self._client.blocked:
            return
        with anyio.move_on_after(self._options.idle_timeout):
            await self._client.drain()
            return
        raise WireError("the client does not take its response")

    # Upgraded connections

    async def _tunnel(self, upstream: Wire, head: ResponseHead) -> After:
        self.progress.answering = True
        try:
            self._client.write(upgrade_to_client(head))
        except BadRequestError as error:
            raise self._broken() from error
        self._client.on_eof = None
        clock = _Activity()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_rest, clock, tasks.cancel_scope, name="tunnel idle")
                tasks.start_soon(self._copy, upstream, self._client, clock, name="tunnel down")
                await self._copy(self._client, upstream, clock)
        except ExceptionGroup:
            # One side broke: the other one must see it too, and there is nobody left to answer.
            return After.CLOSE
        return After.CLOSE

    async def _copy(self, source: Wire, sink: Wire, clock: "_Activity") -> None:
        while data := await source.read():
            clock.touch()
            self.progress.sent += len(data)
            sink.write(data)
            await sink.drain()
        sink.write_eof()
        clock.halves += 1

    async def _watch_rest(self, clock: "_Activity", scope: anyio.CancelScope) -> None:
        while clock.halves < 2:
            left = clock.at + self._options.upgraded_idle_timeout - anyio.current_time()
            if left <= 0:
                break
            with anyio.move_on_after(left):
                await clock.both_ended.wait()
        scope.cancel()

    def _broken(self) -> BrokenError:
        return BrokenError(f"The backend sandbox closed the connection or answered no HTTP: {self._name}")

    def _slow(self) -> TimedOutError:
        return TimedOutError(f"Timed out waiting for the backend sandbox: {self._name}")


class _Activity:
    """When bytes last went through a tunnel, and how many of its two halves have ended."""

    def __init__(self) -> None:
        self.both_ended = anyio.Event()
        self.at = anyio.current_time()
        self._halves = 0

    def touch(self) -> None:
        self.at = anyio.current_time()

    @property
    def halves(self) -> int:
        return self._halves

    @halves.setter
    def halves(self, count: int) -> None:
        self._halves = count
        if count >= 2:
            self.both_ended.set()
