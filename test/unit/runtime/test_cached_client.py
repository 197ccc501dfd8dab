"""Reading one's own writes, through the real client, on the embedded API server, with watches that lag and break."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

import anyio
import pytest

from agent_sandbox.kube import (
    ConflictError,
    KubeClient,
    MergePatch,
    OutcomeUnknownError,
    RawResponse,
    Transport,
    modify,
)
from agent_sandbox.kube.transport import RequestOptions, TransportDecorator
from agent_sandbox.runtime import Cache, CachedClient, CacheSyncError, Change, Finalizer, FinalizerState, Informer
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import PODS, SERVICES, PodView, ServiceView

pytestmark = pytest.mark.virtual_time


LAG = 170
"""Seconds by which watches lag: as much as a watch may before it counts as dead."""


class Setup:
    """A cache whose watches lag: what is in its stores comes from own writes alone, for a while."""

    def __init__(self, server: InMemoryApiServer, clock: VirtualClock) -> None:
        self.clock = clock
        self.wire = FaultyTransport(server.transport())
        client = KubeClient(self.wire, clock=clock)
        self.admin = KubeClient(server.transport(), clock=clock)
        self.cache = Cache(client, clock=clock)
        self.client = CachedClient(client, self.cache)
        self.services: Informer[ServiceView] = self.cache.informer(SERVICES)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.cache.run)
            await self.cache.wait_until_synced(60)
            self.wire.inject(Fault.slow_stream(LAG), times=None)
            self.wire.drop_watches()
            await self.clock.sleep(10)
            yield
            tasks.cancel_scope.cancel()

    async def create(self, name: str = "a", client: KubeClient | None = None, **labels: str) -> ServiceView:
        body = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
        }
        return await (client or self.client).create(SERVICES, body, "default")

    def stored(self, name: str = "a") -> ServiceView | None:
        return self.services.store.get("default", name)


@pytest.fixture
async def setup(virtual_clock: VirtualClock) -> AsyncIterator[Setup]:
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield Setup(server, virtual_clock)
    await server.server.aclose()


async def test_every_kind_of_write_is_in_the_store_when_it_returns(setup: Setup) -> None:
    async with setup.running():
        created = await setup.create()
        assert setup.stored() == created

        patched = await setup.client.patch(SERVICES, "a", MergePatch({"metadata": {"labels": {"x": "1"}}}), "default")
        assert setup.stored() == patched

        def relabel(whole: dict[str, object]) -> None:
            whole["metadata"]["labels"]["x"] = "2"  # type: ignore[index]  # JSON

        updated = await modify(setup.client, SERVICES, "a", "default", relabel)
        assert updated.metadata.labels == {"x": "2"}
        assert setup.stored() == updated

        await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid)
        assert setup.stored() is None


async def test_what_was_deleted_stays_deleted_when_the_old_events_arrive(setup: Setup) -> None:
    async with setup.running():
        for number in range(5):
            created = await setup.create()
            await setup.client.patch(SERVICES, "a", MergePatch({"metadata": {"labels": {"x": str(number)}}}), "default")
            await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid)
            for _ in range(10):
                await setup.clock.sleep(LAG / 3)
                assert setup.stored() is None
        last = await setup.create()
        for _ in range(10):
            await setup.clock.sleep(LAG / 3)
            assert setup.stored() == last


async def test_a_delete_that_waits_for_a_finalizer_leaves_the_object_as_deleting(setup: Setup) -> None:
    async with setup.running():
        created = await setup.create()
        hold = MergePatch({"metadata": {"finalizers": ["example.com/hold"]}})
        await setup.client.patch(SERVICES, "a", hold, "default")
        await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid)

        known = setup.stored()
        assert known is not None
        assert known.metadata.deleting


async def test_a_graceful_pod_delete_leaves_the_pod_as_deleting(setup: Setup) -> None:
    pods: Informer[PodView] = setup.cache.informer(PODS)
    async with setup.running():
        body = {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}
        pod = await setup.client.create(PODS, body, "default")
        await setup.client.delete(PODS, "p", "default", uid=pod.metadata.uid)
        known = pods.store.get("default", "p")
        assert known is not None
        assert known.metadata.deleting

        await setup.client.delete(PODS, "p", "default", uid=pod.metadata.uid, grace_period_seconds=0)
        assert pods.store.get("default", "p") is None


async def test_a_write_with_an_unknown_outcome_enters_nothing(setup: Setup) -> None:
    async with setup.running():
        setup.wire.inject(Fault.lost_answer(), method="POST")
        with pytest.raises(OutcomeUnknownError):
            await setup.create()
        assert setup.stored() is None
        assert (await setup.client.get(SERVICES, "a", "default")).metadata.name == "a"


async def test_selectors_decide_which_stores_an_own_write_enters(setup: Setup) -> None:
    labelled = setup.cache.informer(SERVICES, label_selector="app=x")
    assert setup.cache.informer(SERVICES, label_selector="app=x") is labelled
    async with setup.running():
        await setup.create("in", app="x")
        await setup.create("out", app="y")
        assert [each.metadata.name for each in labelled.store] == ["in"]
        assert {each.metadata.name for each in setup.services.store} == {"in", "out"}

        await setup.client.patch(SERVICES, "in", MergePatch({"metadata": {"labels": {"app": "y"}}}), "default")
        assert len(labelled.store) == 0


async def test_kinds_are_delivered_in_any_order_and_own_writes_are_seen_all_the_same(setup: Setup) -> None:
    """Services lag, Pods do not: a Pod's event comes long before that of the Service made before it."""
    pods: Informer[PodView] = setup.cache.informer(PODS)
    async with anyio.create_task_group() as tasks:
        await tasks.start(setup.cache.run)
        await setup.cache.wait_until_synced()
        setup.wire.inject(Fault.slow_stream(LAG), path="/services", times=None)
        setup.wire.drop_watches()
        await setup.clock.sleep(10)
        own = await setup.create()
        await setup.create("foreign", setup.admin)
        body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        await setup.admin.create(PODS, body, "default")
        await setup.clock.sleep(1)

        assert pods.store.get("default", "p") is not None
        assert setup.stored() == own
        assert setup.stored("foreign") is None, "older than the Pod, and not here yet"
        await setup.clock.sleep(2 * LAG + 1)  # one chunk after the other
        assert setup.stored("foreign") is not None
        tasks.cancel_scope.cancel()


