"""The controllers against a real API server, as the service account and with exactly the role that we ship.

There is no kubelet; the test plays one and makes every Pod run.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, Unpack

import anyio
import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import EventType, KubeClient, MergePatch, RawResponse, Transport, connect
from agent_sandbox.kube.transport import RequestOptions, TransportDecorator
from agent_sandbox.runtime import Manager, ManagerOptions
from agent_sandbox.sdk import AsyncSandboxes, ConnectionOptions, SandboxTemplateNotFoundError
from agent_sandbox.testing.envtest import Kubernetes
from agent_sandbox.testing.pretend_cluster import serve_daemon
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES, PodView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_WARM_POOLS
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import View, is_condition_true
from agent_sandbox_controllers import ControllerOptions, register

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

CONFIG = Path(__file__).resolve().parents[2] / "config"
TEMPLATE = "python-sandbox-template"
V = TypeVar("V", bound=View)


@pytest.fixture(scope="module")
def account(cluster: Kubernetes) -> Path:
    """A kubeconfig of the controllers' service account, with everything applied that a cluster gets."""
    cluster.kubectl("apply", "-f", str(CONFIG / "manager" / "namespace.yaml"))
    for folder in ("crd", "rbac"):
        cluster.kubectl("apply", "--server-side", "-k", str(CONFIG / folder))
    cluster.wait_until_served()
    cluster.wait_until_allowed("system:serviceaccount:agent-sandbox-system:agent-sandbox-controller", "create", "pods")
    return cluster.kubeconfig_for_service_account("agent-sandbox-system", "agent-sandbox-controller")


