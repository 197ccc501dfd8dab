"""Kept connections to one API server, for requests whose answers are read whole.

One request at a time on each connection, and never a second attempt: what became of a request whose connection broke is
for the caller to judge. Streams, WebSockets and proxies are aiohttp's (``http.py``): for a request of some hundred
bytes its sessions, timers and streams cost the processor several times what the exchange itself does.
"""

import asyncio
import ssl
from collections import deque
from typing import Final, cast

import anyio

from agent_sandbox.kube.answers import AnswerReader, MalformedAnswerError
from agent_sandbox.kube.transport import RawResponse

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to a connected socket. Shorter than any request timeout, so that a dead address is told from a slow
server.
"""

REST_SECONDS: Final = 15.0
"""How long an unused connection is trusted: shorter than servers, and most proxies between, keep one."""


class CannotConnectError(Exception):
    """There is no connection: nothing was sent."""


class BrokenConnectionError(Exception):
    """The connection ended, or said nonsense, before the answer was complete."""


class _Connection(asyncio.Protocol):
    """One connection. ``is_usable`` as long as nothing is under way on it and the server has not ended it."""

    def __init__(self) -> None:
        self.is_usable = True
        self.rests_since = 0.0
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[RawResponse] | None = None

    async def exchange(self, method: str, request: bytes) -> RawResponse:
        """Send a request and wait for its answer."""
        self.is_usable = False
        self._reader = AnswerReader(method)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def abort(self) -> None:
        """End it at once; a TLS goodbye would wait for a peer that is still sending."""
        self.is_usable = False
        self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self.abort()  # nobody has asked
            return
        try:
            answer = self._reader.feed(data)
        except MalformedAnswerError as error:
            self._fail(BrokenConnectionError(f"the server's answer cannot be read: {error}"))
            self.abort()
            return
        if answer is not None:
            self._finish(answer, may_stay=self._reader.may_stay)

    def eof_received(self) -> None:
        answer = self._reader.end() if self._reader is not None else None
        if answer is not None:
            self._finish(answer, may_stay=False)
        self.is_usable = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        cause = f"{type(exc).__name__} {exc}" if exc is not None else "the server closed it"
        self._fail(BrokenConnectionError(f"the connection broke before the answer: {cause}"))

    def _finish(self, answer: RawResponse, *, may_stay: bool) -> None:
        waiting, self._answer, self._reader = self._answer, None, None
        self.is_usable = may_stay
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _fail(self, error: BrokenConnectionError) -> None:
        waiting, self._answer, self._reader = self._answer, None, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)


class Connections:
    """Up to so many connections to one server; who comes when all are busy waits in line.

    Errors:
        CannotConnectError, BrokenConnectionError; both say what happened.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, server_hostname: str | None, limit: int
    ) -> None:
        """
        Args:
            host: name or address of the server.
            port: its port.
            tls: speaks TLS with this; None speaks plainly.
            server_hostname: the name in the server's certificate, if it is not the host's.
            limit: most connections at once.
        """
        self._host = host
        self._port = port
        self._tls = tls
        self._server_hostname = (server_hostname or host) if tls is not None else None
        self._limit = asyncio.Semaphore(limit)
        # The last one used goes first, so that those too many age and are closed.
        self._resting: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._now = asyncio.get_running_loop().time

    async def exchange(self, method: str, request: bytes) -> RawResponse:
        """Send the bytes of a request and return its answer."""
        async with self._limit:
            connection = self._rested() or await self._connect()
            self._busy.add(connection)
            try:
                return await connection.exchange(method, request)
            finally:
                self._busy.discard(connection)
                self._rest(connection)

    def close(self) -> None:
        """End all connections; requests under way break."""
        for connection in (*self._resting, *self._busy):
            connection.abort()
        self._resting.clear()

    @property
    def resting(self) -> int:
        """How many connections are kept and unused."""
        return len(self._resting)

    def _rested(self) -> _Connection | None:
        self._drop_old()
        while self._resting:
            connection = self._resting.pop()
            if connection.is_usable:
                return connection
        return None

    def _rest(self, connection: _Connection) -> None:
        """Keep a connection whose exchange came to its end; on any other the answer to come would be the next one's."""
        if connection.is_usable:
            connection.rests_since = self._now()
            self._resting.append(connection)
        else:
            connection.abort()

    def _drop_old(self) -> None:
        oldest = self._now() - REST_SECONDS
        while self._resting and self._resting[0].rests_since < oldest:
            self._resting.popleft().abort()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls, server_hostname=self._server_hostname
                )
        except TimeoutError as error:
            raise CannotConnectError(f"no connection to {self._host}:{self._port} in {CONNECT_TIMEOUT} s") from error
        except OSError as error:
            raise CannotConnectError(str(error)) from error
        return connection
