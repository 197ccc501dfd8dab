"""The network ports of a sandbox, seen from here."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketStream, UNIXSocketStream

from agent_sandbox.kube import KubeError
from agent_sandbox.kube.streams import PortForwarder, StreamError
from agent_sandbox.sdk.background import background_tasks
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.commands import unsupported
from agent_sandbox.sdk.connection import Connection
from agent_sandbox.sdk.errors import (
    SandboxConfigError,
    SandboxConnectionError,
    SandboxNotReadyError,
    SandboxPortForwardError,
    SandboxTimeoutError,
)
from agent_sandbox.sdk.routes import RouterRoute
from agent_sandbox.sdk.wire import Target, Wire
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaimView
from agent_sandbox_api.names import QUERY_SANDBOX_TOKEN

_log = logging.getLogger(__name__)

_PAUSE: Final = 0.2
_WAIT_STEP_SECONDS: Final = 20.0
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class PodReference:
    """The Pod of a sandbox."""

    namespace: str
    name: str


class AsyncPorts:
    """The ports of one sandbox."""

    def __init__(
        self,
        connection: Connection,
        wire: Wire,
        target: Callable[[], Target],
        pod: Callable[[], Awaitable[PodReference]],
        claim: SandboxClaimView,
    ) -> None:
        self._connection = connection
        self._wire = wire
        self._target = target
        self._pod = pod
        self._claim = claim

    def url(self, port: int) -> str:
        """Base URL of a port, for an HTTP client that sends ``headers(port)`` too.

        Raises:
            SandboxNotReadyError: the way leads straight to the Pod, and there is none at present.
        """
        return self._connection.route.base_url(self._target(), _checked(port))

    def headers(self, port: int) -> Mapping[str, str]:
        """Headers by which the router finds this sandbox and this port; they may hold the router's credential."""
        return dict(self._connection.route.headers(self._target(), _checked(port)))

    async def signed_url(self, port: int, path: str = "/", *, seconds: float = 3600, prefixed: bool = False) -> str:
        """A link with which a browser reaches a port of this sandbox, and nothing else, for a while.

        Whoever has the link has the access: hand it on like a password. The router answers it with a cookie. With
        ``router_domain`` the sandbox has a host, and so a web origin, of its own; without, all sandboxes share one.

        Args:
            port: the port in the sandbox.
            path: where to begin, with its query.
            seconds: how long the link and its cookie are good.
            prefixed: the program knows that it is served below ``/prefixed/<namespace>/<claim>/<port>/`` (Jupyter's
                ``base_url``, Grafana's ``root_url``), and gets that path with each request.

        Raises:
            SandboxConfigError: no router is on the way, or none that a browser can reach.
            SandboxError: the claim is gone, or this client may not change it and its key is not named there.
        """
        if not path.startswith("/"):
            raise ValueError(f"the path {path!r} does not begin with a slash")
        route, credentials = self._connection.route, self._connection.credentials
        if not isinstance(route, RouterRoute) or credentials is None:
            raise SandboxConfigError("this client goes straight to Pods: a signed URL needs a router")
        front = route.browser_front(self._target(), _checked(port), prefixed=prefixed)
        token = await credentials.sign(self._claim, port=port, seconds=seconds)
        return f"{front}{path}{'&' if '?' in path else '?'}{QUERY_SANDBOX_TOKEN}={token}"

    async def signed_headers(self, port: int, *, seconds: float = 3600) -> Mapping[str, str]:
        """Headers with which any program reaches a port of this sandbox at ``url(port)``, and nothing else.

        Unlike those of ``headers`` they can be handed on: they open one port, and hold no credential of this client.

        Args:
            port: the port in the sandbox.
            seconds: how long they are good.

        Raises:
            SandboxConfigError: no router is on the way.
            SandboxError: as for ``signed_url``.
        """
        route, credentials = self._connection.route, self._connection.credentials
        if not isinstance(route, RouterRoute) or credentials is None:
            raise SandboxConfigError("this client goes straight to Pods: signed headers need a router")
        token = await credentials.sign(self._claim, port=_checked(port), seconds=seconds)
        return route.headers_with(self._target(), port, f"Bearer {token}")

    async def list(self) -> tuple[int, ...]:
        """The ports on which a program listens in the sandbox.

        Raises:
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        if not await self._wire.speaks_v1():
            raise unsupported("list of ports")
        data = (await self._wire.request("GET", "v1/ports", timeout=30)).json()
        items = data.get("ports", []) if isinstance(data, dict) else data
        return tuple(sorted({int(item["port"] if isinstance(item, dict) else item) for item in items}))

    async def wait(self, port: int, timeout: float = 60) -> None:
        """Wait until a program listens on the port.

        Raises:
            SandboxTimeoutError: none does within ``timeout`` seconds.
        """
        _checked(port)
        wait = self._wait_v1 if await self._wire.speaks_v1() else self._wait_by_asking
        with anyio.move_on_after(timeout):
            await wait(port)
            return
        raise SandboxTimeoutError(f"nothing listens on port {port} of the sandbox after {timeout:g} s")

    @asynccontextmanager
    async def forward(self, port: int, local_port: int = 0, *, host: str = "127.0.0.1") -> AsyncIterator[int]:
        """Make a port of the sandbox a port of this machine while the block lasts; gives its number.

        Any TCP protocol works: connections go through the API server's port-forward, for which the user needs the right
        to create ``pods/portforward``. Every user of this machine can connect to the port.

        Args:
            port: the port in the sandbox.
            local_port: the port here; 0 takes a free one.
            host: the address here to listen on.

        Raises:
            SandboxPortForwardError: the API server cannot forward, or refuses.
            OSError: the local port is in use.
        """
        _checked(port)
        pod = await self._pod()
        try:
            forwarder = PortForwarder(self._connection.kube)
        except StreamError as error:
            raise SandboxPortForwardError(str(error)) from error
        async with forwarder:
            try:
                (await forwarder.dial(pod.namespace, pod.name, port)).close()
            except KubeError as error:
                raise SandboxPortForwardError(str(explain(error, f"forwarding to port {port}"))) from error
            listener = await anyio.create_tcp_listener(local_host=host, local_port=local_port)
            async with listener, background_tasks() as tasks:

                async def serve(client: SocketStream) -> None:
                    await _serve(client, forwarder, pod, port)

                tasks.start_soon(listener.serve, serve, name=f"forward of port {port}")
                yield int(listener.extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610 - no Django here

    async def _wait_v1(self, port: int) -> None:
        while True:
            answer = await self._wire.request(
                "GET",
                f"v1/ports/{port}/wait",
                timeout=_WAIT_STEP_SECONDS + 10,
                query={"timeout": f"{_WAIT_STEP_SECONDS:g}"},
            )
            if answer.json().get("listening"):
                return

    async def _wait_by_asking(self, port: int) -> None:
        wire = Wire(self._connection.route, self._target, port)
        while True:
            try:
                await wire.request("GET", "", timeout=2, accept=frozenset(range(400, 600)))
            except (SandboxConnectionError, SandboxNotReadyError, SandboxTimeoutError):
                await anyio.sleep(_PAUSE)
            else:
                return


def _checked(port: int) -> int:
    if not 0 < port < 65536:
        raise ValueError(f"there is no port {port}; they go from 1 to 65535")
    return port


async def _serve(client: SocketStream, forwarder: PortForwarder, pod: PodReference, port: int) -> None:
    async with client:
        try:
            end = await forwarder.dial(pod.namespace, pod.name, port)
        except (KubeError, OSError) as error:
            _log.warning("a connection to port %s of %s cannot be opened: %s", port, pod.name, error)
            return
        async with await UNIXSocketStream.from_socket(end) as remote, anyio.create_task_group() as tasks:
            tasks.start_soon(_pump, client, remote, tasks)
            tasks.start_soon(_pump, remote, client, tasks)


async def _pump(source: ByteStream, sink: ByteStream, tasks: anyio.abc.TaskGroup) -> None:
    """Carry bytes one way; when one side ends, both do, as the forward knows no half-close."""
    try:
        while True:
            await sink.send(await source.receive(_CHUNK))
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        tasks.cancel_scope.cancel()


__all__ = ["AsyncPorts", "PodReference"]
