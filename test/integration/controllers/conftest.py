"""A cluster for the controllers: an API server, a manager with all four, and a pretended kubelet.

``House`` is what tests talk to. The tests run on the embedded server, in memory and in virtual time. With
``KUBE_CONFORMANCE_KUBECONFIG`` naming a kubeconfig they run on that server instead, but for those marked ``embedded``,
in real time, each in a namespace of its own, where the manager has a Role with the generated rules and nothing else::

    python -m agent_sandbox.testing.run_with_kubernetes pytest test/integration/controllers
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup, TaskStatus

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube import ConflictError, KubeClient, MergePatch, NotFoundError, Transport
from agent_sandbox.runtime import Cache, Change, Manager, ManagerOptions
from agent_sandbox.testing import FaultyTransport, InMemoryApiServer, VirtualClock, VirtualTimeLoop
from agent_sandbox.testing.clock import RealTimeLoop
from agent_sandbox.testing.real_apiserver import RealApiServer
from agent_sandbox_api.core import PERSISTENT_VOLUME_CLAIMS, PODS, PodView
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, find_condition
from agent_sandbox_controllers import ControllerOptions, register, rules

KUBECONFIG = os.environ.get("KUBE_CONFORMANCE_KUBECONFIG", "")
QUIET = 2.5
"""On a real server: seconds without a write of the manager after which nothing more is expected in a test."""
SHORTEST, LONGEST = 1.5, 12.0
"""On a real server: seconds that a test lets pass at least, and at most before it listens for silence."""
SLOWEST = 120.0
"""On a real server: seconds that anything may take that takes less in virtual time. Its garbage collector looks for new
kinds every thirty."""

AGENTS = "agents.x-k8s.io/v1alpha1"
EXTENSIONS = "extensions.agents.x-k8s.io/v1alpha1"
SPEC = {"containers": [{"name": "main", "image": "python-runtime-sandbox", "ports": [{"containerPort": 8888}]}]}

VOLUME = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def sandbox(name: str = "alice", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": AGENTS,
        "kind": "Sandbox",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podTemplate": {"spec": SPEC}, **spec},
    }


def template(name: str = "python", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": EXTENSIONS,
        "kind": "SandboxTemplate",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podTemplate": {"spec": SPEC}, "service": False, **spec},
    }


def pool(name: str = "pool", replicas: int = 2, template: str = "python", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": EXTENSIONS,
        "kind": "SandboxWarmPool",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "sandboxTemplateRef": {"name": template}, **spec},
    }


def claim(name: str = "mine", template: str = "python", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": EXTENSIONS,
        "kind": "SandboxClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"sandboxTemplateRef": {"name": template}, **spec},
    }


def condition(view: Any, kind: str) -> ConditionView:
    found = find_condition(view.status.conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found


@dataclass
class Kubelet:
    """Makes Pods Ready after a while, unless a test says otherwise.

    Attributes:
        seconds: how long a Pod takes.
        answers: by Pod name, a status to report instead of Ready.
        starting: how many Pods it has heard of and not yet reported on.
    """

    client: KubeClient
    clock: Clock
    namespace: str | None = None
    seconds: float = 0.5
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    default: dict[str, Any] | None = None
    starting: int = 0
    _number: int = 0

    async def run(self) -> None:
        cache = Cache(self.client, clock=self.clock, namespaces=[self.namespace] if self.namespace else None)
        async with anyio.create_task_group() as tasks:

            def start(change: Change[PodView]) -> None:
                if change.old is None and change.new is not None:
                    self.starting += 1
                    tasks.start_soon(self._start, change.new)

            cache.informer(PODS).add_handler(start)
            await cache.run()

    async def _start(self, pod: PodView) -> None:
        await anyio.sleep(self.seconds)
        self._number += 1
        answer = self.answers.get(pod.metadata.name) or self.default
        await self.report(pod, answer or ready_status(f"10.0.{self._number // 250}.{self._number % 250 + 1}"))
        self.starting -= 1

    async def report(self, pod: PodView, status: dict[str, Any]) -> None:
        try:
            await self.client.patch(
                PODS,
                pod.metadata.name,
                MergePatch({"metadata": {"uid": pod.metadata.uid}, "status": status}),
                pod.metadata.namespace,
                subresource="status",
            )
        except (NotFoundError, ConflictError):
            return


def ready_status(ip: str) -> dict[str, Any]:
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
    }


@dataclass
class House:
    """The cluster of one test.

    Attributes:
        api: a client of the test's own, whose writes are not counted.
        wire: what the manager sends.
        kubelet: the pretended node.
        manager: runs the controllers.
        clock: virtual on the embedded server.
        namespace: where the test's objects are.
    """

    api: KubeClient
    kubelet: Kubelet
    server: Any
    options: ControllerOptions
    tasks: TaskGroup
    wrap: Callable[[Any], Transport]
    clock: Clock
    namespace: str = "default"
    wire: FaultyTransport = field(init=False)
    manager: Manager = field(init=False)
    _running: anyio.CancelScope | None = None

    @property
    def is_real(self) -> bool:
        """Whether time is real here, and a garbage collector is another process."""
        return isinstance(self.server, RealApiServer)

    def at(self, seconds: float) -> str:
        """The moment so many seconds from now, as a manifest says it."""
        return (self.clock.now() + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def start_manager(self) -> None:
        """Start the process of the controllers; a second one after ``kill_manager`` knows nothing of the first."""
        self.wire = FaultyTransport(self.wrap(self.server))
        options = ManagerOptions(namespaces=[self.namespace] if self.is_real else None)
        self.manager = Manager(KubeClient(self.wire, clock=self.clock), clock=self.clock, options=options)
        register(self.manager, self.options)
        self._running = await self.tasks.start(_run_until_killed, self.manager)

    async def kill_manager(self) -> None:
        """End the process at once, wherever it is."""
        assert self._running is not None
        self.wire.partition()
        self._running.cancel()
        await anyio.lowlevel.checkpoint()

    async def make(self, *manifests: dict[str, Any]) -> None:
        for manifest in manifests:
            await self.server.create(manifest)

    async def get(self, resource: Resource[Any], name: str, namespace: str | None = None) -> Any:
        try:
            return await self.api.get(resource, name, namespace or self.namespace)
        except NotFoundError:
            return None

    async def all(self, resource: Resource[Any], namespace: str | None = None) -> list[Any]:
        """All objects of a kind; on a real server those of the test's namespace unless another is named."""
        return (await self.api.list(resource, namespace or (self.namespace if self.is_real else None))).items

    async def edit(self, resource: Resource[Any], name: str, body: dict[str, Any], **kwargs: Any) -> Any:
        return await self.api.patch(resource, name, MergePatch(body), self.namespace, **kwargs)

    async def delete(self, resource: Resource[Any], name: str) -> None:
        view = await self.api.get(resource, name, self.namespace)
        if self.is_real and resource is PERSISTENT_VOLUME_CLAIMS:
            # A cluster's own controller would take this finalizer away; that one is not run here.
            await self.edit(resource, name, {"metadata": {"finalizers": None}})
        await self.api.delete(resource, name, self.namespace, uid=view.metadata.uid)

    async def until(self, check: Callable[[], Awaitable[Any]], within: float = 60.0) -> Any:
        """Wait until a check gives something true."""
        with anyio.fail_after(max(within, SLOWEST) if self.is_real else within):
            while not (result := await check()):  # noqa: ASYNC110 - in virtual time, or a server to ask
                await anyio.sleep(0.05)
            return result
        raise AssertionError("unreachable: fail_after raises")

    async def ready(self, resource: Resource[Any], name: str, status: str = "True", within: float = 60.0) -> Any:
        """The object, once its Ready condition has that status."""

        async def check() -> Any:
            view = await self.get(resource, name)
            condition = find_condition(view.status.conditions, "Ready") if view is not None else None
            return view if condition is not None and condition.status == status else None

        return await self.until(check, within)

    async def reason(self, resource: Resource[Any], name: str, reason: str, within: float = 60.0) -> Any:
        """The object's Ready condition, once it has that reason."""

        async def check() -> Any:
            view = await self.get(resource, name)
            condition = find_condition(view.status.conditions, "Ready") if view is not None else None
            return condition if condition is not None and condition.reason == reason else None

        return await self.until(check, within)

    async def settle(self, seconds: float = 30.0) -> None:
        """Let virtual time pass; on a real server some time, and then until everybody has done what there was to do."""
        if not self.is_real:
            await anyio.sleep(seconds)
            return
        await anyio.sleep(min(max(seconds, SHORTEST), LONGEST))
        with anyio.fail_after(SLOWEST):
            await self._silence()
            while not await self._is_at_rest():
                await self._silence()

    async def _silence(self) -> None:
        """Until the manager has been idle for a while; it may be silent because the machine has no time for it."""
        seen, since = -1, 0.0
        while (now := anyio.current_time()) - since < QUIET:
            if len(self.wire.writes) != seen or self._is_busy():
                seen, since = len(self.wire.writes), now
            await anyio.sleep(0.1)

    def _is_busy(self) -> bool:
        queues = self.manager.describe()["queues"].values()
        return bool(self.kubelet.starting) or any(queue["ready"] or queue["in_work"] for queue in queues)

    async def _is_at_rest(self) -> bool:
        """Whether the manager knows what the server has, and the garbage collector has nothing left to do."""
        found: dict[str, Any] = {}
        kinds: set[str] = set()
        for informer in self.manager.cache.informers:
            views = {view.metadata.uid: view for view in await self.all(informer.resource)}
            known = {view.metadata.uid: view.metadata.resource_version for view in informer.store}
            if known != {uid: view.metadata.resource_version for uid, view in views.items()}:
                return False
            kinds.add(informer.resource.kind)
            found |= views
        gone = {uid for uid, view in found.items() if "foregroundDeletion" in view.metadata.finalizers}
        return not any(
            "orphan" in view.metadata.finalizers
            or any(
                owner.kind in kinds and (owner.uid not in found or owner.uid in gone) and not view.metadata.deleting
                for owner in view.metadata.owner_references
            )
            for view in found.values()
        )

    def writes(self, *, events: bool = False) -> list[str]:
        """What the manager wrote, as ``METHOD path``, without events unless asked for."""
        return [
            f"{each.method} {each.path}" for each in self.wire.writes if events or not each.path.endswith("/events")
        ]


