"""The ways to sandboxes: through a router that some mode leads to, or straight to the Pod.

In: a mode and a connected cluster. Out: a ``Route``, which is all that the rest of the SDK knows about modes; this is
why the mode never changes what the methods do.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiohttp
from yarl import URL

from agent_sandbox.kube import KubeClient
from agent_sandbox.local.state import LOCAL_DOMAIN, StackRecord
from agent_sandbox.sdk.cluster import ClusterChoice, ConfiguredCluster, LocalStack
from agent_sandbox.sdk.credentials import Credentials
from agent_sandbox.sdk.errors import SandboxConfigError, SandboxNotReadyError
from agent_sandbox.sdk.gateway import find_gateway_url
from agent_sandbox.sdk.lifetime import ServerClock
from agent_sandbox.sdk.options import (
    ROUTER_TOKEN_FILE_VARIABLE,
    ROUTER_TOKEN_VARIABLE,
    ConnectionOptions,
    Mode,
)
from agent_sandbox.sdk.wire import Route, Target, close_websockets
from agent_sandbox_api.names import (
    HEADER_SANDBOX_AUTHORIZATION,
    HEADER_SANDBOX_ID,
    HEADER_SANDBOX_NAMESPACE,
    HEADER_SANDBOX_PORT,
    ROUTER_PORT,
    ROUTER_SERVICE,
)


@dataclass(frozen=True)
class RouterRoute:
    """Through a router: three headers name the sandbox, one brings the credential.

    Attributes:
        domain: where the router serves sandboxes by host, with its port if that is not the scheme's own.
        tunnelled: whether only this process reaches the router this way.
    """

    session: aiohttp.ClientSession
    url: str
    constant_headers: Mapping[str, str]
    credentials: Credentials | None = None
    domain: str | None = None
    tunnelled: bool = False
    sockets: WeakSet[aiohttp.ClientWebSocketResponse] = field(default_factory=WeakSet, compare=False)

    def base_url(self, target: Target, port: int) -> str:
        """The router's URL."""
        return self.url

    def headers(self, target: Target, port: int) -> Mapping[str, str]:
        """The sandbox, its namespace and the port, beside the constant ones."""
        authorization = self.credentials.authorization(target) if self.credentials is not None else None
        return {**self.constant_headers, **self.headers_with(target, port, authorization)}

    def headers_with(self, target: Target, port: int, authorization: str | None) -> Mapping[str, str]:
        """What names the sandbox and brings that credential."""
        headers = {
            HEADER_SANDBOX_ID: target.sandbox_name,
            HEADER_SANDBOX_NAMESPACE: target.namespace,
            HEADER_SANDBOX_PORT: str(port),
        }
        return headers if authorization is None else {**headers, HEADER_SANDBOX_AUTHORIZATION: authorization}

    def browser_front(self, target: Target, port: int, *, prefixed: bool) -> str:
        """What a browser's address of a port of the sandbox begins with.

        Args:
            prefixed: the program there knows under which path it is served.

        Raises:
            SandboxConfigError: no browser can reach the router as this client does.
        """
        label = f"{port}-{target.claim_name}-{target.namespace}"
        if self.domain is not None and not prefixed and len(label) <= 63 and "." not in label:
            return f"{URL(self.url).scheme}://{label}.{self.domain}"
        if self.tunnelled:
            raise SandboxConfigError(
                "a browser cannot go through this client's tunnel: give router_domain, or use ports.forward()"
            )
        way = "prefixed" if prefixed else "sandboxes"
        return f"{self.url}/{way}/{target.namespace}/{target.claim_name}/{port}"

    async def renew(self) -> bool:
        """Another credential, if there is one."""
        return self.credentials is not None and await self.credentials.renew()


@dataclass(frozen=True)
class PodRoute:
    """Straight to the Pod's address."""

    session: aiohttp.ClientSession
    constant_headers: Mapping[str, str]
    sockets: WeakSet[aiohttp.ClientWebSocketResponse] = field(default_factory=WeakSet, compare=False)

    def base_url(self, target: Target, port: int) -> str:
        """The Pod's URL.

        Raises:
            SandboxNotReadyError: the sandbox has no Pod at present.
        """
        if not target.pod_ips:
            raise SandboxNotReadyError(
                f"sandbox {target.namespace}/{target.sandbox_name} has no Pod address: wait until it is ready"
            )
        # IPv4 first, as every cluster has it; a dual-stack Pod answers on both.
        address = next((ip for ip in target.pod_ips if ":" not in ip), f"[{target.pod_ips[0]}]")
        return f"http://{address}:{port}"

    def headers(self, target: Target, port: int) -> Mapping[str, str]:
        """The constant headers."""
        return self.constant_headers

    async def renew(self) -> bool:
        """There is no router, and no credential."""
        return False


