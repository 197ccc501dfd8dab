"""The manager: order of start, order of stop, and that everything works together on the embedded API server."""

import random

import anyio
import anyio.abc
import pytest

from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import (
    CacheSyncError,
    Controller,
    LeaderElectionOptions,
    LeadershipLostError,
    Manager,
    ManagerOptions,
    Request,
    Result,
)
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import LEASES, PODS, SERVICES

pytestmark = pytest.mark.virtual_time


class ServicePerPod:
    """Keeps one Service beside each Pod."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._pods = manager.cache.informer(PODS).store
        self._services = manager.cache.informer(SERVICES).store
        self.seen: list[Request] = []

    async def reconcile(self, request: Request) -> Result:
        self.seen.append(request)
        pod = self._pods.get(request.namespace, request.name)
        if pod is None or self._services.get(request.namespace, request.name) is not None:
            return Result.done()
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
        await self._client.create(
            SERVICES,
            {
                "metadata": {
                    "name": request.name,
                    "namespace": request.namespace,
                    "ownerReferences": [owner | {"controller": True}],
                },
                "spec": {"clusterIP": "None", "selector": {"app": request.name}},
            },
        )
        assert self._services.get(request.namespace, request.name) is not None, "own writes are visible at once"
        return Result.done()


def pod(name: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "localhost/host"}]},
    }


async def test_a_controller_creates_what_is_missing_and_heals_what_is_deleted(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        client = KubeClient(server.transport(), clock=virtual_clock)
        await client.create(PODS, pod("one"))
        manager = Manager(client, clock=virtual_clock, options=ManagerOptions(), random=random.Random(1))
        reconciler = ServicePerPod(manager)
        manager.add(Controller("service", reconciler, workers=2).watches_for(PODS).owns(SERVICES, owner=PODS))

        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            await client.create(PODS, pod("two"))
            await virtual_clock.sleep(1)
            services = (await client.list(SERVICES, "default")).items
            assert [service.metadata.name for service in services] == ["one", "two"]

            await client.delete(SERVICES, "two", "default", uid=services[1].metadata.uid)
            await virtual_clock.sleep(1)
            healed = await client.get(SERVICES, "two", "default")
            assert healed.metadata.uid != services[1].metadata.uid
            tasks.cancel_scope.cancel()


# Order of start and end


class Reporter:
    """A runnable that tells when it starts and ends."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        self._log.append(f"start {self._name}")
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            self._log.append(f"end {self._name}")