async def _run_until_killed(manager: Manager, *, task_status: TaskStatus[anyio.CancelScope]) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            task_status.started(scope)


@asynccontextmanager
async def open_house(
    options: ControllerOptions | None = None,
    kubelet_seconds: float = 0.5,
    wrap: Callable[[Any], Transport] | None = None,
) -> AsyncIterator[House]:
    real = bool(KUBECONFIG)
    clock: Clock = SystemClock() if real else VirtualClock()
    failure: Exception | None = None
    server: RealApiServer | InMemoryApiServer = (
        RealApiServer(Path(KUBECONFIG), crds=load_crds(), rules=rules())
        if real
        else InMemoryApiServer(crds=load_crds(), clock=clock)
    )
    async with server:
        if isinstance(server, RealApiServer):
            api, node, namespace = server.admin, server.admin, server.namespace
        else:
            api, node = (KubeClient(server.transport(), clock=clock) for _ in range(2))
            namespace = "default"
        kubelet = Kubelet(node, clock, namespace if real else None, seconds=kubelet_seconds)
        wrapped = wrap or (lambda server: server.transport())
        async with anyio.create_task_group() as tasks:
            chosen = options or ControllerOptions(member_suffixes=1)
            house = House(api, kubelet, server, chosen, tasks, wrapped, clock, namespace)
            await house.start_manager()
            tasks.start_soon(kubelet.run)
            try:
                yield house
            except Exception as error:  # raised below, free of the groups around it
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class Manifests:
    """What tests make: manifests, and the house itself; a fixture, because test modules cannot import one another."""

    volumes = ({"metadata": {"name": "data"}, "spec": VOLUME},)

    sandbox = staticmethod(sandbox)
    template = staticmethod(template)
    pool = staticmethod(pool)
    claim = staticmethod(claim)
    ready_status = staticmethod(ready_status)
    merge = MergePatch
    condition = staticmethod(condition)
    house = staticmethod(open_house)


@pytest.fixture(scope="session")
def make() -> type[Manifests]:
    return Manifests


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time is virtual where the server is ours."""
    return {"real": RealTimeLoop} if KUBECONFIG else {"virtual": VirtualTimeLoop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a real server, leave out what cannot run there, and be patient with the rest."""
    here = [item for item in items if KUBECONFIG and Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.timeout(240))
    without = {item for item in here if item.get_closest_marker("embedded")}
    items[:] = [item for item in items if item not in without]
