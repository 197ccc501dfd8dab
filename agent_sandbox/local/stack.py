"""The local stack: API server, node, router and controllers in one process, started in order and stopped in reverse.

In: a state directory and ports. Out: a running stack and its record, by which clients find it. The controllers come
from the caller, because this room does not know them.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube import AlreadyExistsError, KubeClient
from agent_sandbox.local.apiserver import ApiServer, ObjectStore
from agent_sandbox.local.apiserver.in_process import InProcessTransport
from agent_sandbox.local.apiserver.site import ApiServerSite, PortTakenError
from agent_sandbox.local.apiserver.site.credentials import write_private
from agent_sandbox.local.apiserver.storage.sqlite import SqliteJournal
from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.errors import PortInUseError
from agent_sandbox.local.node import Node, NodeOptions
from agent_sandbox.local.own_log import keep_bounded
from agent_sandbox.local.state import LOCAL_DOMAIN, Endpoint, StackRecord
from agent_sandbox.router import Directory, Router, RouterOptions, serve
from agent_sandbox.runtime import Cache
from agent_sandbox_api.core import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, MetaOnlyView
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.names import SYSTEM_NAMESPACE
from agent_sandbox_api.resource import Resource

log = structlog.get_logger(__name__)

_FIELD_MANAGER: Final = "agent-sandbox-local"


class RunControllers(Protocol):
    """Runs the controllers against this client until cancelled; ready when they work."""

    async def __call__(self, client: KubeClient, *, task_status: anyio.abc.TaskStatus[None]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """What a stack is started with.

    Attributes:
        directory: where it keeps everything.
        api_port: port of the API server on 127.0.0.1; 0 takes a free one.
        router_port: port of the router on 127.0.0.1; 0 takes a free one.
        unisolated: run Pods as ordinary processes. Only where the user said so.
        router_metrics_port: port of the router's /metrics on 127.0.0.1; None serves none.
        survival: seconds that Pods outlive a killed stack, waiting for the next one; 0: not at all.
    """

    directory: StateDirectory
    api_port: int = 7443
    router_port: int = 7080
    unisolated: bool = False
    router_metrics_port: int | None = None
    survival: float = 300.0


async def run_stack(
    options: StackOptions,
    *,
    run_controllers: RunControllers,
    on_ready: Callable[[StackRecord], None],
    clock: Clock | None = None,
) -> None:
    """Run a stack until cancelled.

    Raises:
        StackRunningError: another stack owns the directory.
        PortInUseError: somebody listens on one of the ports.
        IsolationError: this machine does not isolate Pods, and `unisolated` was not said.
    """
    with options.directory.owned():
        await _Stack(options, clock or SystemClock()).run(run_controllers, on_ready)


class _Stack:
    """The parts of one stack. Order: API server, node, router, controllers, record; the end is the reverse."""

    def __init__(self, options: StackOptions, clock: Clock) -> None:
        self._options = options
        self._directory = options.directory
        self._clock = clock
        journal = SqliteJournal(self._directory.database)
        self._server = ApiServer(ObjectStore(journal), clock=clock)

    def _client(self, field_manager: str) -> KubeClient:
        return KubeClient(InProcessTransport(self._server), field_manager=field_manager, clock=self._clock)

    async def run(self, run_controllers: RunControllers, on_ready: Callable[[StackRecord], None]) -> None:
        node = Node(
            self._client("kubelet"),
            clock=self._clock,
            state_dir=self._directory.node,
            options=NodeOptions(unisolated=self._options.unisolated, survival=self._options.survival),
        )
        await self._server.open()
        try:
            async with anyio.create_task_group() as servers:
                await servers.start(self._server.run, name="API server")
                await self._install()
                async with self._site() as site, anyio.create_task_group() as parts:
                    parts.start_soon(keep_bounded, self._directory.log, self._clock, name="own log")
                    await parts.start(node.run, name="node")
                    self._offer(node)
                    router_url = await self._start_router(parts, node)
                    await parts.start(partial(run_controllers, self._client("agent-sandbox-controller")))
                    await self._announce(site, router_url, on_ready)
                servers.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._server.aclose()

    def _offer(self, node: Node) -> None:
        offered = self._server.providers
        offered.log = node.providers.log
        offered.exec = node.providers.exec
        offered.attach = node.providers.attach
        offered.port_forward = node.providers.port_forward

    async def _install(self) -> None:
        """Bring the namespace of the system and the CRDs; those of an earlier version are replaced."""
        client = self._client(_FIELD_MANAGER)
        await _ensure(client, NAMESPACES, {"metadata": {"name": SYSTEM_NAMESPACE}})
        for crd in load_crds():
            await _ensure(client, CUSTOM_RESOURCE_DEFINITIONS, crd)

    @asynccontextmanager
    async def _site(self) -> AsyncIterator[ApiServerSite]:
        port = self._options.api_port
        site = await ApiServerSite.prepare(self._server, self._directory.credentials, port=port)
        async with AsyncExitStack() as exits:
            try:
                await exits.enter_async_context(site)
            except PortTakenError as error:
                raise PortInUseError("the API server", port, "--api-port") from error
            yield site

    async def _start_router(self, parts: anyio.abc.TaskGroup, node: Node) -> str:
        token_file = self._directory.router_token
        if not token_file.exists():
            await anyio.to_thread.run_sync(write_private, token_file, secrets.token_urlsafe(32).encode())
        client = self._client("sandbox-router")
        cache = Cache(client, clock=self._clock)
        directory = Directory()
        directory.follow(cache)
        router = Router(
            directory,
            options=RouterOptions(
                port=self._options.router_port,
                domain=LOCAL_DOMAIN,
                token_file=token_file,
                drain_timeout=2.0,
                control_port=self._options.router_metrics_port,
            ),
            socket_factory=node.network.socket_factory,
            kube=client,
        )
        try:
            url: str = await parts.start(serve, router, cache, name="router")
        except OSError as error:
            raise PortInUseError("the router", self._options.router_port, "--router-port") from error
        return url

    async def _announce(self, site: ApiServerSite, router_url: str, on_ready: Callable[[StackRecord], None]) -> None:
        credentials = site.credentials
        record = StackRecord.of_this_process(
            started=datetime.now(UTC),
            api=Endpoint(site.url, token_file=credentials.token_file, ca_file=credentials.ca_file),
            router=Endpoint(router_url, token_file=self._directory.router_token),
            kubeconfig=credentials.kubeconfig_file,
        )
        await anyio.to_thread.run_sync(record.write, self._directory.root)
        try:
            log.info("ready", api=site.url, router=router_url, state=str(self._directory.root))
            on_ready(record)
            await anyio.sleep_forever()
        finally:
            record.remove(self._directory.root)


async def _ensure(client: KubeClient, resource: Resource[MetaOnlyView], manifest: dict[str, Any]) -> None:
    """Create a cluster-wide object, or give an existing one the wanted spec if it has another."""
    try:
        await client.create(resource, manifest)
    except AlreadyExistsError:
        present = await client.get_object(resource, manifest["metadata"]["name"])
        if "spec" in manifest and present["spec"] != manifest["spec"]:
            await client.update(resource, {**present, "spec": manifest["spec"]})
