"""An open way to one cluster and to the sandboxes in it, shared by all handles of a client."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from agent_sandbox.kube import KubeClient
from agent_sandbox.sdk.cluster import GivenClient, choose_cluster, connect_cluster
from agent_sandbox.sdk.credentials import Credentials
from agent_sandbox.sdk.lifetime import ServerClock
from agent_sandbox.sdk.options import ConnectionOptions, check_options
from agent_sandbox.sdk.routes import RouterRoute, open_route
from agent_sandbox.sdk.signals import termination_guard
from agent_sandbox.sdk.wire import Route


@dataclass(frozen=True)
class Connection:
    """What handles need.

    Attributes:
        kube: the API server.
        route: the way to sandboxes.
        base_url: the router's URL; None if there is no router on the way.
        server_port: port of the runtime in the sandboxes.
        server_clock: the API server's clock.
        credentials: what the router is shown; None if there is no router on the way.
    """

    kube: KubeClient
    route: Route
    base_url: str | None
    server_port: int
    server_clock: ServerClock
    credentials: Credentials | None = None

    async def now(self) -> datetime:
        """The API server's time."""
        return await self.server_clock.now()

    def local_now(self) -> datetime:
        """This machine's time."""
        return datetime.now(UTC)


@asynccontextmanager
async def open_connection(options: ConnectionOptions) -> AsyncIterator[Connection]:
    """Connect, and close on the way out what was opened here.

    Raises:
        SandboxError: the options do not lead to a cluster, or the way to sandboxes cannot be opened.
    """
    check_options(options)
    cluster = choose_cluster(options)
    async with AsyncExitStack() as stack:
        # From before the first claim is written: SIGTERM while a sandbox is waited for must unwind as well.
        stack.callback(termination_guard.hold().release)
        kube = await connect_cluster(cluster)
        if not isinstance(cluster, GivenClient):
            stack.push_async_callback(kube.aclose)
        clock = ServerClock(kube)
        route, base_url = await stack.enter_async_context(open_route(options, cluster, kube, clock))
        credentials = route.credentials if isinstance(route, RouterRoute) else None
        yield Connection(kube, route, base_url, options.server_port, clock, credentials)
