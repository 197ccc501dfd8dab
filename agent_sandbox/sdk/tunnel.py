"""The tunnel: a port-forward to the router through the API server, inside this process.

In: a kubeconfig's rights. Out: an aiohttp connector whose every connection is a WebSocket to ``pods/portforward`` of a
ready router Pod. No kubectl, no local port that others on this machine could use, no reconnecting: a new connection
finds a living Pod by itself.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import anyio
from aiohttp.client_proto import ResponseHandler

from agent_sandbox.kube import KubeClient, KubeError, NotFoundError, format_labels
from agent_sandbox.kube.streams import PortForwarder, StreamError
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import SandboxPortForwardError
from agent_sandbox.sdk.options import ConnectionOptions
from agent_sandbox_api.core import PODS, SERVICES
from agent_sandbox_api.names import ROUTER_PORT, ROUTER_SERVICE

_PAUSE: Final = 0.5


@dataclass(frozen=True)
class PodPort:
    """Where the tunnel ends."""

    namespace: str
    pod: str
    port: int


@asynccontextmanager
async def open_tunnel(kube: KubeClient, options: ConnectionOptions) -> AsyncIterator[aiohttp.BaseConnector]:
    """Open the tunnel and check that it carries bytes.

    Raises:
        SandboxPortForwardError: no router Pod could be reached within ``port_forward_ready_timeout``.
    """
    async with PortForwarder(kube) as forwarder:
        connector = TunnelConnector(kube, forwarder, (options.router_namespace, options.namespace))
        try:
            await connector.wait_until_open(options.port_forward_ready_timeout)
            yield connector
        finally:
            await connector.close()


class TunnelConnector(aiohttp.BaseConnector):
    """Connects to the router wherever it runs now, whatever host the URL names."""

    def __init__(self, kube: KubeClient, forwarder: PortForwarder, namespaces: tuple[str, ...]) -> None:
        super().__init__(limit=0)
        self._kube = kube
        self._forwarder = forwarder
        self._namespaces = namespaces
        self._end: PodPort | None = None

    async def wait_until_open(self, timeout: float) -> None:
        """Try until a connection opens.

        Raises:
            SandboxPortForwardError: none did within ``timeout`` seconds.
        """
        last: Exception | None = None
        with anyio.move_on_after(timeout):
            while True:
                try:
                    (await self.dial()).close()
                except SandboxPortForwardError as error:
                    last = error
                else:
                    return
                await anyio.sleep(_PAUSE)
        raise SandboxPortForwardError(f"no tunnel to the router after {timeout:g} s: {last or 'no answer'}") from last

    async def dial(self) -> socket.socket:
        """One connection to a ready router Pod.

        Raises:
            SandboxPortForwardError: there is none, or the API server refuses.
        """
        for end in (self._end, None):
            try:
                self._end = end or await find_router(self._kube, self._namespaces)
                return await self._forwarder.dial(self._end.namespace, self._end.pod, self._end.port)
            except (StreamError, NotFoundError) as error:
                # The Pod may have gone since it was found: look once more before giving up.
                if end is None:
                    raise SandboxPortForwardError(f"the tunnel to the router cannot be opened: {error}") from error
            except KubeError as error:
                raise SandboxPortForwardError(str(explain(error, "opening the tunnel to the router"))) from error
        raise AssertionError("the second attempt returns or raises")

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        try:
            with anyio.fail_after(timeout.sock_connect):
                end = await self.dial()
        except (SandboxPortForwardError, TimeoutError) as error:
            raise aiohttp.ClientConnectorError(req.connection_key, OSError(str(error) or "timed out")) from error
        _, protocol = await self._loop.create_connection(self._factory, sock=end)
        return protocol


async def find_router(kube: KubeClient, namespaces: tuple[str, ...]) -> PodPort:
    """A ready Pod behind the router's Service, in the first of the namespaces that has the Service.

    Raises:
        SandboxPortForwardError: there is no such Service, or no Pod of it is ready.
        KubeError: the API server refuses.
    """
    for namespace in dict.fromkeys(namespaces):
        try:
            service = await kube.get_object(SERVICES, ROUTER_SERVICE, namespace)
        except NotFoundError:
            continue
        selector = service["spec"].get("selector") or {}
        pods = await kube.list(PODS, namespace, label_selector=format_labels(selector))
        for pod in pods.items:
            if pod.ready:
                whole = await kube.get_object(PODS, pod.metadata.name, namespace)
                return PodPort(namespace, pod.metadata.name, target_port(service, whole))
        raise SandboxPortForwardError(f"no Pod of Service {namespace}/{ROUTER_SERVICE} is ready")
    raise SandboxPortForwardError(
        f"there is no Service {ROUTER_SERVICE} in {' or '.join(dict.fromkeys(namespaces))}: install the router, "
        "or give router_namespace"
    )


def target_port(service: dict[str, Any], pod: dict[str, Any]) -> int:
    """The container port behind the Service's port of the router (or its only one)."""
    ports = service["spec"].get("ports") or []
    entry = next((port for port in ports if port.get("port") == ROUTER_PORT), ports[0] if ports else {})
    target = entry.get("targetPort", entry.get("port", ROUTER_PORT))
    if isinstance(target, int):
        return target
    for container in pod["spec"].get("containers", []):
        for port in container.get("ports") or []:
            if port.get("name") == target:
                return int(port["containerPort"])
    raise SandboxPortForwardError(f"no container of Pod {pod['metadata']['name']} has a port named {target!r}")
