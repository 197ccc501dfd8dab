"""The router's front: accepts connections, checks and routes each request, answers for itself where it must.

In: clients' connections. Out: exchanges with Pods. Every connection is served by one task of one task group; stopping
lets begun exchanges end within a bound.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
import anyio.abc

from agent_sandbox import tracing
from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.router.accepting import Accepted
from agent_sandbox.router.answers import json_response, refusal_response
from agent_sandbox.router.authorising import Admission, Authoriser
from agent_sandbox.router.browser import Invitation, cookie_token, invitation, is_foreign, set_cookie
from agent_sandbox.router.control import serve_control, url_of
from agent_sandbox.router.directory import AsleepError, Directory, Holder, Target
from agent_sandbox.router.errors import (
    BadRequestError,
    BrokenError,
    ForbiddenError,
    HeadTooLargeError,
    NotReadyError,
    RefusalError,
    TimedOutError,
    TooLargeError,
    UnauthenticatedError,
    UnreachableError,
)
from agent_sandbox.router.exchange import After, Exchange
from agent_sandbox.router.http1 import (
    MAX_HEAD,
    BodyKind,
    Framing,
    RequestHead,
    parse_request,
    request_framing,
    text_of,
)
from agent_sandbox.router.limits import Limits
from agent_sandbox.router.observe import Observer, Visit
from agent_sandbox.router.options import RouterOptions
from agent_sandbox.router.routing import AUTHORIZATION, ID, Route, is_sandbox_host, read_route
from agent_sandbox.router.tls import Certificate
from agent_sandbox.router.upstream import SocketFactory, Upstreams, plain_socket
from agent_sandbox.router.waking import Waker
from agent_sandbox.router.wire import Wire, WireError

logger = logging.getLogger(__name__)

SYNC_SECONDS: Final = 120.0
"""How long the first look at a cluster may take."""

BACKLOG: Final = 2048
SETTLE_SECONDS: Final = 0.05
FIRST_REQUEST_SECONDS: Final = 0.5
"""What a connection that was accepted just before the end gets to send its request."""

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 4 * 1024 * 1024
"""How long and how much of an unwanted request body is read, so that the client gets to see the answer."""


@dataclass(eq=False)
class _Client:
    """A client's connection; idle between requests.

    Attributes:
        used: whether a request came over it.
    """

    wire: Wire
    used: bool = False
    idle: anyio.CancelScope | None = None


class Router:
    """Serves clients.

    Args:
        directory: what is known of sandboxes; somebody else feeds it.
        socket_factory: makes the sockets that reach Pods; the host's own by default.
        clock: tells whether a token has expired.
        kube: asked about Kubernetes tokens and told to wake sandboxes; without it neither is done.
        listener: a bound socket to listen on, instead of the options' host and port.

    Attributes:
        control_url: where the control endpoints are, once they are served.

    Raises:
        RouterConfigError: a file of the options is no good, or there is no `kube` and the options need one.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        options: RouterOptions,
        socket_factory: SocketFactory = plain_socket,
        clock: Clock | None = None,
        kube: KubeClient | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._listener = listener
        self.options = options
        self._directory = directory
        self._authoriser = Authoriser(directory, options, clock=clock or SystemClock(), kube=kube)
        self._waker = Waker(kube) if kube is not None else None
        self._limits = Limits(concurrent=options.max_concurrent, rate=options.max_rate, burst=max(options.burst, 1))
        self._observer = Observer(log=options.access_log)
        self._certificate = _certificate(options, self._observer)
        self._upstreams = Upstreams(
            socket_factory, connect_timeout=options.connect_timeout, retried=self._observer.dial_retried
        )
        self._clients: set[_Client] = set()
        self.control_url: str | None = None
        self._draining = False  # told to stop: an answer closes its connection
        self._closing = False  # accepts nothing more: a connection without a request is closed
        self._quiet = anyio.Event()

    async def serve(self, *, task_status: anyio.abc.TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, then let begun exchanges end; reports the URL once requests are accepted.

        Raises:
            OSError: the address is in use or not this machine's.
        """
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            try:
                task_status.started(await tasks.start(self._serve_until, stop, name="router"))
                await anyio.sleep_forever()
            finally:
                stop.set()

    async def _serve_until(self, stop: anyio.Event, *, task_status: anyio.abc.TaskStatus[str]) -> None:
        """Serve until `stop`. Shielded: whoever cancels the router asks it to stop, and begun exchanges may end."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                accepted = Accepted()
                tasks.start_soon(accepted.serve, self._serve_client, name="accepted clients")
                context = self._certificate.context if self._certificate is not None else None
                server = await self._listen(lambda: Wire(accepted.put), context)
                if self._certificate is not None:
                    tasks.start_soon(self._certificate.follow, name="certificate")
                tasks.start_soon(self._upstreams.keep_clean, name="upstream connections")
                if self.options.control_port is not None:
                    # Probes go on while we drain.
                    self.control_url = await tasks.start(self._serve_control, self.options.control_port)
                try:
                    task_status.started(url_of(server.sockets[0], secure=context is not None))
                    await stop.wait()
                    self._draining = True
                    await anyio.sleep(self.options.drain_delay)
                finally:
                    server.close()
                await self._drain()
                tasks.cancel_scope.cancel()

    async def _listen(self, protocol: Callable[[], Wire], context: ssl.SSLContext | None) -> asyncio.Server:
        loop, options = asyncio.get_running_loop(), self.options
        if self._listener is not None:
            return await loop.create_server(protocol, sock=self._listener, backlog=BACKLOG, ssl=context)
        return await loop.create_server(
            protocol, options.host, options.port, backlog=BACKLOG, ssl=context, reuse_port=options.reuse_port
        )

    async def _serve_control(self, port: int, *, task_status: anyio.abc.TaskStatus[str]) -> None:
        await serve_control(
            self.options.control_host,
            port,
            self._observer.registry,
            ready=lambda: not self._draining,
            task_status=task_status,
        )

    async def _drain(self) -> None:
        self._closing = True
        # What was accepted in the last moment becomes a client now.
        await anyio.sleep(SETTLE_SECONDS)
        for client in self._clients:
            if client.idle is not None:
                client.idle.deadline = min(client.idle.deadline, anyio.current_time() + self._idle_seconds(client))
        with anyio.move_on_after(self.options.drain_timeout):
            while self._clients:
                self._quiet = anyio.Event()
                await self._quiet.wait()

    # One connection

    async def _serve_client(self, wire: Wire) -> None:
        client = _Client(wire)
        self._clients.add(client)
        try:
            while await self._serve_request(client) is After.REUSE:
                pass
            wire.close()
        except WireError:
            wire.abort()
        except Exception:
            # A defect of ours: it must cost this connection, not all the others.
            logger.exception("a connection ended by a defect of the router")
            wire.abort()
        except BaseException:
            wire.abort()
            raise
        finally:
            self._clients.discard(client)
            if not self._clients:
                self._quiet.set()

    async def _serve_request(self, client: _Client) -> After:
        """Serve the next request on a connection."""
        wire = client.wire
        try:
            head = await self._next_head(client)
            if head is None:
                return After.CLOSE
            framing = request_framing(head)
        except RefusalError as refusal:
            return await self._refuse(wire, None, refusal)
        if (own := self._own_answer(head)) is not None:
            wire.write(own)
            return await self._after_own_answer(wire, head, framing)
        with tracing.span("router", parent=_trace_context(head), kind="server") as span:
            visit = self._observer.begin(head, wire.peer)
            try:
                return await self._serve_visit(wire, head, framing, visit)
            finally:
                self._observer.end(visit)
                visit.describe(span)

    async def _serve_visit(self, wire: Wire, head: RequestHead, framing: Framing, visit: Visit) -> After:
        """Serve a request that is none for ourselves."""
        exchange: Exchange | None = None
        try:
            route = read_route(
                head,
                domain=self.options.domain,
                known=self._directory.knows,
                meant=lambda namespace, name: self._authoriser.is_for(_shown(head), namespace, name),
            )
            if route.browser and (link := invitation(head)) is not None:
                wire.write(await self._accept(link, route, head, visit))
                visit.status = 302
                return await self._after_own_answer(wire, head, framing)
            holder = (await self._admit(head, framing, route, visit)).holder
            exchange = Exchange(wire, head, framing, self.options, route=route, is_draining=lambda: self._draining)
            return await self._exchange(exchange, route, holder)
        except RefusalError as refusal:
            visit.refused(refusal)
            if exchange is not None and exchange.progress.answering:
                # The answer has begun: only a broken connection still says that it will not end well.
                wire.abort()
                return After.CLOSE
            return await self._refuse(wire, head, refusal)
        finally:
            if exchange is not None:
                visit.status = visit.status or exchange.progress.status
                visit.received, visit.sent = exchange.progress.received, exchange.progress.sent

    async def _refuse(self, wire: Wire, head: RequestHead | None, refusal: RefusalError) -> After:
        wire.write(refusal_response(refusal, head, close=True))
        if wire.pending or head is None or head.all(b"content-length") or head.all(b"transfer-encoding"):
            await _linger(wire)
        return After.CLOSE

    async def _next_head(self, client: _Client) -> RequestHead | None:
        """The next request's head; None if the client is done, too slow, or we are."""
        wire = client.wire
        if not wire.pending:
            client.idle = anyio.CancelScope(deadline=anyio.current_time() + self._idle_seconds(client))
            with client.idle:
                await wire.readable()
            if not wire.pending:
                return None
        client.used = True
        try:
            raw = wire.take_head(MAX_HEAD)
            if raw is None:
                with anyio.move_on_after(self.options.head_timeout):
                    raw = await wire.read_head(MAX_HEAD)
        except ValueError as error:
            raise HeadTooLargeError(f"The request's head is larger than {MAX_HEAD} bytes.") from error
        return None if raw is None else parse_request(raw)

    def _idle_seconds(self, client: _Client) -> float:
        """How long a connection may rest: when we close, only a new one is given the time to say why it came."""
        if not self._closing:
            return self.options.keepalive_timeout
        return 0.0 if client.used else FIRST_REQUEST_SECONDS

    async def _accept(self, link: Invitation, route: Route, head: RequestHead, visit: Visit) -> bytes:
        """Turn the credential in a link into a cookie."""
        admission = await self._authorise(f"Bearer {link.token}", route, visit)
        if admission.expires is None:
            raise UnauthenticatedError("A link may carry a token of one sandbox only.")
        secure = self.options.client_proto == "https"
        extra = [
            (b"Location", link.target),
            (b"Set-Cookie", set_cookie(link.token, admission.expires, route, secure=secure)),
            (b"Cache-Control", b"no-store"),
            (b"Referrer-Policy", b"no-referrer"),
        ]
        return json_response(302, {"detail": "Go on there."}, head, close=not self._reusable(head), extra=extra)

    async def _admit(self, head: RequestHead, framing: Framing, route: Route, visit: Visit) -> Admission:
        """Check the credential and the body's size."""
        credential = text_of(head, AUTHORIZATION)
        if credential is None and route.browser and (token := cookie_token(head)) is not None:
            if is_foreign(head):
                raise ForbiddenError("This request was made by a page of another origin.")
            credential = f"Bearer {token}"
        admission = await self._authorise(credential, route, visit)
        limit = self.options.max_body_bytes
        if limit is not None and framing.kind is BodyKind.LENGTH and framing.length > limit:
            raise TooLargeError(f"The request body is larger than {limit} bytes.")
        return admission

    async def _authorise(self, credential: str | None, route: Route, visit: Visit) -> Admission:
        admission = await self._authoriser.authorise(credential, route)
        visit.admitted(admission.holder)
        if route.ambiguous:
            raise BadRequestError("Ambiguous host: more than one sandbox can be meant; use the path or the headers.")
        return admission

    async def _exchange(self, exchange: Exchange, route: Route, holder: Holder) -> After:
        total = self.options.total_timeout if route.timeout is None else min(route.timeout, self.options.max_timeout)
        try:
            with anyio.fail_after(total), self._limits.slot(holder):
                target = await self._resolve(route, holder)
                after = await self._over_kept_connection(exchange, target, route)
                after = after or await self._over_fresh_connection(exchange, target, route)
        except TimeoutError as error:
            raise TimedOutError(f"Timed out waiting for the backend sandbox: {route.identifier}") from error
        if not exchange.body_done:
            await _linger(exchange.client)
        return after

    async def _resolve(self, route: Route, holder: Holder) -> Target:
        """The holder's Pod, waiting for it, and waking it where that is allowed."""
        patience = self.options.wait_ready
        until = anyio.current_time() + self.options.wait_awake
        while True:
            try:
                target = await self._directory.resolve(
                    route.namespace, route.identifier, wait_unknown=self.options.wait_unknown, wait_ready=patience
                )
            except AsleepError as asleep:
                patience = until - anyio.current_time()
                if self._waker is None or patience <= 0:
                    raise
                await self._waker.wake(asleep.sleeper)
                await self._directory.wait_until_changed(asleep.sleeper, patience)
                continue
            if target.holder_uid != holder.uid:
                # Somebody else took the name while we waited; the credential was not for that one.
                raise NotReadyError(f"Sandbox {route.identifier} has just been replaced.", retry_after=1)
            return target

    async def _over_kept_connection(self, exchange: Exchange, target: Target, route: Route) -> After | None:
        """Try a kept connection; None if there is none, or it was closed before it answered anything."""
        upstream = self._upstreams.take(target, route.port) if exchange.repeatable else None
        if upstream is None:
            return None
        try:
            return await self._run(exchange, upstream, target, route)
        except BrokenError:
            if exchange.progress.status:
                raise
            return None

    async def _over_fresh_connection(self, exchange: Exchange, target: Target, route: Route) -> After:
        upstream = await self._upstreams.dial(
            target, route.port, route.identifier, still_wanted=lambda: self._directory.is_current(target)
        )
        if not self._directory.is_current(target):
            # While we dialled, the Pod went; its address may be another tenant's by now.
            upstream.abort()
            self._observer.address_outdated()
            raise UnreachableError(f"Could not connect to the backend sandbox: {route.identifier}")
        return await self._run(exchange, upstream, target, route)

    async def _run(self, exchange: Exchange, upstream: Wire, target: Target, route: Route) -> After:
        try:
            after = await exchange.run(upstream)
        except BaseException:
            upstream.abort()
            raise
        if exchange.upstream_after is After.REUSE:
            self._upstreams.give_back(target, route.port, upstream)
        else:
            upstream.close()
        return after

    # Answers of our own

    def _own_answer(self, head: RequestHead) -> bytes | None:
        """The health probe, unless it is meant for a sandbox."""
        probe = head.method in (b"GET", b"HEAD") and head.target.partition(b"?")[0] == b"/healthz"
        if not probe or head.all(ID) or is_sandbox_host(head, self.options.domain):
            return None
        return json_response(200, {"status": "ok"}, head, close=not self._reusable(head))

    def _reusable(self, head: RequestHead) -> bool:
        return head.keep_alive and not self._draining

    async def _after_own_answer(self, wire: Wire, head: RequestHead, framing: Framing) -> After:
        if framing.kind is not BodyKind.NONE:
            await _linger(wire)
            return After.CLOSE
        return After.REUSE if self._reusable(head) else After.CLOSE


class Following(Protocol):
    """The part of `agent_sandbox.runtime.Cache` that keeps a directory true."""

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = ...) -> None: ...

    async def wait_until_synced(self, timeout: float) -> None: ...


