"""An informer on the embedded API server, while everything that can go wrong on the wire goes wrong."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from agent_sandbox.kube import KubeClient, MergePatch
from agent_sandbox.runtime import Change, Informer, InformerOptions, InformerStoppedError, WatchOptions
from agent_sandbox.runtime.watcher import Current, Waiting
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import PODS, PodView
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView

pytestmark = pytest.mark.virtual_time

STREAMED = pytest.mark.parametrize("streamed", [True, False], ids=["streamed list", "paged list"])


class World:
    """A server, a client of its own, and a faulty wire to an informer."""

    def __init__(self, server: InMemoryApiServer, clock: VirtualClock, seed: int = 1) -> None:
        self.clock = clock
        self.client = KubeClient(server.transport(), clock=clock)
        self.wire = FaultyTransport(server.transport())
        self.random = random.Random(seed)

    def informer(self, options: InformerOptions[PodView] | None = None) -> Informer[PodView]:
        client = KubeClient(self.wire, clock=self.clock)
        return Informer(client, PODS, clock=self.clock, random=self.random, options=options)

    async def create(self, name: str, namespace: str = "default", **labels: str) -> PodView:
        return await self.client.create(
            PODS,
            {
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "main", "image": "localhost/host"}]},
            },
        )

    async def label(self, name: str, **labels: str) -> PodView:
        return await self.client.patch(PODS, name, MergePatch({"metadata": {"labels": labels}}), "default")

    async def delete(self, pod: PodView) -> None:
        metadata = pod.metadata
        await self.client.delete(PODS, metadata.name, metadata.namespace, uid=metadata.uid, grace_period_seconds=0)

    async def versions(self) -> dict[str, str]:
        return {
            pod.metadata.uid: pod.metadata.resource_version for pod in (await self.client.list(PODS, "default")).items
        }


def stored(informer: Informer[PodView]) -> dict[str, str]:
    return {pod.metadata.uid: pod.metadata.resource_version for pod in informer.store}


@asynccontextmanager
async def running(*informers: Informer[PodView]) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        for informer in informers:
            tasks.start_soon(informer.run)
            await informer.wait_until_synced()
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture
async def world(virtual_clock: VirtualClock) -> AsyncIterator[World]:
    # Opened by hand: pytest ends fixtures in another task, which a task group does not survive.
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield World(server, virtual_clock)
    await server.server.aclose()


@STREAMED
async def test_it_lists_what_is_there_and_follows_what_happens(world: World, streamed: bool) -> None:
    first, second = await world.create("a"), await world.create("b")
    changes: list[Change[PodView]] = []
    informer = world.informer(InformerOptions(watch=WatchOptions(streamed_list=streamed, page_size=1)))
    informer.add_handler(changes.append)

    async with running(informer):
        assert [(change.old, change.initial) for change in changes] == [(None, True), (None, True)]
        changes.clear()
        labelled = await world.label("a", app="x")
        await world.delete(second)
        third = await world.create("c")
        await world.clock.sleep(1)

    assert (changes[0].old, changes[0].new) == (first, labelled)
    assert not any(change.initial for change in changes)
    assert {pod.metadata.name for pod in informer.store} == {"a", "c"}
    assert informer.store.get("default", "c") == third


@STREAMED
async def test_the_wire_breaks_lags_and_falls_silent_and_the_store_still_equals_the_server(
    world: World, streamed: bool
) -> None:
    informer = world.informer(InformerOptions(watch=WatchOptions(streamed_list=streamed, page_size=3)))
    pods = [await world.create(f"pod-{number}") for number in range(7)]
    faults = [
        Fault.broken_stream(),
        Fault.broken_stream(after_lines=2),
        Fault.silent_stream(after_lines=1),
        Fault.slow_stream(3),
        Fault.error(500),
        Fault.error(429, retry_after=7),
        Fault.unreachable(),
        Fault.error(410, "Expired"),
    ]
    async with running(informer):
        for round_ in range(60):
            world.wire.inject(world.random.choice(faults))
            if world.random.random() < 0.3:
                world.wire.drop_watches()
            match round_ % 3:
                case 0:
                    pods.append(await world.create(f"more-{round_}"))
                case 1:
                    await world.label(world.random.choice(pods).metadata.name, round=str(round_))
                case 2:
                    await world.delete(pods.pop(world.random.randrange(len(pods))))
            await world.clock.sleep(world.random.uniform(0, 20))
        world.wire.heal()
        world.wire.drop_watches()
        await world.clock.sleep(300)  # a watch that fell silent before is noticed after 180 s

        assert stored(informer) == await world.versions()


async def test_a_watch_that_falls_silent_is_replaced_after_the_read_deadline(world: World) -> None:
    world.wire.inject(Fault.silent_stream(after_lines=2))  # the end of the streamed list, and nothing after it
    pod = await world.create("a")
    informer = world.informer()
    async with running(informer):
        await world.label("a", app="x")
        await world.clock.sleep(150)
        assert stored(informer) == {pod.metadata.uid: pod.metadata.resource_version}, "it cannot know yet"

        await world.clock.sleep(40)
        assert stored(informer) == await world.versions()


async def test_a_version_that_is_too_old_leads_to_a_new_list(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock, history_capacity=8) as server:
        world = World(server, virtual_clock)
        informer = world.informer()
        async with running(informer):
            world.wire.inject(Fault.unreachable(), times=None)
            world.wire.drop_watches()
            for number in range(30):
                await world.create(f"pod-{number}")
            await world.clock.sleep(90)
            assert len(informer.store) == 0

            world.wire.heal()
            await world.clock.sleep(70)
            assert stored(informer) == await world.versions()


async def test_pages_that_expire_while_they_are_read_are_asked_for_in_one_piece(world: World) -> None:
    for number in range(7):
        await world.create(f"pod-{number}")
    world.wire.inject(Fault.error(410, "Expired"), only_if=lambda _method, _path: len(world.wire.seen) == 1)
    informer = world.informer(InformerOptions(watch=WatchOptions(streamed_list=False, page_size=3)))
    async with running(informer):
        assert len(informer.store) == 7
        await world.clock.sleep(1)
        assert len(world.wire.seen) == 4, "a page, a page that had expired, everything, and the watch"


class OddSpec(msgspec.Struct, frozen=True):
    """A view that is stricter than the server."""

    hostname: Literal["good", "better"]


class OddView(msgspec.Struct, frozen=True):
    """Most Pods do not decode into this."""

    metadata: MetaView
    spec: OddSpec


ODD_PODS: Resource[OddView] = Resource("", "v1", "pods", "Pod", OddView)


@STREAMED
async def test_an_object_that_does_not_decode_is_logged_and_left_out_and_the_others_are_seen(
    world: World, streamed: bool
) -> None:
    async def create(name: str, hostname: str) -> None:
        spec = {"hostname": hostname, "containers": [{"name": "main", "image": "localhost/host"}]}
        await world.client.create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")

    await create("a", "good")
    await create("b", "bad")
    options: InformerOptions[OddView] = InformerOptions(watch=WatchOptions(streamed_list=streamed))
    client = KubeClient(world.wire, clock=world.clock)
    informer = Informer(client, ODD_PODS, clock=world.clock, random=world.random, options=options)
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(informer.run)
            await informer.wait_until_synced()
            await create("c", "worse")
            await create("d", "better")
            await world.clock.sleep(1)
            tasks.cancel_scope.cancel()

    assert [pod.metadata.name for pod in informer.store] == ["a", "d"]
    errors = [entry["error"] for entry in logs if entry["log_level"] == "error"]
    assert [error.partition(" is not")[0] for error in errors] == ["pods default/b", "pods default/c"]
    assert not any("worse" in error for error in errors), "an object's content may be secret"


async def test_a_server_that_refuses_streamed_lists_is_asked_for_pages(world: World) -> None:
    world.wire.inject(Fault.error(422, "Invalid"), only_if=lambda _method, _path: len(world.wire.seen) == 0)
    await world.create("a")
    informer = world.informer()
    async with running(informer):
        assert len(informer.store) == 1
    assert len(world.wire.seen) >= 2, "the refused stream, the page, the watch"


async def test_pauses_after_failures_grow_from_0_8_to_60_seconds_and_watchers_say_where_they_stand(
    world: World,
) -> None:
    world.wire.inject(Fault.error(403, "Forbidden"), times=None)
    informer = world.informer()
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(informer.run)
            await world.clock.sleep(600)
            (state,) = informer.states
            tasks.cancel_scope.cancel()

    pauses = [entry["pause"] for entry in logs if "pause" in entry]
    assert 0.8 <= pauses[0] <= 1.6
    assert all(30 <= pause <= 60 for pause in pauses[7:])
    assert isinstance(state, Waiting)
    assert "403" in state.reason


async def test_the_server_ends_watches_now_and_then_and_nothing_is_lost(world: World) -> None:
    informer = world.informer(InformerOptions(watch=WatchOptions(server_timeout=(5, 10))))
    async with running(informer):
        for number in range(20):
            await world.create(f"pod-{number}")
            await world.clock.sleep(4)
        assert stored(informer) == await world.versions()
        assert isinstance(informer.states[0], Current)
    assert len(world.wire.seen) > 8, "many watches, one after another"


async def test_label_selectors_and_namespaces_limit_what_is_cached(world: World) -> None:
    await world.client.request("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"other"}}')
    await world.client.request("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"third"}}')
    await world.create("a", app="x")
    await world.create("b", app="y")
    await world.create("c", "other", app="x")
    await world.create("d", "third", app="x")
    informer = world.informer(InformerOptions(label_selector="app=x", namespaces=["default", "other"]))

    async with running(informer):
        assert {pod.metadata.name for pod in informer.store} == {"a", "c"}
        await world.label("a", app="y")
        await world.label("b", app="x")
        await world.clock.sleep(1)
        assert {pod.metadata.name for pod in informer.store} == {"b", "c"}


async def test_own_writes_in_namespaces_that_are_not_followed_stay_out_of_the_cache(world: World) -> None:
    await world.client.request("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"other"}}')
    informer = world.informer(InformerOptions(namespaces=["default"]))

    async with running(informer):
        informer.remember(await world.create("a", "other"))
        assert len(informer.store) == 0


async def test_a_transform_changes_what_is_stored(world: World) -> None:
    await world.create("a", app="x")

    def shout(pod: PodView) -> PodView:
        labels = {key: value.upper() for key, value in pod.metadata.labels.items()}
        return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, labels=labels))

    informer = world.informer(InformerOptions(transform=shout))
    async with running(informer):
        (pod,) = informer.store
    assert pod.metadata.labels == {"app": "X"}


async def test_a_late_handler_sees_what_is_stored_as_initial(world: World) -> None:
    await world.create("a")
    informer = world.informer()
    async with running(informer):
        changes: list[Change[PodView]] = []
        informer.add_handler(changes.append)

    assert [(change.object.metadata.name, change.initial) for change in changes] == [("a", True)]


async def test_a_handler_that_fails_does_not_stop_the_others(world: World) -> None:
    await world.create("a")
    seen: list[str] = []

    def broken(_: Change[PodView]) -> None:
        raise TypeError("a bug in a handler")

    informer = world.informer()
    informer.add_handler(broken)
    informer.add_handler(lambda change: seen.append(change.object.metadata.name))
    with capture_logs() as logs:
        async with running(informer):
            pass

    assert seen == ["a"]
    assert logs[0]["event"].startswith("a handler failed")


async def test_a_resync_shows_every_object_again_without_asking_the_server(world: World) -> None:
    await world.create("a")
    changes: list[Change[PodView]] = []
    informer = world.informer(InformerOptions(resync_period=100, watch=WatchOptions(server_timeout=(9999, 9999))))
    informer.add_handler(changes.append)
    async with running(informer):
        asked = len(world.wire.seen)
        await world.clock.sleep(120)
        assert [change.is_resync for change in changes] == [False, True]
        assert len(world.wire.seen) == asked


async def test_a_long_resync_lets_others_work_and_shows_nothing_that_is_gone(world: World) -> None:
    """An object that was deleted while the others were shown came back to the handlers as if it lived."""
    pods = [await world.create(f"pod-{number:02}") for number in range(40)]
    told: list[tuple[str, bool]] = []

    def handle(change: Change[PodView]) -> None:
        told.append((change.object.metadata.name, change.is_resync))
        if change.is_resync and sum(resync for _, resync in told) == 1:
            tasks.start_soon(world.delete, pods[-1])

    informer = world.informer(InformerOptions(resync_period=100, watch=WatchOptions(server_timeout=(9999, 9999))))
    informer.add_handler(handle)
    async with anyio.create_task_group() as tasks, running(informer):
        await world.clock.sleep(120)

    assert [name for name, is_resync in told[40:] if is_resync] == [pod.metadata.name for pod in pods[:-1]]
    assert {name for name, is_resync in told[40:] if not is_resync} == {pods[-1].metadata.name}


async def test_waiting_for_an_informer_that_has_ended_is_an_error(world: World) -> None:
    world.wire.inject(Fault.error(500), times=None)
    informer = world.informer()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informer.run)
        await world.clock.sleep(1)
        tasks.cancel_scope.cancel()

    with pytest.raises(InformerStoppedError, match="pods"):
        await informer.wait_until_synced()
