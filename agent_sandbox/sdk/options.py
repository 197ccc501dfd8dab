"""Everything that can be said about how a client reaches its cluster and its sandboxes."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import aiohttp

from agent_sandbox.kube import KubeClient
from agent_sandbox.sdk.errors import SandboxConfigError
from agent_sandbox_api.names import RUNTIME_PORT, SYSTEM_NAMESPACE

ROUTER_TOKEN_VARIABLE: Final = "AGENT_SANDBOX_ROUTER_TOKEN"  # noqa: S105 - its name
ROUTER_TOKEN_FILE_VARIABLE: Final = "AGENT_SANDBOX_ROUTER_TOKEN_FILE"  # noqa: S105 - its name
ACCESS_KEY_FILE_VARIABLE: Final = "AGENT_SANDBOX_ACCESS_KEY_FILE"

Mode = Literal["auto", "local", "direct", "gateway", "tunnel", "in-cluster", "pod"]
"""The way to sandboxes.

``auto``: the first that fits of ``direct`` (``api_url`` given), ``gateway`` (``gateway_name`` given), ``local`` (the
cluster is the local stack), ``in-cluster`` (this process runs in a Pod), ``tunnel``.
``local``: the router of ``agent-sandbox local up``.
``direct``: the router at ``api_url``.
``gateway``: the address of a Gateway API object.
``tunnel``: a port-forward to the router through the API server.
``in-cluster``: the router's Service by its DNS name.
``pod``: the Pod's own address, without a router. The network policy must allow it; the default one does not.
"""


@dataclass(frozen=True)
class ConnectionOptions:
    """How to reach the cluster and its sandboxes. Every default works for a laptop and for a Pod.

    Attributes:
        mode: the way to sandboxes, see ``Mode``.
        api_url: base URL of a router, for ``direct``.
        gateway_name: name of the Gateway, for ``gateway``.
        gateway_namespace: its namespace.
        gateway_scheme: ``http`` or ``https``; upstream's Gateway has an http listener.
        gateway_ready_timeout: seconds to wait for the Gateway's address.
        port_forward_ready_timeout: seconds to wait for the tunnel to carry bytes.
        server_port: port of the runtime inside the sandbox.
        router_namespace: where the router's Service is, for ``tunnel`` and ``in-cluster``.
        namespace: namespace of the sandboxes; ``tunnel`` looks there too for a router, as the Go project's client did.
        router_token: the router's credential. Unset: the local stack's own, else ``AGENT_SANDBOX_ROUTER_TOKEN`` or the
            file in ``AGENT_SANDBOX_ROUTER_TOKEN_FILE``, else the client signs tokens with its access key.
        access_key_file: file with the client's access key, made if it is missing. Unset:
            ``AGENT_SANDBOX_ACCESS_KEY_FILE``, else ``~/.config/agent-sandbox/access.key``, else a key in memory.
            Programs that share it share their sandboxes.
        router_service_account: for a router that takes Kubernetes tokens only: the account (``name``, or
            ``namespace/name``) to ask a token for. Unset: the account that this program is.
        router_domain: domain under which the router serves ``<port>-<sandbox>-<namespace>.<domain>``, for links to
            browsers; a port that is not the scheme's own goes with it. Unset: links have paths.
        kube: a client of the API server to use and to leave open; the four below are ignored then.
        kubeconfig: path of a kubeconfig. Unset: see ``choose_cluster``.
        context: context in it; the current one if unset.
        local: True uses the local stack, and nothing else will do; None uses it if it runs and nothing is configured.
        state_dir: state directory of the local stack; the default one if unset.
        headers: sent with each request to a sandbox, for example an Authorization of the program there.
        tls: trust and client certificate for https to the router.
        proxy: URL of an HTTP proxy on the way to the router.
        trust_env: take the proxy from ``HTTP_PROXY`` and its kin.
        session: an aiohttp session to use and to leave open; not for ``tunnel``, which needs a connector of its own.
    """

    mode: Mode = "auto"
    api_url: str | None = None
    gateway_name: str | None = None
    gateway_namespace: str = "default"
    gateway_scheme: Literal["http", "https"] = "http"
    gateway_ready_timeout: float = 180
    port_forward_ready_timeout: float = 30
    server_port: int = RUNTIME_PORT
    router_namespace: str = SYSTEM_NAMESPACE
    namespace: str = "default"
    router_token: str | None = field(default=None, repr=False)
    access_key_file: str | Path | None = None
    router_service_account: str | None = None
    router_domain: str | None = None
    kube: KubeClient | None = None
    kubeconfig: str | Path | None = None
    context: str | None = None
    local: bool | None = None
    state_dir: str | Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None
    proxy: str | None = None
    trust_env: bool = False
    session: aiohttp.ClientSession | None = None


def check_options(options: ConnectionOptions) -> None:
    """Refuse at once what could only fail later, at each request.

    Raises:
        SandboxConfigError: a mode that does not exist, or a port that cannot.
    """
    if options.mode not in get_args(Mode):
        raise SandboxConfigError(f"there is no mode {options.mode!r}; there are {', '.join(get_args(Mode))}")
    if not 0 < options.server_port < 65536:
        raise SandboxConfigError(f"server_port is {options.server_port}; ports go from 1 to 65535")


__all__ = ["ROUTER_TOKEN_FILE_VARIABLE", "ROUTER_TOKEN_VARIABLE", "ConnectionOptions", "Mode", "check_options"]