async def serve(
    router: Router, cache: Following, *, task_status: anyio.abc.TaskStatus[str] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Follow the cluster and serve, until cancelled; reports the URL once requests are accepted.

    The cluster is followed to the end of the last exchange: addresses change hands while the router drains, too.

    Args:
        cache: what the router's directory learns from.

    Raises:
        OSError: the address is in use or not this machine's.
        RuntimeFault: the cluster cannot be followed.
    """
    followed = anyio.CancelScope(shield=True)

    async def follow(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with followed:
            await cache.run(task_status=task_status)

    async with anyio.create_task_group() as tasks:
        await tasks.start(follow, name="router's cache")
        try:
            await cache.wait_until_synced(SYNC_SECONDS)
            await router.serve(task_status=task_status)
        finally:
            followed.cancel()


def _shown(head: RequestHead) -> str | None:
    """Whatever credential a request of a browser brings."""
    link = invitation(head)
    token = link.token if link is not None else cookie_token(head)
    return text_of(head, AUTHORIZATION) or (f"Bearer {token}" if token is not None else None)


def _trace_context(head: RequestHead) -> dict[str, str]:
    values = {name: head.all(name.encode()) for name in tracing.HEADERS}
    return {name: found[0].decode("latin-1") for name, found in values.items() if len(found) == 1}


async def _linger(wire: Wire) -> None:
    """End our half and read what the client still sends: closing at once could destroy the answer on its way."""
    wire.write_eof()
    read = 0
    with anyio.move_on_after(LINGER_SECONDS):
        while read < LINGER_BYTES and (data := await wire.read()):
            read += len(data)


def _certificate(options: RouterOptions, observer: Observer) -> Certificate | None:
    if options.tls_certificate is None or options.tls_key is None:
        return None
    return Certificate(
        options.tls_certificate,
        options.tls_key,
        client_ca=options.tls_client_ca,
        reloaded=observer.certificate_reloaded,
    )
