"""HTTP from the SDK to one sandbox, whichever way leads there.

In: a method, a path inside the sandbox, a body. Out: the sandbox's answer, or an error of ``errors.py``. What was
sent is never sent again, with two exceptions: a request of which nothing had left (a failed connection, or a router
that says so) and, once, a method that only reads. Redirects are refused, because a sandbox's program must not be able
to send its client elsewhere.
"""

import io
import json
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote
from weakref import WeakSet

import aiohttp
import anyio
from yarl import URL

from agent_sandbox import tracing
from agent_sandbox.sdk.errors import (
    RequestTimeoutError,
    SandboxConnectionError,
    SandboxGoneError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxProtocolError,
)
from agent_sandbox.sdk.refusals import CREDENTIAL_REASONS, HEADER_ERROR, UnsentError, error_for
from agent_sandbox.sdk.results import ExecutionResult

R = TypeVar("R")

HEADER_TIMEOUT: Final = "X-Sandbox-Timeout"
HEADER_DAEMON_VERSION: Final = "X-Sandboxd-Version"

CONNECT_SECONDS: Final = 10.0
"""How long one connection may take to open."""

RETRY_SECONDS: Final = 15.0
"""How long a request of which nothing was sent is tried again: longer than a Pod needs to come back, and the router
itself waits for one."""

READING_METHODS: Final = frozenset({"GET", "HEAD"})
_CERTIFICATE_ERRORS: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)
_NO_SUCH_PATH: Final = frozenset({400, 404, 405, 406, 410, 422, 501})
"""What a runtime that has never heard of a path says."""

_RUNTIME_PATHS: Final = frozenset({"", "execute", "upload", "download", "list", "exists", "agent"})
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_ENDING_SIGNALS: Final = frozenset({-signal.SIGTERM, -signal.SIGKILL})
_LARGE_BODY: Final = 1 << 19
_ERROR_BODY_LIMIT: Final = 64 * 1024


@dataclass(frozen=True)
class Target:
    """A sandbox as the data plane addresses it.

    Attributes:
        claim_name: the claim that holds it, for which credentials are.
        claim_uid: its UID.
    """

    namespace: str
    sandbox_name: str
    pod_ips: tuple[str, ...] = ()
    claim_name: str = ""
    claim_uid: str = ""


class Route(Protocol):
    """A way to sandboxes: through a router, or straight to Pods."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session to send with."""

    @property
    def sockets(self) -> "WeakSet[aiohttp.ClientWebSocketResponse]":
        """WebSockets that were opened; those that are still open when the way is closed are closed with it."""

    def base_url(self, target: Target, port: int) -> str:
        """What a path of the sandbox is appended to, without a trailing slash."""

    def headers(self, target: Target, port: int) -> Mapping[str, str]:
        """Headers that lead to the sandbox."""

    async def renew(self) -> bool:
        """The router refused the credential among the headers: whether there is another one now."""


@dataclass(frozen=True)
class Answer:
    """A whole answer of the sandbox."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            SandboxProtocolError: it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise SandboxProtocolError(
                f"the sandbox answered {len(self.body)} bytes that are no JSON: is another program listening there?"
            ) from error


def payload(data: bytes) -> aiohttp.Payload:
    """Bytes as a body. Large ones are handed to the socket piece by piece, so that other tasks get their turns."""
    return aiohttp.BytesPayload(data) if len(data) < _LARGE_BODY else aiohttp.BytesIOPayload(io.BytesIO(data))


def encode_path(path: str) -> str:
    """Percent-encode a path of the sandbox, slashes too, so that no proxy on the way can fold or resolve it.

    Names that are no UTF-8 come as ``os.fsdecode`` shows them, and go as the bytes that they are.
    """
    encoded = _percent(path)
    # "." and ".." are dot segments in a URL even though nothing in them needs encoding.
    return encoded.replace(".", "%2E") if encoded in {".", ".."} else encoded


def _percent(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no time: zero, less, no number, or without end, for which None is the word.

    Raises:
        ValueError: it is one of these.
    """
    if timeout is not None and not 0 < timeout < math.inf:
        raise ValueError(f"a timeout is a positive number of seconds, or None to wait for ever, not {timeout!r}")


