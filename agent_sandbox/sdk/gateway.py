"""The address of a Gateway API object.

In: its name. Out: a base URL, as soon as the Gateway's controller has published a usable address. One watch, no
polling.
"""

import ipaddress
import re
from typing import Final

import anyio
import msgspec

from agent_sandbox.kube import GoneError, KubeClient, KubeError, ServerError, TooManyRequestsError, TransportError
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import GatewayTimeoutError
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView


class GatewayAddress(msgspec.Struct, frozen=True):
    """One entry of ``status.addresses``."""

    value: str = ""
    type: str = "IPAddress"


class GatewayStatus(msgspec.Struct, frozen=True):
    """The part of the status that is read here."""

    addresses: tuple[GatewayAddress, ...] = ()


class GatewayView(msgspec.Struct, frozen=True):
    """A Gateway, as far as it is read here."""

    metadata: MetaView
    status: GatewayStatus = GatewayStatus()


GATEWAYS: Final[Resource[GatewayView]] = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway", GatewayView)

_HOST_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_WATCH_SECONDS: Final = 240
_PAUSE: Final = 1.0


def gateway_host(gateway: GatewayView) -> str | None:
    """The first usable address as it stands in a URL, or None.

    A host name whose last label is a number (``2130706433``, ``0x7f.1``) is refused: URL parsers read it as an IP
    address that nobody published.
    """
    for address in gateway.status.addresses:
        value = address.value.strip().rstrip(".")
        try:
            parsed = ipaddress.ip_address(value)
        except ValueError:
            if _is_host_name(value):
                return value
        else:
            return f"[{value}]" if parsed.version == 6 else value
    return None


def _is_host_name(value: str) -> bool:
    labels = value.split(".")
    if len(value) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        return False
    return not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1])


async def find_gateway_url(kube: KubeClient, name: str, namespace: str, *, scheme: str, timeout: float) -> str:
    """Wait for the Gateway's address.

    Args:
        kube: the cluster.
        name: the Gateway.
        namespace: its namespace.
        scheme: ``http`` or ``https``.
        timeout: seconds.

    Raises:
        GatewayTimeoutError: no address came; the message says what was seen.
        SandboxError: the API server refuses.
    """
    seen = "it does not exist"
    with anyio.move_on_after(timeout):
        while True:
            try:
                found = await kube.list(GATEWAYS, namespace, field_selector=f"metadata.name={name}")
                if found.items:
                    seen = "it has no usable address"
                for gateway in found.items:
                    if (host := gateway_host(gateway)) is not None:
                        return f"{scheme}://{host}"
                host = await _watch(kube, name, namespace, found.resource_version)
                if host is not None:
                    return f"{scheme}://{host}"
            except (GoneError, TransportError, ServerError, TooManyRequestsError):
                await anyio.sleep(_PAUSE)
            except KubeError as error:
                raise explain(error, f"looking for Gateway {namespace}/{name}") from error
    raise GatewayTimeoutError(
        f"Gateway {namespace}/{name} has no address after {timeout:g} s: {seen}. "
        f"Look at: kubectl describe gateway {name} -n {namespace}"
    )


async def _watch(kube: KubeClient, name: str, namespace: str, resource_version: str) -> str | None:
    async with kube.watch(
        GATEWAYS,
        namespace,
        resource_version=resource_version,
        field_selector=f"metadata.name={name}",
        timeout_seconds=_WATCH_SECONDS,
        read_timeout=_WATCH_SECONDS + 30.0,
    ) as events:
        async for event in events:
            if event.view is not None and event.type != "DELETED" and (host := gateway_host(event.view)) is not None:
                return host
    return None
