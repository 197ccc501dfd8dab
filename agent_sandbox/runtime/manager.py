"""The process around controllers: starts everything in order, leads or waits, and ends in order.

In: a client and controllers. Out: a running operator with caches, an election, metrics and health. The parts it starts
are each in a room of their own; here is only their order.
"""

import gc
import random
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.abc
import structlog
from aiohttp import web

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime.cache import Cache
from agent_sandbox.runtime.cached_client import CachedClient
from agent_sandbox.runtime.certificates import CertificateFiles, CertificateWatcher
from agent_sandbox.runtime.controller import BoundController, Controller
from agent_sandbox.runtime.errors import LeadershipLostError
from agent_sandbox.runtime.events import EventRecorder
from agent_sandbox.runtime.fence import Fence, FencedTransport
from agent_sandbox.runtime.introspection import add_introspection
from agent_sandbox.runtime.leader_election import LeaderElectionOptions, LeaderElector
from agent_sandbox.runtime.lifecycle import Lifecycle, Runnable
from agent_sandbox.runtime.loop_lag import LoopLag
from agent_sandbox.runtime.metered import MeteredTransport
from agent_sandbox.runtime.metrics import Metrics
from agent_sandbox.runtime.metrics_auth import KubernetesAuthorizer
from agent_sandbox.runtime.server import Address, Check, HttpServer, add_health, add_metrics
from agent_sandbox.runtime.watcher import WatchOptions

log = structlog.get_logger(__name__)

GC_THRESHOLDS: Final = (50_000, 20, 50)
"""Collector thresholds for a large, long-lived cache; the defaults cost up to three times the decoding itself."""


@dataclass(frozen=True, kw_only=True)
class ManagerOptions:
    """How a manager runs; defaults are controller-runtime's unless said otherwise.

    Attributes:
        component: who writes events and Leases, for people.
        namespaces: follow and act in these namespaces only; None means the whole cluster.
        leader_election: the election; None runs without, for one replica only.
        metrics_address: ``host:port`` of /metrics, for example ``:8080``; empty serves none. Controller-runtime's
            default is ``:8080``, a library should open no port unasked.
        health_address: ``host:port`` of /healthz and /readyz; may be the same.
        metrics_certificate: serve the metrics address by TLS with this pair, reloaded when it changes.
        metrics_authorization: ask Kubernetes who may scrape, see ``metrics_auth``; everybody may by default.
        introspection: serve /debug/tasks, /debug/queues and /debug/caches on the health address. Off: it tells names.
        cache_sync_timeout: seconds until unfilled caches are a failure, 120.
        grace: seconds for the whole orderly stop, 30. Kubernetes kills a Pod 30 s after asking it to end, so set
            terminationGracePeriodSeconds a little above.
        tune_garbage_collector: freeze what the caches hold and raise the thresholds after the first sync. For a
            process of its own; off by default because it concerns the whole interpreter.
        watch: how the caches talk to the server.
    """

    component: str = "agent-sandbox"
    namespaces: Collection[str] | None = None
    leader_election: LeaderElectionOptions | None = None
    metrics_address: str = ""
    health_address: str = ""
    metrics_certificate: CertificateFiles | None = None
    metrics_authorization: bool = False
    introspection: bool = False
    cache_sync_timeout: float = 120.0
    grace: float = 30.0
    tune_garbage_collector: bool = False
    watch: WatchOptions = field(default_factory=WatchOptions)

    def __post_init__(self) -> None:
        """Refuse what would fail at the start.

        Raises:
            ValueError: an address is none.
        """
        for address in (self.metrics_address, self.health_address):
            if address:
                Address.parse(address)