def choose_mode(options: ConnectionOptions, cluster: ClusterChoice) -> Mode:
    """What ``auto`` means here; any other mode is returned as it is.

    Raises:
        SandboxConfigError: the mode lacks what it needs.
    """
    mode = options.mode
    if mode == "auto":
        if options.api_url is not None:
            mode = "direct"
        elif options.gateway_name is not None:
            mode = "gateway"
        elif isinstance(cluster, LocalStack):
            mode = "local"
        elif isinstance(cluster, ConfiguredCluster) and cluster.inside:
            mode = "in-cluster"
        else:
            mode = "tunnel"
    needs = {"direct": ("api_url", options.api_url), "gateway": ("gateway_name", options.gateway_name)}
    name, value = needs.get(mode, ("", ""))
    if value is None:
        raise SandboxConfigError(f"mode {mode!r} needs {name}")
    if mode == "local" and not isinstance(cluster, LocalStack):
        raise SandboxConfigError(
            "mode 'local' goes with the local stack's own cluster: leave kube and kubeconfig unset"
        )
    return mode


@asynccontextmanager
async def open_route(
    options: ConnectionOptions, cluster: ClusterChoice, kube: KubeClient, clock: ServerClock
) -> AsyncIterator[tuple[Route, str | None]]:
    """Open the way to sandboxes; gives the route and, where there is one, the router's base URL.

    Raises:
        SandboxConfigError, GatewayTimeoutError, SandboxPortForwardError: the mode cannot be had.
    """
    mode = choose_mode(options, cluster)
    async with AsyncExitStack() as stack:
        if mode == "tunnel":
            if options.session is not None:
                raise SandboxConfigError("mode 'tunnel' makes its own connections: leave session unset")
            from agent_sandbox.sdk.tunnel import open_tunnel

            connector = await stack.enter_async_context(open_tunnel(kube, options))
            session = await stack.enter_async_context(make_session(options, connector=connector))
            url = f"http://{ROUTER_SERVICE}.{options.router_namespace}"
        else:
            given = options.session
            session = given if given is not None else await stack.enter_async_context(make_session(options))
            if mode == "pod":
                direct = PodRoute(session, dict(options.headers))
                stack.push_async_callback(close_websockets, direct.sockets)
                yield direct, None
                return
            url = await _router_url(mode, options, cluster, kube)
        record = cluster.record if isinstance(cluster, LocalStack) and mode == "local" else None
        credentials = Credentials(kube, options, clock, given=_given_token(options, record))
        domain = options.router_domain
        if domain is None and record is not None:
            domain = f"{LOCAL_DOMAIN}:{URL(url).port}"
        route = RouterRoute(
            session, check_url(url), dict(options.headers), credentials, domain=domain, tunnelled=mode == "tunnel"
        )
        stack.push_async_callback(close_websockets, route.sockets)
        yield route, url


async def _router_url(mode: Mode, options: ConnectionOptions, cluster: ClusterChoice, kube: KubeClient) -> str:
    if mode == "local" and isinstance(cluster, LocalStack):
        return cluster.record.router.url
    if mode == "direct" and options.api_url is not None:
        return options.api_url
    if mode == "gateway" and options.gateway_name is not None:
        return await find_gateway_url(
            kube,
            options.gateway_name,
            options.gateway_namespace,
            scheme=options.gateway_scheme,
            timeout=options.gateway_ready_timeout,
        )
    return f"http://{ROUTER_SERVICE}.{options.router_namespace}.svc:{ROUTER_PORT}"


def check_url(url: str) -> str:
    """The URL without trailing slashes.

    Raises:
        SandboxConfigError: it is no http or https URL.
    """
    try:
        parsed = URL(url)
    except ValueError as error:
        raise SandboxConfigError(f"api_url {url!r} is no URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise SandboxConfigError(f"api_url {url!r} is no http or https URL, for example http://router.example:8080")
    return url.rstrip("/")


def make_session(options: ConnectionOptions, **more: Any) -> aiohttp.ClientSession:
    """A session that keeps the promises of ``Wire``; the caller closes it."""
    if "connector" not in more:
        # No limit: a sandbox may run as many commands at once as its agent wants, and each holds a connection.
        more["connector"] = aiohttp.TCPConnector(limit=0, ssl=options.tls if options.tls is not None else True)
    session = aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),  # sandboxes share a host name here and must not share cookies
        trust_env=options.trust_env,
        proxy=options.proxy,
        headers={"User-Agent": "agent-sandbox-python"},
        **more,
    )
    # aiohttp sends PUT and DELETE a second time when a kept connection breaks under them; here nothing is sent twice.
    session._retry_connection = False  # noqa: SLF001 - there is no public switch
    return session


def _given_token(options: ConnectionOptions, record: StackRecord | None) -> str | None:
    return options.router_token or (_local_token(record) if record is not None else _environment_token())


def _local_token(record: StackRecord) -> str | None:
    try:
        return record.router.read_token()
    except OSError as error:
        raise SandboxConfigError(f"the router's token cannot be read: {error}") from error


def _environment_token() -> str | None:
    if token := os.environ.get(ROUTER_TOKEN_VARIABLE):
        return token
    file = os.environ.get(ROUTER_TOKEN_FILE_VARIABLE)
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SandboxConfigError(f"{ROUTER_TOKEN_FILE_VARIABLE}: {error}") from error


__all__ = ["PodRoute", "RouterRoute", "check_url", "choose_mode", "open_route"]
