"""A request wakes a suspended sandbox if its template says so: by one conditional write, and it is held meanwhile."""

import time
from typing import Any

import anyio
import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.router import AuthzMode
from agent_sandbox.runtime import Cache
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox.testing.faults import FaultyTransport
from agent_sandbox_api.access import AccessKey
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.crds import load_crds

WAKE = {"agents.x-k8s.io/wake-on-request": "true"}
KEY = AccessKey.generate()


def manifest(*, wakes: bool) -> dict[str, Any]:
    template = {
        "metadata": {"annotations": WAKE if wakes else {}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    return {
        "metadata": {"name": "box", "namespace": "default", "annotations": KEY.annotations},
        "spec": {"replicas": 0, "podTemplate": template},
    }


def request(uid: str, port: int, key: AccessKey = KEY) -> bytes:
    credential = key.sign(namespace="default", name="box", uid=uid, expires=int(time.time()) + 60)
    return (
        f"POST /x HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\nX-Sandbox-Port: {port}\r\n"
        f"X-Sandbox-Authorization: Bearer {credential}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    ).encode()


async def greet(visit: Any) -> None:
    await visit.head()
    await visit.answer(await visit.reader.readexactly(5))


async def start_pod(kube: KubeClient, uid: str) -> None:
    """What controller and node do for a Sandbox that shall run."""
    owner = {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "box", "uid": uid, "controller": True}
    labels = {"agents.x-k8s.io/sandbox-name-hash": "x"}
    body = {
        "metadata": {"name": "box", "namespace": "default", "ownerReferences": [owner], "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    await kube.create(PODS, body)
    whole = await kube.get_object(PODS, "box", "default")
    ready = [{"type": "Ready", "status": "True"}]
    whole["status"] = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": ready}
    await kube.update(PODS, whole, subresource="status")


@pytest.mark.parametrize("requests", [1, 3])
async def test_requests_wait_while_the_sandbox_resumes_by_one_write(run_router: Any, requests: int) -> None:
    async with InMemoryApiServer(crds=load_crds()) as server:
        wire = FaultyTransport(server.transport())
        kube = KubeClient(wire)
        options = {"authz": (AuthzMode.CLAIM_KEY,), "wait_unknown": 5, "wait_awake": 20, "wait_ready": 20, "kube": kube}
        async with run_router(**options) as place:
            served = await place.sandbox(greet, "other")
            cache = Cache(kube, clock=SystemClock())
            place.directory.follow(cache)
            await place.tasks.start(cache.run)
            await cache.wait_until_synced(10)
            uid = (await KubeClient(server.transport()).create(SANDBOXES, manifest(wakes=True))).metadata.uid
            answers: list[bytes] = []

            async def ask() -> None:
                answers.append(await place.ask(request(uid, served.port)))

            async with anyio.create_task_group() as tasks:
                for _ in range(requests):
                    tasks.start_soon(ask)
                while (await kube.get_scale(SANDBOXES, "box", "default")).replicas == 0:
                    await anyio.lowlevel.checkpoint()
                await start_pod(KubeClient(server.transport()), uid)

    assert [answer.endswith(b"hello") for answer in answers] == [True] * requests
    writes = [seen for seen in wire.seen if seen.method == "PATCH"]
    assert [write.path.rpartition("/")[2] for write in writes] == ["scale"]


async def test_stranger_wakes_nothing_and_a_template_that_does_not_say_so_neither(run_router: Any) -> None:
    async with InMemoryApiServer(crds=load_crds()) as server:
        wire = FaultyTransport(server.transport())
        kube = KubeClient(wire)
        async with run_router(authz=(AuthzMode.CLAIM_KEY,), wait_unknown=0.2, kube=kube) as place:
            cache = Cache(kube, clock=SystemClock())
            place.directory.follow(cache)
            await place.tasks.start(cache.run)
            await cache.wait_until_synced(10)

            async def until_known(uid: str) -> None:
                store = cache.informer(SANDBOXES).store
                while (known := store.get("default", "box")) is None or known.metadata.uid != uid:
                    await anyio.lowlevel.checkpoint()

            owner = KubeClient(server.transport())
            first = await owner.create(SANDBOXES, manifest(wakes=True))
            await until_known(first.metadata.uid)
            stranger = await place.ask(request(first.metadata.uid, 1, AccessKey.generate()))
            await owner.delete(SANDBOXES, "box", "default", uid=first.metadata.uid)
            second = await owner.create(SANDBOXES, manifest(wakes=False))
            await until_known(second.metadata.uid)
            asleep = await place.ask(request(second.metadata.uid, 1))

    assert stranger.startswith(b"HTTP/1.1 403")
    assert asleep.startswith(b"HTTP/1.1 409")
    assert b"X-Sandbox-Error: suspended" in asleep
    assert [seen for seen in wire.seen if seen.method == "PATCH"] == []
