"""The manager: order of start, order of stop, and that everything works together on the embedded API server."""

import random

import anyio
import pytest

from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import Controller, Manager, ManagerOptions, Request, Result
from agent_sandbox.testing import InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import PODS, SERVICES

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
