"""The client and the informer against a real API server: what the embedded one might have flattered."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import (
    AlreadyExistsError,
    ConflictError,
    GoneError,
    InvalidError,
    KubeClient,
    MergePatch,
    NotFoundError,
    connect,
)
from agent_sandbox.runtime import Informer, InformerOptions, WatchOptions
from agent_sandbox.testing import Fault, FaultyTransport
from agent_sandbox.testing.envtest import Kubernetes
from agent_sandbox_api.core import LEASES, PODS, PodView
from agent_sandbox_api.meta import format_time

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

STREAMED = pytest.mark.parametrize("streamed", [True, False], ids=["streamed list", "paged list"])


@pytest.fixture
def namespace(cluster: Kubernetes, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty namespace of the test's own."""
    name = f"r-{abs(hash(request.node.nodeid)):x}"[:40]
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@dataclass
class World:
    """A namespace, a client of the test's own, and a faulty wire to an informer of its Pods."""

    client: KubeClient
    wire: FaultyTransport
    informer: Informer[PodView]
    namespace: str

    async def create(self, name: str) -> PodView:
        spec = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}
        return await self.client.create(PODS, {"metadata": {"name": name}, "spec": spec}, self.namespace)

    async def label(self, name: str, value: str) -> None:
        await self.client.patch(PODS, name, MergePatch({"metadata": {"labels": {"x": value}}}), self.namespace)

    async def delete(self, pod: PodView) -> None:
        meta = pod.metadata
        await self.client.delete(PODS, meta.name, self.namespace, uid=meta.uid, grace_period_seconds=0)

    async def agrees(self) -> None:
        """Return once the store holds what the server holds."""
        found = (await self.client.list(PODS, self.namespace)).items
        wanted = {pod.metadata.uid: pod.metadata.resource_version for pod in found}
        with anyio.fail_after(60):
            while {pod.metadata.uid: pod.metadata.resource_version for pod in self.informer.store} != wanted:  # noqa: ASYNC110
                await anyio.sleep(0.05)  # the watch is another process's


@asynccontextmanager
async def world_of(cluster: Kubernetes, namespace: str, watch: WatchOptions) -> AsyncIterator[World]:
    """Connected; the informer is the test's to run."""
    client, plain = await connect(cluster.kubeconfig), await connect(cluster.kubeconfig)
    wire = FaultyTransport(plain.transport)
    informer = Informer(
        plain.with_transport(wire),
        PODS,
        clock=SystemClock(),
        random=random.Random(1),
        options=InformerOptions(namespaces=[namespace], watch=watch),
    )
    try:
        yield World(client, wire, informer, namespace)
    finally:
        await client.aclose()
        await plain.aclose()


@asynccontextmanager
async def running(informer: Informer[PodView]) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(informer.run)
        with anyio.fail_after(30):
            await informer.wait_until_synced()
        yield
        tasks.cancel_scope.cancel()


@STREAMED
async def test_the_store_follows_the_server_through_lost_watches(
    cluster: Kubernetes, namespace: str, streamed: bool
) -> None:
    async with world_of(cluster, namespace, WatchOptions(streamed_list=streamed, page_size=2)) as world:
        pods = [await world.create(f"pod-{number}") for number in range(5)]
        async with running(world.informer):
            assert len(list(world.informer.store)) == 5
            for round_ in range(8):
                world.wire.inject([Fault.broken_stream(), Fault.error(429, retry_after=1)][round_ % 2])
                world.wire.drop_watches()
                await world.label(pods[round_ % 3].metadata.name, str(round_))
                pods.append(await world.create(f"more-{round_}"))
                await world.delete(pods.pop(3))
            world.wire.heal()
            await world.agrees()


async def test_a_real_server_offers_streamed_lists_and_they_are_used(cluster: Kubernetes, namespace: str) -> None:
    async with world_of(cluster, namespace, WatchOptions()) as world:
        await world.create("a")
        async with running(world.informer):
            await world.agrees()
        assert len(world.wire.seen) == 1, "one watch that began with the list"


@STREAMED
async def test_an_informer_survives_a_crash_of_the_api_server(
    cluster: Kubernetes, namespace: str, streamed: bool
) -> None:
    """The new process knows no old versions: the watch is resumed, or the list is asked for again."""
    async with world_of(cluster, namespace, WatchOptions(streamed_list=streamed)) as world:
        kept, gone = await world.create("kept"), await world.create("gone")
        async with running(world.informer):
            world.wire.partition()  # what happens next happens unseen
            await world.delete(gone)
            await world.label(kept.metadata.name, "changed")
            cluster.restart_api_server()
            await anyio.sleep(0.1)  # nothing ran meanwhile: let the pool notice that its connections are dead
            await world.create("new")
            world.wire.heal()
            world.wire.drop_watches()
            await world.agrees()
        assert {pod.metadata.name for pod in world.informer.store} == {"kept", "new"}


async def test_refusals_are_typed(cluster: Kubernetes, namespace: str) -> None:
    cluster.restart_api_server()  # the first process of a cluster has been there since version 1
    client = await connect(cluster.kubeconfig)
    try:
        lease = {"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}}
        made = await client.create(LEASES, lease, namespace)
        with pytest.raises(AlreadyExistsError):
            await client.create(LEASES, lease, namespace)
        with pytest.raises(InvalidError) as invalid:
            await client.create(LEASES, {"metadata": {"name": "b"}, "spec": {"leaseDurationSeconds": -1}}, namespace)
        assert [cause.field for cause in invalid.value.causes] == ["spec.leaseDurationSeconds"]
        with pytest.raises(NotFoundError):
            await client.get(LEASES, "missing", namespace)
        with pytest.raises(ConflictError):
            await client.delete(LEASES, "a", namespace, uid="another")
        stale = MergePatch({"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "you"}})
        with pytest.raises(ConflictError):
            await client.patch(LEASES, "a", stale, namespace)
        async with client.watch(LEASES, namespace, resource_version="1", timeout_seconds=30) as events:
            with pytest.raises(GoneError):
                await anext(aiter(events))
        await client.delete(LEASES, "a", namespace, uid=made.metadata.uid)
    finally:
        await client.aclose()


async def test_pages_are_read_to_the_end_at_one_version(cluster: Kubernetes, namespace: str) -> None:
    client = await connect(cluster.kubeconfig)
    try:
        now = {"renewTime": format_time(SystemClock().now()).replace("Z", ".000000Z")}
        for number in range(7):
            await client.create(LEASES, {"metadata": {"name": f"lease-{number}"}, "spec": now}, namespace)
        first = await client.list_page(LEASES, namespace, limit=3)
        await client.create(LEASES, {"metadata": {"name": "late"}, "spec": now}, namespace)
        names = [view.metadata.name for view in first.items]
        page = first
        while page.continue_token:
            page = await client.list_page(LEASES, namespace, limit=3, continue_token=page.continue_token)
            names += [view.metadata.name for view in page.items]
            assert page.resource_version == first.resource_version
        assert names == [f"lease-{number}" for number in range(7)]
    finally:
        await client.aclose()
