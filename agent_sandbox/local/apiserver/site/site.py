"""The HTTP front: TLS on loopback, a bearer token, and the values that ``ApiServer`` understands.

    async with ApiServerSite(server, folder, port=6443) as site: ...

A client that goes away cancels its request; a stream that it read ends.
"""

import errno
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from aiohttp import web

from agent_sandbox.local.apiserver.endpoints.bodies import MAX_BODY_BYTES
from agent_sandbox.local.apiserver.errors import RequestTooLargeError, StatusError, UnauthorizedError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, UserInfo, split_query
from agent_sandbox.local.apiserver.server import ApiServer
from agent_sandbox.local.apiserver.site.credentials import SiteCredentials
from agent_sandbox.local.apiserver.site.upgrade import (
    choose_protocol,
    serve_upgrade,
    token_in_protocols,
    wants_upgrade,
)

_PUBLIC = frozenset({"/version", "/healthz", "/livez", "/readyz"})
_SHUTDOWN_SECONDS = 2.0


class PortTakenError(OSError):
    """Somebody else listens on the wished port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            errno.EADDRINUSE, f"{host}:{port} is in use by another program; stop it or choose another port with --port"
        )


class ApiServerSite:
    """One server on one address."""

    def __init__(
        self, server: ApiServer, credentials: SiteCredentials, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """
        Args:
            server: answers; opened and run by the caller.
            credentials: certificates and token.
            host: the address to listen on; nothing but loopback is meant to be safe.
            port: the port; 0 takes a free one.
        """
        self._server = server
        self._credentials = credentials
        self._host = host
        self._port = port
        self._exit = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where clients find the server; the port is known once it listens."""
        return f"https://{self._host}:{self._port}"

    @property
    def credentials(self) -> SiteCredentials:
        """The certificates and the token."""
        return self._credentials

    @classmethod
    async def prepare(cls, server: ApiServer, folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Self:
        """A site whose credentials are kept in a folder."""
        credentials = await anyio.to_thread.run_sync(SiteCredentials.ensure, folder, host)
        return cls(server, credentials, host=host, port=port)

    async def __aenter__(self) -> Self:
        context = await anyio.to_thread.run_sync(self._credentials.server_context)
        runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=75.0),
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        self._exit.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self._host, self._port, ssl_context=context, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await self._exit.aclose()
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(self._host, self._port) from error
            raise
        self._port = runner.addresses[0][1]
        await anyio.to_thread.run_sync(self._credentials.write_kubeconfig, self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop_watches()
        with anyio.CancelScope(shield=True):
            await self._exit.aclose()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        try:
            request = await self._read(incoming)
            if wants_upgrade(incoming):
                stream = self._server.prepare_stream(request)
                if stream is not None:
                    return await serve_upgrade(incoming, stream, choose_protocol(incoming, stream))
        except StatusError as error:
            return _whole(ApiResponse.json(error.status(), error.code))
        answer = await self._server.handle(request)
        if answer.stream is None:
            return _whole(answer)
        return await _stream(incoming, answer)

    async def _read(self, incoming: web.BaseRequest) -> ApiRequest:
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        user = self._authenticate(headers.get("authorization", ""), token_in_protocols(incoming))
        if user is None and incoming.path not in _PUBLIC:
            raise UnauthorizedError
        # Nobody is asked for a body who may not write: a stranger's is left where it is.
        body = await _read_body(incoming) if user is not None else b""
        query = split_query(incoming.rel_url.raw_query_string)
        return ApiRequest(
            incoming.method, incoming.path, query, headers, body, user or UserInfo("system:anonymous", ())
        )

    def _authenticate(self, header: str, protocol_token: str | None) -> UserInfo | None:
        if protocol_token is not None:
            return self._credentials.authenticate(protocol_token)
        scheme, _, token = header.partition(" ")
        return self._credentials.authenticate(token.strip()) if scheme.lower() == "bearer" else None


async def _read_body(incoming: web.BaseRequest) -> bytes:
    """The body, however its length is told: announced, in chunks, or packed.

    Raises:
        RequestTooLargeError: it is longer than Kubernetes allows; no more than that of it was kept.
    """
    if (incoming.content_length or 0) > MAX_BODY_BYTES:
        raise RequestTooLargeError(MAX_BODY_BYTES)
    body = bytearray()
    while piece := await incoming.content.readany():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise RequestTooLargeError(MAX_BODY_BYTES)
    return bytes(body)


def _whole(answer: ApiResponse) -> web.Response:
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    for text in answer.warnings:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


async def _stream(incoming: web.BaseRequest, answer: ApiResponse) -> web.StreamResponse:
    assert answer.stream is not None
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.enable_chunked_encoding()
    try:
        await response.prepare(incoming)
        async for chunk in answer.stream:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        # The client went away in the middle of a write: nobody is left to be told.
        return response
    finally:
        close = getattr(answer.stream, "aclose", None)
        if close is not None:
            await close()
    return response