@pytest.fixture
def namespace(cluster: Kubernetes, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty namespace of the test's own."""
    name = f"c-{abs(hash(request.node.nodeid)):x}"[:40]
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


async def play_kubelet(client: KubeClient, namespace: str) -> None:
    """Make every new Pod of the namespace run and be Ready, each with an address of its own."""
    seen = await client.list(PODS, namespace)
    addresses = (f"10.9.{number >> 8}.{number & 255}" for number in range(1, 65536))
    async with client.watch(PODS, namespace, resource_version=seen.resource_version, timeout_seconds=600) as events:
        async for event in events:
            if event.type == EventType.ADDED:
                await run_pod(client, event.object, next(addresses))


async def run_pod(client: KubeClient, pod: PodView, address: str) -> None:
    ready = [{"type": name, "status": "True"} for name in ("PodScheduled", "Ready")]
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
    meta = pod.metadata
    await client.patch(PODS, meta.name, MergePatch({"status": status}), meta.namespace, subresource="status")


async def until(
    client: KubeClient, resource: Resource[V], namespace: str, name: str, reached: Callable[[V], bool]
) -> V:
    """Wait by one watch until the named object is there and as wanted."""
    with anyio.fail_after(60):
        found = await client.list(resource, namespace, field_selector=f"metadata.name={name}")
        for view in found.items:
            if reached(view):
                return view
        async with client.watch(
            resource,
            namespace,
            resource_version=found.resource_version,
            field_selector=f"metadata.name={name}",
            timeout_seconds=120,
        ) as events:
            async for event in events:
                if event.type in {EventType.ADDED, EventType.MODIFIED} and reached(event.object):
                    return event.object
    raise AssertionError(f"the watch of {resource} ended before {name} was as wanted")


async def until_gone(client: KubeClient, resource: Resource[Any], namespace: str, name: str) -> None:
    """Wait by one watch until the named object is deleted."""
    with anyio.fail_after(60):
        found = await client.list(resource, namespace, field_selector=f"metadata.name={name}")
        if not found.items:
            return
        async with client.watch(
            resource,
            namespace,
            resource_version=found.resource_version,
            field_selector=f"metadata.name={name}",
            timeout_seconds=120,
        ) as events:
            async for event in events:
                if event.type == EventType.DELETED:
                    return


class NotingTransport(TransportDecorator):
    """Passes everything on and keeps what the server forbade; a namespace that ends lacks no rights."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.forbidden: list[str] = []

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        answer = await self._inner.request(method, path, **options)
        if answer.status == 403 and b"being terminated" not in answer.body:
            self.forbidden.append(f"{method} {path}: {answer.body.decode()}")
        return answer


@asynccontextmanager
async def running(
    cluster: Kubernetes, account: Path, namespace: str
) -> AsyncIterator[tuple[KubeClient, NotingTransport]]:
    """The controllers, as their account, and a kubelet; gives an administrator's client and the controllers' wire."""
    clock = SystemClock()
    admin, plain = await connect(cluster.kubeconfig), await connect(account)
    wire = NotingTransport(plain.transport)
    client = plain.with_transport(wire)
    manager = Manager(client, clock=clock, options=ManagerOptions(component="agent-sandbox-controller"))
    register(manager, ControllerOptions())
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play_kubelet, admin, namespace)
            await tasks.start(lambda *, task_status: manager.run(task_status=task_status))
            yield admin, wire
            tasks.cancel_scope.cancel()
    finally:
        await client.aclose()
        await admin.aclose()


def claim_is_ready(view: Any) -> bool:
    return is_condition_true(view.status.conditions, "Ready")


async def test_a_pool_fills_a_claim_takes_a_member_and_nothing_was_forbidden(
    cluster: Kubernetes, account: Path, namespace: str
) -> None:
    async with running(cluster, account, namespace) as (admin, wire):
        for name in ("sandboxtemplate", "sandboxwarmpool"):
            cluster.kubectl("apply", "-n", namespace, "-f", str(CONFIG / "samples" / f"{name}.yaml"))
        pool = "python-sandbox-warmpool"
        await until(admin, SANDBOX_WARM_POOLS, namespace, pool, lambda view: view.status.ready_replicas == 2)
        policies = await admin.list(NETWORK_POLICIES, namespace)
        assert [view.metadata.name for view in policies.items] == [f"{TEMPLATE}-network-policy"]

        cluster.kubectl("apply", "-n", namespace, "-f", str(CONFIG / "samples" / "sandboxclaim.yaml"))
        claim = await until(admin, SANDBOX_CLAIMS, namespace, "python-sandbox-claim", claim_is_ready)
        held = claim.status.sandbox_name or ""
        sandbox = await admin.get(SANDBOXES, held, namespace)
        assert sandbox.metadata.controller is not None
        assert sandbox.metadata.controller.uid == claim.metadata.uid
        assert held.startswith(pool)

        await admin.delete(SANDBOX_CLAIMS, claim.metadata.name, namespace, uid=claim.metadata.uid)
        await until_gone(admin, SANDBOXES, namespace, held)
        await until_gone(admin, PODS, namespace, held)
        assert wire.forbidden == []


async def test_a_sandbox_with_a_volume_is_suspended_and_resumed(
    cluster: Kubernetes, account: Path, namespace: str
) -> None:
    async with running(cluster, account, namespace) as (admin, wire):
        sample = CONFIG / "samples" / "needs-a-cluster" / "sandbox-with-volume.yaml"
        cluster.kubectl("apply", "-n", namespace, "-f", str(sample))
        name = "sandbox-with-volume"
        await until(admin, SANDBOXES, namespace, name, claim_is_ready)
        assert (await admin.get(SERVICES, name, namespace)).spec.cluster_ip == "None"
        volume = await admin.get(PERSISTENT_VOLUME_CLAIMS, f"workspace-{name}", namespace)

        await admin.set_scale(SANDBOXES, name, 0, namespace)
        await until_gone(admin, PODS, namespace, name)
        kept = await admin.get(PERSISTENT_VOLUME_CLAIMS, f"workspace-{name}", namespace)
        assert kept.metadata.uid == volume.metadata.uid

        await admin.set_scale(SANDBOXES, name, 1, namespace)
        await until(admin, SANDBOXES, namespace, name, claim_is_ready)
        assert wire.forbidden == []


async def test_a_cold_claim_starts_a_sandbox_of_its_own(cluster: Kubernetes, account: Path, namespace: str) -> None:
    async with running(cluster, account, namespace) as (admin, wire):
        for name in ("sandboxclaim", "sandboxtemplate"):
            cluster.kubectl("apply", "-n", namespace, "-f", str(CONFIG / "samples" / f"{name}.yaml"))
        claim = await until(admin, SANDBOX_CLAIMS, namespace, "python-sandbox-claim", claim_is_ready)
        assert claim.status.sandbox_name == "python-sandbox-claim"
        assert wire.forbidden == []


async def test_the_sdk_serves_an_agent_that_has_the_clients_role_only(
    cluster: Kubernetes, account: Path, namespace: str, tmp_path: Path
) -> None:
    grant = ["create", "rolebinding", "agents", "--clusterrole=agent-sandbox-client", "--user=agent", "-n", namespace]
    cluster.kubectl(*grant)
    cluster.wait_until_allowed("agent", "create", "sandboxclaims.extensions.agents.x-k8s.io", "-n", namespace)
    cluster.kubectl("apply", "-n", namespace, "-f", str(CONFIG / "samples" / "sandboxtemplate.yaml"))
    kube = await connect(cluster.kubeconfig_for("agent"))
    wire = NotingTransport(kube.transport)
    async with running(cluster, account, namespace) as (admin, _), serve_daemon(tmp_path) as (url, _):
        options = ConnectionOptions(namespace=namespace, kube=kube.with_transport(wire), api_url=url)
        async with AsyncSandboxes(namespace, options) as sandboxes:
            async with sandboxes.use(TEMPLATE, ttl=300) as sandbox:
                assert (await sandbox.run("echo 42")).stdout == "42\n"
                assert [entry.claim_name async for entry in sandboxes.list()] == [sandbox.claim_name]
                await sandbox.extend(600)
                await sandbox.suspend()
                await until_gone(admin, PODS, namespace, sandbox.sandbox_name)
                await sandbox.resume()
            await until_gone(admin, SANDBOXES, namespace, sandbox.sandbox_name)
            with pytest.raises(SandboxTemplateNotFoundError, match="no-such-template"):
                await sandboxes.create("no-such-template")
    await kube.aclose()
    assert wire.forbidden == []