class Slow:
    """A reconciler that takes its time, and tells."""

    def __init__(self, clock: VirtualClock, seconds: float, log: list[str]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._log = log

    async def reconcile(self, request: Request) -> Result:
        self._log.append(f"begin {request.name}")
        await self._clock.sleep(self._seconds)
        self._log.append(f"finish {request.name}")
        return Result.done()


def election(**options: float) -> LeaderElectionOptions:
    return LeaderElectionOptions(namespace="default", name="operator", **options)  # type: ignore[arg-type]  # a test's shorthand


async def test_parts_start_in_order_and_end_in_reverse(virtual_clock: VirtualClock) -> None:
    log: list[str] = []
    async with InMemoryApiServer(clock=virtual_clock) as server:
        client = KubeClient(server.transport(), clock=virtual_clock)
        await client.create(PODS, pod("a"))
        manager = Manager(client, clock=virtual_clock, options=ManagerOptions(leader_election=election()))
        manager.add(Controller("slow", Slow(virtual_clock, 3, log)).watches_for(PODS))
        manager.add_runnable("leader part", Reporter("leader part", log))
        manager.add_runnable("early part", Reporter("early part", log), needs_leadership=False)
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            await virtual_clock.sleep(1)
            tasks.cancel_scope.cancel()

        lease = await client.get(LEASES, "operator", "default")
    assert log == ["start early part", "start leader part", "begin a", "finish a", "end leader part", "end early part"]
    assert lease.spec.holder_identity == "", "released after everything that writes had ended"


async def test_the_end_is_bounded_by_the_grace(virtual_clock: VirtualClock) -> None:
    log: list[str] = []
    async with InMemoryApiServer(clock=virtual_clock) as server:
        client = KubeClient(server.transport(), clock=virtual_clock)
        await client.create(PODS, pod("a"))
        manager = Manager(client, clock=virtual_clock)
        manager.add(Controller("slow", Slow(virtual_clock, 10_000, log)).watches_for(PODS))
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            await virtual_clock.sleep(1)
            asked = virtual_clock.monotonic()
            tasks.cancel_scope.cancel()

        assert virtual_clock.monotonic() - asked == pytest.approx(30, abs=1)
    assert log == ["begin a"]


async def test_a_cancellation_while_caches_fill_ends_cleanly(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        wire = FaultyTransport(server.transport())
        wire.inject(Fault.error(500), times=None)
        manager = Manager(KubeClient(wire, clock=virtual_clock), clock=virtual_clock)
        manager.add(Controller("slow", Slow(virtual_clock, 1, [])).watches_for(PODS))
        with anyio.move_on_after(5):
            await manager.run()

        assert virtual_clock.monotonic() == pytest.approx(5, abs=1)


async def test_caches_that_do_not_fill_end_the_manager_with_their_names(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        wire = FaultyTransport(server.transport())
        wire.inject(Fault.error(403, "Forbidden"), path="/pods", times=None)
        manager = Manager(KubeClient(wire, clock=virtual_clock), clock=virtual_clock)
        manager.add(Controller("slow", Slow(virtual_clock, 1, [])).watches_for(PODS).watches_for(SERVICES))
        with pytest.raises(CacheSyncError, match=r"pods \(.*403.*may this account list"):
            await manager.run()

        assert virtual_clock.monotonic() == pytest.approx(120, abs=2)


async def test_a_runnable_that_fails_ends_the_manager_with_its_error(virtual_clock: VirtualClock) -> None:
    class Broken:
        async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
            task_status.started()
            await virtual_clock.sleep(5)
            raise OSError("the address is in use")

    async with InMemoryApiServer(clock=virtual_clock) as server:
        manager = Manager(KubeClient(server.transport(), clock=virtual_clock), clock=virtual_clock)
        manager.add_runnable("broken", Broken())
        with pytest.raises(OSError, match="in use"):
            await manager.run()


async def test_a_runnable_that_fails_before_it_is_ready_ends_the_manager_too(virtual_clock: VirtualClock) -> None:
    class Broken:
        async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
            raise OSError("no such device")

    async with InMemoryApiServer(clock=virtual_clock) as server:
        manager = Manager(KubeClient(server.transport(), clock=virtual_clock), clock=virtual_clock)
        manager.add_runnable("broken", Broken())
        with pytest.raises(OSError, match="no such device"):
            await manager.run()


async def test_a_standby_has_its_caches_filled_and_takes_over_at_once_when_the_leader_stops(
    virtual_clock: VirtualClock,
) -> None:
    logs: dict[str, list[str]] = {"one": [], "two": []}
    async with InMemoryApiServer(clock=virtual_clock) as server:
        client = KubeClient(server.transport(), clock=virtual_clock)
        managers = {}
        for name, log in logs.items():
            options = ManagerOptions(leader_election=election())
            manager = managers[name] = Manager(client, clock=virtual_clock, options=options, random=random.Random(name))
            manager.add(Controller("slow", Slow(virtual_clock, 0.1, log)).watches_for(PODS))
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def run_first(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                with first:
                    await managers["one"].run(task_status=task_status)

            await tasks.start(run_first)
            await virtual_clock.sleep(1)
            await tasks.start(managers["two"].run)
            await client.create(PODS, pod("a"))
            await virtual_clock.sleep(60)
            assert logs == {"one": ["begin a", "finish a"], "two": []}
            assert managers["two"].cache.informer(PODS).store.get("default", "a") is not None

            first.cancel()
            await virtual_clock.sleep(0.5)
            await client.create(PODS, pod("b"))
            await virtual_clock.sleep(0.5)
            assert logs["one"] == ["begin a", "finish a"]
            assert logs["two"] == ["begin a", "finish a", "begin b", "finish b"]
            tasks.cancel_scope.cancel()


async def test_a_manager_that_loses_its_lease_ends_without_grace(virtual_clock: VirtualClock) -> None:
    log: list[str] = []
    async with InMemoryApiServer(clock=virtual_clock) as server:
        wire = FaultyTransport(server.transport())
        client = KubeClient(wire, clock=virtual_clock)
        await client.create(PODS, pod("a"))
        manager = Manager(client, clock=virtual_clock, options=ManagerOptions(leader_election=election()))
        manager.add(Controller("slow", Slow(virtual_clock, 10_000, log)).watches_for(PODS))

        async def cut() -> None:
            await virtual_clock.sleep(20)
            wire.partition()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut)
            with pytest.raises(LeadershipLostError, match="no renewal succeeded"):
                await manager.run()

        assert virtual_clock.monotonic() <= 20 + 10 + 2 + 5, "the deadline, and the attempt to let go"
        assert log == ["begin a"]


async def test_no_task_outlives_the_manager(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        client = KubeClient(server.transport(), clock=virtual_clock)
        before = {task.id for task in anyio.get_running_tasks()}
        manager = Manager(client, clock=virtual_clock, options=ManagerOptions(leader_election=election()))
        manager.add(Controller("slow", Slow(virtual_clock, 1, [])).watches_for(PODS).owns(SERVICES, owner=PODS))
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            await virtual_clock.sleep(100)
            tasks.cancel_scope.cancel()

        assert {task.id for task in anyio.get_running_tasks()} == before


async def test_two_controllers_of_one_name_are_refused(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        manager = Manager(KubeClient(server.transport()), clock=virtual_clock)
        manager.add(Controller("x", Slow(virtual_clock, 1, [])).watches_for(PODS))
        with pytest.raises(ValueError, match="already"):
            manager.add(Controller("x", Slow(virtual_clock, 1, [])).watches_for(PODS))
        with pytest.raises(ValueError, match="before it"):
            manager.add(Controller("y", Slow(virtual_clock, 1, []), yields_to=["z"]).watches_for(PODS))


async def test_one_watch_per_kind_is_shared_by_all_controllers(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        wire = FaultyTransport(server.transport())
        manager = Manager(KubeClient(wire, clock=virtual_clock), clock=virtual_clock)
        for name in ("one", "two", "three"):
            manager.add(Controller(name, Slow(virtual_clock, 1, [])).watches_for(PODS))
        with anyio.move_on_after(10):
            await manager.run()

        assert [request.path for request in wire.seen] == ["/api/v1/pods"]


async def test_a_controller_that_comes_after_the_start_is_refused(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        manager = Manager(KubeClient(server.transport()), clock=virtual_clock)
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            with pytest.raises(RuntimeError, match="'late' is added too late"):
                manager.add(Controller("late", Slow(virtual_clock, 1, [])).watches_for(PODS))
            tasks.cancel_scope.cancel()
