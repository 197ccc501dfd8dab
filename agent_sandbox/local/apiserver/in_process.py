"""Reaches an API server of the same process without a socket: a ``kube.Transport`` that calls it directly.

The parts of the local stack talk this way to their API server, and so do tests.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from agent_sandbox.kube.errors import OutcomeUnknownError
from agent_sandbox.kube.transport import NO_QUERY, RawResponse
from agent_sandbox.local.apiserver.http import ApiRequest, UserInfo
from agent_sandbox.local.apiserver.server import ApiServer


@dataclass
class InProcessTransport:
    """A ``kube.Transport`` that calls the server directly."""

    server: ApiServer
    user: UserInfo = field(default_factory=UserInfo)
    host: str = "in-process"

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
        """Answer one request.

        Raises:
            OutcomeUnknownError: the server did not answer within the timeout.
        """
        # A real server always lets other tasks run between a request and its answer.
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(timeout):
            answer = await self.server.handle(self._request(method, path, query, body, content_type))
            chunks = [answer.body]
            if answer.stream is not None:
                chunks += [chunk async for chunk in answer.stream]
            return RawResponse(answer.status, answer.headers, b"".join(chunks))
        raise OutcomeUnknownError(f"{method} {path}: no answer within {timeout} s")

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, query: Mapping[str, str] = NO_QUERY, read_timeout: float | None = None
    ) -> AsyncIterator["_InProcessStream"]:
        """Answer one request piece by piece."""
        await anyio.lowlevel.checkpoint()
        answer = await self.server.handle(self._request(method, path, query, None, None))
        stream = _InProcessStream(answer.status, answer.headers, answer.body, answer.stream, read_timeout)
        try:
            yield stream
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Nothing to close."""

    def _request(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str | None
    ) -> ApiRequest:
        headers = {"accept": "application/json", "user-agent": "agent-sandbox"}
        if content_type is not None:
            headers["content-type"] = content_type
        return ApiRequest(method, path, tuple(query.items()), headers, body or b"", self.user)


class _InProcessStream:
    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        chunks: AsyncIterator[bytes] | None,
        read_timeout: float | None,
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._chunks = chunks
        self._read_timeout = read_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body
        if self._chunks is None:
            return
        while True:
            chunk: bytes | None = None
            late = True
            with anyio.move_on_after(self._read_timeout):
                chunk = await anext(self._chunks, None)
                late = False
            if late:
                raise OutcomeUnknownError(f"nothing came for {self._read_timeout} s")
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