class Manager:
    """Runs controllers.

    Flow:
        servers → caches, until synced → runnables → election, until this process leads → leader runnables and
        controllers → (stop) → the same in reverse, the Lease last but for the caches and servers.
    Guarantees:
        No controller works before every cache is filled. Every write of ``client`` passes the fence: none leaves a
        process that does not lead. A standby has its caches filled. The end comes within ``grace`` seconds and a
        little.
    Assumptions:
        One event loop, nothing that blocks it. Code under ``run`` lets cancellation pass.
    Caveats:
        Without ``leader_election`` two replicas both work.
    Errors:
        ``run`` raises what made it end: ``CacheSyncError``, ``LeadershipLostError``, ``OSError`` for an address in
        use, or a runnable's own exception. A reconciler's exceptions never end it.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        clock: Clock | None = None,
        options: ManagerOptions | None = None,
        random: random.Random | None = None,
    ) -> None:
        self.options = options or ManagerOptions()
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics()
        self.registry = self.metrics.registry
        self.health_checks: dict[str, Check] = {"ping": lambda: None}
        self.readiness_checks: dict[str, Check] = {"caches": self._caches_problem}
        self._random = random or _system_random()
        self._base = client.with_transport(MeteredTransport(client.transport, self.metrics, clock=self.clock))
        self.cache = Cache(
            self._base,
            clock=self.clock,
            random=self._random,
            namespaces=self.options.namespaces,
            watch=self.options.watch,
            metrics=self.metrics,
        )
        self._fence = Fence(clock=self.clock)
        self._elector = self._make_elector()
        if self._elector is None:
            self._fence.open_until(float("inf"))
        self.client = CachedClient(
            self._base.with_transport(FencedTransport(self._base.transport, self._fence)), self.cache
        )
        self.events = EventRecorder(
            self.client,
            component=self.options.component,
            instance=self._elector.identity if self._elector else self.options.component,
            clock=self.clock,
            random=self._random,
        )
        self._controllers: dict[str, BoundController] = {}
        self._runnables: list[tuple[str, Runnable, bool]] = []
        self._servers: list[HttpServer] = []
        self._is_running = False

    # Building

    def add(self, controller: Controller) -> None:
        """Run this controller, in the process that leads.

        Raises:
            ValueError: there is a controller of that name, or none that it yields to.
            RuntimeError: the manager runs already.
        """
        if self._is_running:
            raise RuntimeError(f"controller {controller.name!r} is added too late: run() has filled the caches")
        if controller.name in self._controllers:
            raise ValueError(f"there is a controller {controller.name!r} already: its metrics would be mixed up")
        if missing := set(controller.yields_to) - set(self._controllers):
            raise ValueError(f"controller {controller.name!r} yields to {sorted(missing)}: add these before it")
        self._controllers[controller.name] = controller.bind(
            self.cache,
            clock=self.clock,
            random=self._random,
            metrics=self.metrics,
            ahead=[self._controllers[name].queue for name in controller.yields_to],
        )

    def add_runnable(self, name: str, runnable: Runnable, *, needs_leadership: bool = True) -> None:
        """Run something else: after the caches, and if ``needs_leadership`` only in the process that leads."""
        self._runnables.append((name, runnable, needs_leadership))

    @property
    def is_leader(self) -> bool:
        """True while this process may write."""
        return self._fence.is_open

    @property
    def ports(self) -> list[int]:
        """The ports that are served, once running; for addresses with port 0."""
        return [server.port for server in self._servers]

    # Running

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; ready when everything that may run now runs (a standby is ready as a standby)."""
        self._is_running = True
        stop = anyio.Event()
        failures: list[BaseException] = []
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._run_shielded, stop, failures, task_status, outer.cancel_scope, name="manager")
            try:
                await anyio.sleep_forever()
            finally:
                stop.set()
        if failures:
            raise failures[0]

    async def _run_shielded(
        self,
        stop: anyio.Event,
        failures: list[BaseException],
        task_status: anyio.abc.TaskStatus[None],
        outer: anyio.CancelScope,
    ) -> None:
        """Everything happens behind this shield: a cancellation from outside asks for the end, it does not tear."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                life = Lifecycle(tasks)
                tasks.start_soon(_forward, stop, life.stopping, name="manager stop")
                try:
                    async with anyio.create_task_group() as body:
                        body.start_soon(_cancel_after, life.stopping, body.cancel_scope, name="manager watch")
                        body.start_soon(self._start_all, life, task_status, name="manager start")
                finally:
                    stop.set()
                    grace = 0.0 if isinstance(life.failure, LeadershipLostError) else self.options.grace
                    await life.stop_all(grace)
                if life.failure is not None:
                    failures.append(life.failure)
        outer.cancel()

    async def _start_all(self, life: Lifecycle, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            await self._start_servers(life)
            await life.start("caches", self.cache.run)
            await self.cache.wait_until_synced(self.options.cache_sync_timeout)
            self._tune_garbage_collector()
            await self._start_runnables(life, needs_leadership=False)
            if self._elector is not None:
                task_status.started()
                await self._win(life, self._elector)
            # Stopped before the Lease is released: what controllers had to tell is still written.
            await life.start("events", self.events.run, stop=self.events.flush, waits_until_ready=False)
            await self._start_runnables(life, needs_leadership=True)
            await life.start("controllers", self._run_controllers, stop=self._stop_controllers)
            if self._elector is None:
                task_status.started()
        except Exception as error:
            life.fail(error)

    async def _start_servers(self, life: Lifecycle) -> None:
        if self.options.metrics_address:
            await life.start("loop lag", LoopLag(self.metrics, clock=self.clock).run, waits_until_ready=False)
        for address, app in self._applications().items():
            tls = await self._start_certificate(life) if address == self.options.metrics_address else None
            server = HttpServer(address, app, tls=tls)
            self._servers.append(server)
            await life.start(f"server {address}", server.run)

    async def _start_certificate(self, life: Lifecycle) -> ssl.SSLContext | None:
        if self.options.metrics_certificate is None:
            return None
        watcher = CertificateWatcher(self.options.metrics_certificate, clock=self.clock, metrics=self.metrics)
        await watcher.load()
        await life.start("metrics certificate", watcher.run)
        return watcher.context

    async def _start_runnables(self, life: Lifecycle, *, needs_leadership: bool) -> None:
        for name, runnable, needs in self._runnables:
            if needs == needs_leadership:
                await life.start(name, runnable.run)

    async def _run_controllers(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with anyio.create_task_group() as tasks:
            for controller in self._controllers.values():
                await tasks.start(controller.run, name=controller.name)
            task_status.started()

    async def _stop_controllers(self) -> None:
        """All take no new keys from now on, and have what they hold finished."""
        for controller in self._controllers.values():
            controller.queue.shut_down()
        for controller in self._controllers.values():
            await controller.queue.wait_until_idle()

    async def _win(self, life: Lifecycle, elector: LeaderElector) -> None:
        gauge = self.metrics.leader.labels(elector.name)
        gauge.set_function(lambda: float(elector.is_leader))
        await elector.acquire()
        await life.start("leader election", elector.lead, waits_until_ready=False)

    def _tune_garbage_collector(self) -> None:
        if self.options.tune_garbage_collector:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)

    # What is served

    def _applications(self) -> dict[str, web.Application]:
        apps: dict[str, web.Application] = {}
        if self.options.metrics_address:
            app = apps.setdefault(self.options.metrics_address, web.Application())
            authorization = self.options.metrics_authorization
            authorizer = KubernetesAuthorizer(self._base, clock=self.clock) if authorization else None
            add_metrics(app, self.registry, authorizer)
        if self.options.health_address:
            app = apps.setdefault(self.options.health_address, web.Application())
            add_health(app, "/healthz", self.health_checks, {})
            add_health(app, "/readyz", self.readiness_checks, {"leader": self._leader_fact})
            if self.options.introspection:
                add_introspection(app, self.describe)
        return apps

    def _caches_problem(self) -> str | None:
        missing = [str(informer.resource) for informer in self.cache.informers if not informer.is_synced]
        return f"not filled yet: {', '.join(missing)}" if missing else None

    def _leader_fact(self) -> str:
        if self._elector is None:
            return "no election"
        return f"{'leading' if self._elector.is_leader else 'standby'} as {self._elector.identity}"

    def _make_elector(self) -> LeaderElector | None:
        options = self.options.leader_election
        if options is None:
            return None
        return LeaderElector(self._base, options, self._fence, clock=self.clock, random=self._random)

    def describe(self) -> dict[str, Any]:
        """Sizes of queues and caches, for /debug and tests."""
        return {
            "queues": {
                name: {
                    "ready": len(bound.queue),
                    "delayed": bound.queue.delayed,
                    "in_work": sorted(map(str, bound.queue.in_work)),
                }
                for name, bound in self._controllers.items()
            },
            "caches": [
                {
                    "resource": str(informer.resource),
                    "objects": len(informer.store),
                    "synced": informer.is_synced,
                    "states": [type(state).__name__ for state in informer.states],
                    "progress": informer.progress,
                }
                for informer in self.cache.informers
            ],
        }


async def _forward(cause: anyio.Event, effect: anyio.Event) -> None:
    await cause.wait()
    effect.set()


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _system_random() -> random.Random:
    return random.Random()  # noqa: S311 - spreads load, guards nothing
