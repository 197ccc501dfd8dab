"""The transport over sockets: requests over kept connections of our own; streams, and all through a proxy, by aiohttp.

Many times the requests per CPU second of kubernetes_asyncio's client (test/bench/runtime_bench.py), because nothing is
built twice and nothing is decoded that nobody reads.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

import aiohttp
import anyio
from yarl import URL

from agent_sandbox.kube.connections import CONNECT_TIMEOUT, BrokenConnectionError, CannotConnectError, Connections
from agent_sandbox.kube.credentials import Credentials, StaticToken
from agent_sandbox.kube.errors import OutcomeUnknownError, TransportError, UnreachableError, error_for
from agent_sandbox.kube.transport import NO_QUERY, READING_METHODS, RawResponse, target_of

POOL_SIZE: Final = 64
"""Connections for requests. A burst on a cold unlimited pool pays a TLS handshake per request; 64 was measured best."""

_CHUNK: Final = 1 << 18
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class AiohttpTransport:
    """Speaks HTTP/1.1 to one API server. Watches have connections of their own and never starve requests."""

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
        user_agent: str = "agent-sandbox",
        pool_size: int = POOL_SIZE,
        proxy: str | None = None,
        server_hostname: str | None = None,
    ) -> None:
        """
        Args:
            url: the server, for example ``https://127.0.0.1:6443``; a path in it is a prefix.
            credentials: gives the Authorization header.
            tls: trust and client certificate; the system's trust by default.
            user_agent: how the server's audit log knows us.
            pool_size: most connections for requests at once.
            proxy: an HTTP proxy's URL, as a kubeconfig's ``proxy-url``.
            server_hostname: the name in the server's certificate, if it is not the URL's; a kubeconfig's
                ``tls-server-name``.
        """
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self._base = url.rstrip("/")
        self._prefix = urlsplit(self._base).path
        self._credentials = credentials or StaticToken(None)
        self._tls = tls
        self._pool_size = pool_size
        self._proxy = proxy
        self._server_hostname = server_hostname
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        self._connections: Connections | None = None
        self._requests: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

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
        """Send one request and read the whole answer; on 401 once more with fresh credentials."""
        exchange = self._exchange if self._proxy is None else self._exchange_through_proxy
        target = target_of(path, query)
        refreshed = False
        while True:
            headers = await self._request_headers(content_type)
            try:
                async with asyncio.timeout(timeout):  # a scope of anyio's costs as much as half of the exchange
                    answer = await exchange(method, target, headers, body)
            except (CannotConnectError, BrokenConnectionError, aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _no_answer(error, f"{method} {self._base}{path}", timeout) from error
            if answer.status == 401 and not refreshed and await self._credentials.refresh():
                refreshed = True
                continue
            return answer

    async def _exchange(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> RawResponse:
        """One exchange; one that only reads is begun once more if its connection turns out to have been closed."""
        if self._connections is None:
            self._connections = self._new_connections()
        request = _encoded_request(method, self._prefix + target, self.host, headers, body)
        try:
            return await self._connections.exchange(method, request)
        except BrokenConnectionError:
            if method not in READING_METHODS:
                raise
            return await self._connections.exchange(method, request)

    async def _exchange_through_proxy(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> RawResponse:
        url = URL(self._base + target, encoded=True)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        async with await self._send(self._request_session(), method, url, headers, limits, body) as answer:
            return RawResponse(answer.status, answer.headers, await answer.read())

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, query: Mapping[str, str] = NO_QUERY, read_timeout: float | None = None
    ) -> AsyncIterator["_Stream"]:
        """Send one request and hand out its answer while it arrives."""
        session = self._watch_session()
        url = URL(self._base + target_of(path, query), encoded=True)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read_timeout)
        name = f"{method} {self._base}{path}"
        answer = await self._open(session, method, url, limits, name)
        if answer.status == 401 and await self._credentials.refresh():
            hang_up(answer)
            answer = await self._open(session, method, url, limits, name)
        try:
            yield _Stream(answer, name, read_timeout)
        finally:
            hang_up(answer)

    async def open_websocket(
        self, path: str, *, query: tuple[tuple[str, str], ...] = (), protocols: tuple[str, ...]
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket (exec, port-forward) on a connection of its own; the caller closes it.

        Raises:
            ApiError: the server answered something else than an upgrade.
            TransportError: it cannot be reached.
        """
        url = self._base + path + ("?" + urlencode(query) if query else "")
        for refreshed in (False, True):
            headers = await self._request_headers(None)
            try:
                return await self._watch_session().ws_connect(
                    URL(url, encoded=True), headers=headers, protocols=protocols, max_msg_size=0
                )
            except aiohttp.WSServerHandshakeError as error:
                if error.status == 401 and not refreshed and await self._credentials.refresh():
                    continue
                # The body of a refused upgrade is not handed out by aiohttp; the status must do.
                raise error_for(error.status, b"", {}, f"WebSocket {path}: {error.message}") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _no_answer(error, f"WebSocket {self._base}{path}", CONNECT_TIMEOUT) from error
        raise AssertionError("the second attempt returns or raises")

    async def _open(
        self, session: aiohttp.ClientSession, method: str, url: URL, limits: aiohttp.ClientTimeout, name: str
    ) -> aiohttp.ClientResponse:
        headers = await self._request_headers(None)
        try:
            return await self._send(session, method, url, headers, limits)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(error, name, limits.sock_read) from error

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request, a reading one once more if its connection turns out to have been closed."""
        again = method in READING_METHODS
        while True:
            try:
                return await session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=limits,
                    allow_redirects=False,
                    server_hostname=self._server_hostname,
                )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not again:
                    raise
                again = False

    async def aclose(self) -> None:
        """Close all connections; requests under way end in ``OutcomeUnknownError``."""
        if self._connections is not None:
            self._connections.close()
            self._connections = None
        sessions = (self._requests, self._watches)
        self._requests = self._watches = None
        # A caller that is being cancelled must not leave the second one open: Task.cancel() goes through the shield.
        with anyio.CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                for session in sessions:
                    if session is not None:
                        stack.push_async_callback(session.close)

    async def _request_headers(self, content_type: str | None) -> dict[str, str]:
        headers = dict(self._headers)
        authorization = await self._credentials.authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        if content_type is not None:
            headers["Content-Type"] = content_type
        return headers

    # Connections and sessions belong to a loop, so they are made by the first request and not by the constructor.

    def _new_connections(self) -> Connections:
        parts = urlsplit(self._base)
        is_secure = parts.scheme == "https"
        return Connections(
            parts.hostname or "",
            parts.port or (443 if is_secure else 80),
            tls=(self._tls or ssl.create_default_context()) if is_secure else None,
            server_hostname=self._server_hostname,
            limit=self._pool_size,
        )

    def _request_session(self) -> aiohttp.ClientSession:
        if self._requests is None:
            self._requests = self._session(self._pool_size)
        return self._requests

    def _watch_session(self) -> aiohttp.ClientSession:
        if self._watches is None:
            self._watches = self._session(0)
        return self._watches

    def _session(self, limit: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=limit, ssl=self._tls if self._tls is not None else True)
        session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_CHUNK, proxy=self._proxy
        )
        # By itself aiohttp sends a PUT or DELETE once more when the connection breaks before the answer, although the
        # first may have taken effect: its success would come back as a conflict, or as "not found".
        session._retry_connection = False  # noqa: SLF001 - there is no public switch; a test holds it
        return session


class _Stream:
    def __init__(self, answer: aiohttp.ClientResponse, name: str, read_timeout: float | None) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer
        self._name = name
        self._read_timeout = read_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(error, self._name, self._read_timeout) from error


def _encoded_request(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """The bytes of a request.

    Raises:
        ValueError: a name or a credential holds what would end a line, and make another request of the rest.
    """
    if _TARGET.fullmatch(target) is None:
        raise ValueError(f"{target!r} cannot be asked for: it holds spaces, control characters or none of ASCII")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        if _VALUE.fullmatch(value) is None:
            raise ValueError(f"the header {name} holds a character that no header may")
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    elif method not in READING_METHODS:
        lines.append("Content-Length: 0")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (body or b"")


def hang_up(answer: aiohttp.ClientResponse) -> None:
    """End a connection in the middle of its answer; a TLS goodbye would wait for a peer that is still sending."""
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    answer.close()


def _no_answer(error: Exception, request: str, timeout: float | None) -> TransportError:
    """Tell what certainly never left from what may have arrived."""
    # A connector error comes before the first byte of the request; a connect timeout as well.
    if isinstance(error, CannotConnectError | aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return UnreachableError(f"{request}: cannot connect: {error}; is the server running and the address right?")
    if isinstance(error, TimeoutError):
        return OutcomeUnknownError(f"{request}: no answer within {timeout} s")
    if isinstance(error, BrokenConnectionError):
        return OutcomeUnknownError(f"{request}: {error}")
    return OutcomeUnknownError(f"{request}: the connection broke before the answer: {type(error).__name__} {error}")