async def test_an_informer_asked_for_while_the_cache_runs_is_started(setup: Setup) -> None:
    async with anyio.create_task_group() as tasks:
        await tasks.start(setup.cache.run)
        late = setup.cache.informer(PODS)
        await late.wait_until_synced()
        assert setup.cache.is_synced
        tasks.cancel_scope.cancel()


async def test_caches_that_do_not_fill_are_named(setup: Setup) -> None:
    setup.wire.inject(Fault.error(403, "Forbidden"), times=None)
    async with anyio.create_task_group() as tasks:
        await tasks.start(setup.cache.run)
        with pytest.raises(CacheSyncError, match=r"services .*403"):
            await setup.cache.wait_until_synced(30)
        tasks.cancel_scope.cancel()


# Finalizers


async def test_a_finalizer_is_there_before_it_is_needed_and_goes_after_the_clean_up(setup: Setup) -> None:
    cleaned: list[str] = []
    failing = True

    async def clean(view: ServiceView) -> None:
        if failing:
            raise OSError("the outside is unreachable")
        cleaned.append(view.metadata.name)

    finalizer = Finalizer(setup.admin, SERVICES, "example.com/clean", clean)
    view = await setup.create(client=setup.admin)
    assert await finalizer.ensure(view) == FinalizerState.ADDED
    view = await setup.admin.get(SERVICES, "a", "default")
    assert view.metadata.finalizers == ("example.com/clean",)
    assert await finalizer.ensure(view) == FinalizerState.PRESENT

    await setup.admin.delete(SERVICES, "a", "default", uid=view.metadata.uid)
    view = await setup.admin.get(SERVICES, "a", "default")
    with pytest.raises(OSError, match="unreachable"):
        await finalizer.ensure(view)
    assert (await setup.admin.get(SERVICES, "a", "default")).metadata.finalizers, "any error keeps it"

    failing = False
    assert await finalizer.ensure(view) == FinalizerState.REMOVED
    assert cleaned == ["a"]
    assert (await setup.admin.list(SERVICES, "default")).items == []


