"""The router's own endpoints, away from the sandboxes' traffic: /healthz, /readyz, /metrics on a port of their own."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import anyio
import anyio.abc
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from agent_sandbox.router.accepting import Accepted
from agent_sandbox.router.answers import json_response, response
from agent_sandbox.router.errors import RefusalError
from agent_sandbox.router.http1 import parse_request
from agent_sandbox.router.wire import Wire, WireError

HEAD_SECONDS: Final = 10.0
MAX_HEAD: Final = 16 * 1024


class Control:
    """Answers one request per connection.

    Args:
        ready: tells whether new requests should be sent here.
    """

    def __init__(self, registry: CollectorRegistry, *, ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._ready = ready

    async def serve(self, wire: Wire) -> None:
        """Serve a connection, then close it."""
        try:
            with anyio.move_on_after(HEAD_SECONDS):
                head = await wire.read_head(MAX_HEAD)
                if head is not None:
                    wire.write(self._answer(parse_request(head).target.partition(b"?")[0]))
            wire.close()
        except (WireError, RefusalError, ValueError):
            # Whoever asks here is a probe of ours; what is no HTTP gets no answer.
            wire.abort()

    def _answer(self, path: bytes) -> bytes:
        match path:
            case b"/healthz":
                return json_response(200, {"status": "ok"}, None, close=True)
            case b"/readyz" if self._ready():
                return json_response(200, {"status": "ok"}, None, close=True)
            case b"/readyz":
                return json_response(503, {"status": "draining"}, None, close=True)
            case b"/metrics":
                return response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST, None, close=True)
            case _:
                return json_response(404, {"detail": "This port has /healthz, /readyz and /metrics."}, None, close=True)


async def serve_control(
    host: str,
    port: int,
    registry: CollectorRegistry,
    *,
    ready: Callable[[], bool],
    task_status: anyio.abc.TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the control endpoints until cancelled; reports their URL.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    control = Control(registry, ready=ready)
    accepted = Accepted()
    server = await asyncio.get_running_loop().create_server(lambda: Wire(accepted.put), host, port)
    try:
        task_status.started(url_of(server.sockets[0]))
        await accepted.serve(control.serve)
    finally:
        server.close()


def url_of(listening: socket.socket, *, secure: bool = False) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