def _span_name(method: str, path: str) -> str:
    """The kind of a request to the runtime; what follows may be the name of a file, or another program's business."""
    first, _, rest = path.partition("/")
    if first == "v1":
        return f"{method} /v1/{rest.partition('/')[0]}"
    return f"{method} /{first}" if first in _RUNTIME_PATHS else method


async def close_websocket(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Close a WebSocket, even while the caller is being cancelled; the farewell is waited for two seconds at most."""
    with anyio.CancelScope(shield=True):
        await socket.close()


async def close_websockets(sockets: Iterable[aiohttp.ClientWebSocketResponse]) -> None:
    """Close WebSockets that nobody has closed, all at once."""
    async with anyio.create_task_group() as tasks:
        for socket in list(sockets):
            if not socket.closed:
                tasks.start_soon(close_websocket, socket)


class Wire:
    """Sends requests to one port of one sandbox.

    Flow: method, path, body → headers of the route → answer or error.
    Guarantees: a request takes effect at most once; no answer is waited for without a deadline, unless the caller asks.
    Errors: see ``errors.py``; those of aiohttp never leave this class.
    """

    def __init__(
        self,
        route: Route,
        target: Callable[[], Target],
        port: int,
        *,
        exists: Callable[[], Awaitable[bool]] | None = None,
        trace: tracing.TraceContext | None = None,
    ) -> None:
        """
        Args:
            route: the way to the sandbox.
            target: the sandbox; asked again for each request, because a resumed sandbox has other addresses.
            port: the port inside the sandbox.
            exists: asks the cluster whether the sandbox is there and is to stay; unset believes it.
            trace: what requests that belong to no other trace belong to.
        """
        self._exists = exists
        self._route = route
        self._target = target
        self.port = port
        self._speaks_v1: bool | None = None
        self._trace = trace

    @property
    def name(self) -> str:
        """Names the sandbox."""
        target = self._target()
        return f"{target.namespace}/{target.sandbox_name}"

    def span(self, name: str, *, kind: tracing.Kind = "internal") -> AbstractContextManager[tracing.Span]:
        """A span of the caller's trace, or else of that in which the sandbox was made."""
        return tracing.span(name, parent=tracing.current() or self._trace, kind=kind)

    async def request(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None,
        body: Callable[[], Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        """Send a request and read the whole answer.

        Args:
            method: the HTTP method.
            path: path in the sandbox, without the leading slash, already percent-encoded.
            timeout: seconds for everything, also told to the router; None waits for ever.
            body: makes the body, once per attempt.
            headers: additional headers.
            query: parameters of the query.
            accept: error statuses to return rather than to raise.

        Raises:
            ValueError: the timeout is no positive number.
            SandboxError: what went wrong.
        """
        async with self.stream(
            method, path, timeout=timeout, body=body, headers=headers, query=query, accept=accept
        ) as response:
            try:
                return Answer(response.status, response.headers, await response.read())
            except TimeoutError as error:
                raise self._timed_out(method, path, timeout) from error
            except aiohttp.ClientError as error:
                raise self._lost(method, path, error) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None,
        read_timeout: float | None = None,
        body: Callable[[], Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """As ``request``, but hands over the answer while its body is still arriving.

        ``read_timeout`` is the longest silence in seconds; None means no limit of its own.
        """
        check_timeout(timeout)
        response = await self._send(
            method,
            path,
            aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS, sock_read=read_timeout),
            body=body,
            headers=headers,
            query=query,
            accept=accept,
        )
        try:
            yield response
        finally:
            response.release()

    async def open_websocket(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        max_message_bytes: int = 16 * 2**20,
        patience: float = RETRY_SECONDS,
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket to the sandbox; the caller closes it.

        Args:
            path: path in the sandbox.
            query: parameters of the query.
            max_message_bytes: a longer message closes the socket.
            patience: seconds to go on trying while nothing could be sent.

        Raises:
            SandboxError: it was refused, or the sandbox cannot be reached.
        """
        with self.span(_span_name("GET", path), kind="client"):
            return await self._retry_unsent(
                lambda: self._connect_websocket(path, query, max_message_bytes), "GET", path, patience
            )

    async def speaks_v1(self) -> bool:
        """Whether the sandbox's runtime has our versioned API beside the legacy contract; asked once.

        Raises:
            SandboxError: it cannot be found out now, because the runtime is overloaded, ends, or wants a credential.
        """
        if self._speaks_v1 is None:
            answer = await self.request("GET", "v1/health", timeout=CONNECT_SECONDS, accept=_NO_SUCH_PATH)
            self._speaks_v1 = answer.status == 200 and HEADER_DAEMON_VERSION in answer.headers
        return self._speaks_v1

    async def check_not_ended(self, result: ExecutionResult, what: str) -> None:
        """Tell a command that was ended by a signal of its own from one that went with its sandbox.

        Raises:
            SandboxGoneError: the sandbox ends, and ended the command; carries its output.
        """
        if result.exit_code in _ENDING_SIGNALS and await self.is_gone():
            raise SandboxGoneError(
                f"{what} was ended with its sandbox {self.name}, which is being deleted or is gone",
                stdout=result.stdout,
                stderr=result.stderr,
            )

    async def is_gone(self) -> bool:
        """Whether the cluster says that the sandbox is being deleted or does not exist; False if it cannot be asked."""
        return self._exists is not None and not await self._exists()

    async def is_way_open(self) -> bool:
        """Whether the network leads to where the sandbox is served from: the router, or else the Pod's host."""
        url = URL(self._route.base_url(self._target(), self.port))
        try:
            with anyio.fail_after(2):
                async with self._route.session.get(url / "healthz", allow_redirects=False):
                    return True
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as error:
            # A refusal comes from a machine that is there.
            cause = getattr(error, "os_error", error)
            return isinstance(cause, ConnectionRefusedError | aiohttp.ServerDisconnectedError)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _connect_websocket(
        self, path: str, query: Mapping[str, str] | None, max_message_bytes: int
    ) -> aiohttp.ClientWebSocketResponse:
        target = self._target()
        try:
            with anyio.fail_after(CONNECT_SECONDS + 10):  # the router itself waits ten seconds for a Pod
                socket = await self._route.session.ws_connect(
                    self._url(target, path, query),
                    headers={**self._route.headers(target, self.port), **tracing.current()},
                    max_msg_size=max_message_bytes,
                    autoping=True,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        except aiohttp.WSServerHandshakeError as error:
            raised = error_for(error.status, error.headers or {}, b"", f"WebSocket /{path}")
            raise raised from error
        self._route.sockets.add(socket)
        return socket

    async def _send(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        *,
        body: Callable[[], Any] | None,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str] | None,
        accept: frozenset[int],
    ) -> aiohttp.ClientResponse:
        async def attempt() -> aiohttp.ClientResponse:
            target = self._target()
            all_headers = {**self._route.headers(target, self.port), **(headers or {}), **tracing.current()}
            if timeout.total is not None:
                all_headers[HEADER_TIMEOUT] = f"{timeout.total:g}"
            response = await self._route.session.request(
                method,
                self._url(target, path, query),
                data=None if body is None else body(),
                headers=all_headers,
                timeout=timeout,
                allow_redirects=False,
            )
            await self._check(response, f"{method} /{path}", accept)
            return response

        budget = RETRY_SECONDS if timeout.total is None else min(RETRY_SECONDS, timeout.total)
        with self.span(_span_name(method, path), kind="client") as span:
            response = await self._retry_unsent(attempt, method, path, budget, timeout.total)
            span.note({"http.response.status_code": response.status})
            return response

    async def _retry_unsent(
        self,
        attempt: Callable[[], Awaitable[R]],
        method: str,
        path: str,
        budget: float,
        timeout: float | None = None,
    ) -> R:
        """Try until something was sent, or until the budget of seconds is used up."""
        pause = _FIRST_PAUSE
        rereads = 1 if method in READING_METHODS else 0
        renewed = False
        deadline = anyio.current_time() + budget
        while True:
            try:
                return await attempt()
            except UnsentError as error:
                if anyio.current_time() + pause >= deadline:
                    raise error.public from error.__cause__
                await anyio.sleep(max(pause, min(error.retry_after, deadline - anyio.current_time())))
            except SandboxPermissionError as error:
                if error.code not in CREDENTIAL_REASONS:
                    raise
                # The router asks for the credential first: a sandbox that is gone looks like one of somebody else.
                if self._exists is not None and not await self._exists():
                    raise SandboxGoneError(
                        f"sandbox {self.name} does not exist any more, or is being deleted"
                    ) from error
                if renewed or not await self._route.renew():
                    raise
                renewed = True
                continue
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                if isinstance(error, _CERTIFICATE_ERRORS) or anyio.current_time() + pause >= deadline:
                    raise self._unreachable(error) from error
                await anyio.sleep(pause)
            except TimeoutError as error:
                raise self._timed_out(method, path, timeout) from error
            except aiohttp.InvalidURL as error:
                raise SandboxProtocolError(f"{method} /{path}: {error} is no URL") from error
            except aiohttp.ClientError as error:
                if not rereads:
                    raise self._lost(method, path, error) from error
                rereads -= 1
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _check(self, response: aiohttp.ClientResponse, request: str, accept: frozenset[int]) -> None:
        """Raise what an answer means if it is an error; leaves the body of a good one unread."""
        made_by_router = HEADER_ERROR in response.headers
        if response.status < 300 or response.status == 304 or (response.status in accept and not made_by_router):
            return
        try:
            if response.status < 400:
                raise SandboxProtocolError(
                    f"{request}: the answer is a redirect ({response.status}), which is never followed: "
                    "check the URL, and https against http"
                )
            body = await response.content.read(_ERROR_BODY_LIMIT)
            raise error_for(response.status, response.headers, body, request)
        finally:
            response.close()

    def _url(self, target: Target, path: str, query: Mapping[str, str] | None) -> URL:
        url = f"{self._route.base_url(target, self.port)}/{path}"
        if query:
            url += "?" + "&".join(f"{_percent(key)}={_percent(value)}" for key, value in query.items())
        return URL(url, encoded=True)

    def _unreachable(self, error: BaseException) -> SandboxConnectionError:
        target = self._target()
        url = self._route.base_url(target, self.port)
        return SandboxConnectionError(
            f"sandbox {target.namespace}/{target.sandbox_name} cannot be reached at {url}: {error}. Nothing was sent"
        )

    def _lost(self, method: str, path: str, error: BaseException) -> SandboxOutcomeUnknownError:
        target = self._target()
        return SandboxOutcomeUnknownError(
            f"{method} /{path}: the connection to sandbox {target.namespace}/{target.sandbox_name} broke "
            f"before the whole answer came ({str(error) or type(error).__name__}). "
            "The request may have been carried out"
        )

    def _timed_out(self, method: str, path: str, timeout: float | None) -> RequestTimeoutError:
        target = self._target()
        limit = f" within {timeout:g} s" if timeout is not None else ""
        return RequestTimeoutError(
            f"{method} /{path}: no answer from sandbox {target.namespace}/{target.sandbox_name}{limit}"
        )


__all__ = [
    "Answer",
    "Route",
    "Target",
    "Wire",
    "check_timeout",
    "close_websocket",
    "close_websockets",
    "encode_path",
    "payload",
]