async def test_an_object_that_goes_without_the_finalizer_is_left_alone(setup: Setup) -> None:
    async def clean(_: ServiceView) -> None:
        raise AssertionError("there is nothing to clean")

    view = await setup.create(client=setup.admin)
    await setup.admin.patch(SERVICES, "a", MergePatch({"metadata": {"finalizers": ["other.com/x"]}}), "default")
    await setup.admin.delete(SERVICES, "a", "default", uid=view.metadata.uid)
    view = await setup.admin.get(SERVICES, "a", "default")

    finalizer = Finalizer(setup.admin, SERVICES, "example.com/clean", clean)
    assert await finalizer.ensure(view) == FinalizerState.ABSENT


# Whose change it was


class SlowAnswers(TransportDecorator):
    """A transport whose answers arrive a second after the watch has shown what they say."""

    def __init__(self, inner: Transport, clock: VirtualClock) -> None:
        super().__init__(inner)
        self._clock = clock

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        answer = await super().request(method, path, **options)
        await self._clock.sleep(1)
        return answer


@asynccontextmanager
async def told(setup: Setup) -> AsyncIterator[tuple[CachedClient, list[str]]]:
    """A client whose answers are slower than the watch, and what handlers are told, each change as ``label: whose``."""
    client = setup.admin.with_transport(SlowAnswers(setup.admin.transport, setup.clock))
    cache = Cache(client, clock=setup.clock)
    heard: list[str] = []

    def hear(change: Change[ServiceView]) -> None:
        label = "gone" if change.new is None else change.new.metadata.labels.get("x", "made")
        heard.append(f"{label}: {'own' if change.own else 'news'}")

    cache.informer(SERVICES).add_handler(hear)
    async with anyio.create_task_group() as tasks:
        await tasks.start(cache.run)
        await cache.wait_until_synced(60)
        yield CachedClient(client, cache), heard
        tasks.cancel_scope.cancel()


def labelled(value: str, **metadata: str) -> MergePatch:
    return MergePatch({"metadata": {"labels": {"x": value}, **metadata}})


SERVICE = {"metadata": {"name": "a"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}


async def test_own_changes_are_told_as_own_also_where_the_watch_is_faster_than_the_answer(setup: Setup) -> None:
    async with told(setup) as (client, heard):
        made = await client.create(SERVICES, SERVICE, "default")
        await client.patch(SERVICES, "a", labelled("1"), "default")
        await client.delete(SERVICES, "a", "default", uid=made.metadata.uid)
        await setup.clock.sleep(5)
    assert heard == ["made: own", "1: own", "gone: own"]


async def test_what_others_do_during_an_own_write_is_told_as_news(setup: Setup) -> None:
    async with told(setup) as (client, heard):
        await setup.admin.create(SERVICES, SERVICE, "default")
        await setup.clock.sleep(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.patch, SERVICES, "a", labelled("mine"), "default")
            await setup.clock.sleep(0.5)
            await setup.admin.patch(SERVICES, "a", labelled("theirs"), "default")
    assert heard == ["made: news", "mine: own", "theirs: own", "theirs: news"]


async def test_a_change_during_a_write_that_was_refused_is_told_as_news(setup: Setup) -> None:
    async with told(setup) as (client, heard):
        made = await setup.admin.create(SERVICES, SERVICE, "default")
        await setup.clock.sleep(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(setup.admin.patch, SERVICES, "a", labelled("theirs"), "default")
            with pytest.raises(ConflictError):
                await client.patch(SERVICES, "a", labelled("mine", uid="another"), "default")
        await setup.clock.sleep(1)
    assert made.metadata.name == "a"
    assert heard[0] == "made: news"
    assert heard[-1] == "theirs: news"
