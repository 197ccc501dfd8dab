"""A cluster in this process to test programs that use the SDK: nothing of it is faked but the controllers.

The API server is the embedded one, in memory; the daemon that answers in every sandbox is the real one, in a directory
of the test's; between them stands a controller that binds claims as the test says, at once, never, or with an error.

    async with open_pretend_cluster(tmp_path) as cluster:
        async with AsyncSandboxClient("any", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
            ...
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
from aiohttp import web
from anyio.abc import TaskStatus

from agent_sandbox.kube import KubeClient, MergePatch, NotFoundError, connect
from agent_sandbox.sandboxd import SandboxdOptions, create_app
from agent_sandbox.sandboxd.app import DAEMON
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxClaimView,
)
from agent_sandbox_api.meta import format_time
from agent_sandbox_api.names import LABEL_SANDBOX_NAME_HASH, name_hash
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView

NAMESPACE: Final = "default"


def ready_condition(
    generation: int, *, status: str = "True", reason: str = "DependenciesReady", message: str = ""
) -> Any:
    """A Ready condition as a controller writes it."""
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": format_time(datetime.now(UTC)),
    }


@dataclass
class PretendCluster:
    """What a test holds of the cluster.

    Attributes:
        server: the embedded API server; None if a real one stands in its place.
        kube: a client of the API server.
        api_url: base URL of the sandboxes' daemon, which stands in for the router.
        workspace: its root.
        answer: decides the Ready condition of a new claim: keywords of ``ready_condition``, or None for silence.
        requests: headers of the requests that the daemon got.
        pod_ip: address of every Pod.
        with_pods: whether a bound claim owns its Sandbox and the Sandbox a Ready Pod, as a real router wants to see.
    """

    server: InMemoryApiServer | None
    kube: KubeClient
    api_url: str
    workspace: Path
    answer: Callable[[SandboxClaimView], dict[str, str] | None]
    requests: list[dict[str, str]] = field(default_factory=list)
    pod_ip: str = "10.0.0.1"
    with_pods: bool = False

    @property
    def api(self) -> InMemoryApiServer:
        """The embedded API server, for what cannot be said over the API."""
        assert self.server is not None, "this test needs the embedded API server"
        return self.server

    async def claim_names(self) -> list[str]:
        """The claims that exist."""
        return [claim.metadata.name for claim in (await self.kube.list(SANDBOX_CLAIMS, NAMESPACE)).items]

    async def set_ready(self, claim: SandboxClaimView, **condition: str) -> None:
        """Write a claim's status."""
        meta = claim.metadata
        status = {
            "conditions": [ready_condition(meta.generation, **condition)],
            "sandboxName": f"box-of-{meta.name}",
            "sandbox": {"name": f"box-of-{meta.name}", "podIPs": [self.pod_ip]},
        }
        await self.kube.patch(
            SANDBOX_CLAIMS, meta.name, MergePatch({"status": status}), meta.namespace, subresource="status"
        )

    async def run_controller(self, *, task_status: TaskStatus[None]) -> None:
        """Bind each new claim to a Sandbox, as ``answer`` says."""
        known = await self.kube.list(SANDBOX_CLAIMS, NAMESPACE)
        task_status.started()
        async with self.kube.watch(
            SANDBOX_CLAIMS, NAMESPACE, resource_version=known.resource_version, timeout_seconds=600
        ) as events:
            async for event in events:
                if event.type == "ADDED":
                    await self.bind(event.object)

    async def bind(self, claim: SandboxClaimView) -> None:
        """Make the Sandbox of one claim."""
        condition = self.answer(claim)
        if condition is None:
            return
        meta = claim.metadata
        sandbox: dict[str, Any] = {
            "metadata": {
                "name": f"box-of-{meta.name}",
                "namespace": meta.namespace,
                "annotations": {"agents.x-k8s.io/pod-name": f"pod-of-{meta.name}", "team": "a"},
            },
            "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}},
        }
        if self.with_pods:
            sandbox["metadata"]["ownerReferences"] = [owner_reference(SANDBOX_CLAIMS, meta)]
        try:
            made = await self.kube.create(SANDBOXES, sandbox, meta.namespace)
            if self.with_pods:
                await self._make_pod(made.metadata)
            status = MergePatch({"status": {"podIPs": [self.pod_ip]}})
            await self.kube.patch(SANDBOXES, made.metadata.name, status, meta.namespace, subresource="status")
            await self.set_ready(claim, **condition)
        except NotFoundError:
            return  # deleted meanwhile

    async def _make_pod(self, sandbox: MetaView) -> None:
        metadata = {
            "name": sandbox.name,
            "namespace": sandbox.namespace,
            "labels": {LABEL_SANDBOX_NAME_HASH: name_hash(sandbox.name)},
            "ownerReferences": [owner_reference(SANDBOXES, sandbox)],
        }
        await self.kube.create(PODS, {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "x"}]}})
        ready = [{"type": "Ready", "status": "True"}]
        status = {
            "phase": "Running",
            "podIP": self.pod_ip,
            "podIPs": [{"ip": self.pod_ip}],
            "conditions": ready,
        }
        patch = MergePatch({"status": status})
        await self.kube.patch(PODS, sandbox.name, patch, sandbox.namespace, subresource="status")


def owner_reference(resource: Resource[Any], owner: MetaView) -> dict[str, Any]:
    """What a child says of the object that controls it."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
    }


@asynccontextmanager
async def open_pretend_cluster(workspace: Path, *, kubeconfig: Path | None = None) -> AsyncIterator[PretendCluster]:
    """Everything up; use it in the event loop that the test's client uses.

    Args:
        workspace: root of the sandboxes' daemon.
        kubeconfig: names a real API server to use instead of the embedded one. It has our definitions; our objects in
            its default namespace are deleted before and after.
    """
    async with (
        _api_server(kubeconfig) as (server, kube),
        serve_daemon(workspace) as (url, requests),
        anyio.create_task_group() as tasks,
    ):
        cluster = PretendCluster(server, kube, url, workspace, lambda _: {}, requests)
        await tasks.start(lambda *, task_status: cluster.run_controller(task_status=task_status))
        yield cluster
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _api_server(kubeconfig: Path | None) -> AsyncIterator[tuple[InMemoryApiServer | None, KubeClient]]:
    if kubeconfig is None:
        async with InMemoryApiServer(crds=load_crds()) as server:
            yield server, KubeClient(server.transport())
        return
    kube, cleaner = await connect(kubeconfig), await connect(kubeconfig)
    try:
        await _delete_ours(cleaner)
        yield None, kube
    finally:
        with anyio.CancelScope(shield=True):
            await kube.aclose()
            await _delete_ours(cleaner)
            await cleaner.aclose()


async def _delete_ours(kube: KubeClient) -> None:
    ours: tuple[Resource[Any], ...] = (SANDBOX_CLAIMS, SANDBOX_WARM_POOLS, SANDBOX_TEMPLATES, SANDBOXES)
    for resource in ours:
        for view in (await kube.list(resource, NAMESPACE)).items:
            with suppress(NotFoundError):
                await kube.delete(resource, view.metadata.name, NAMESPACE, uid=view.metadata.uid)


@asynccontextmanager
async def serve_daemon(workspace: Path) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """The real daemon on a free port; gives its URL and the headers that it gets."""
    requests: list[dict[str, str]] = []

    @web.middleware
    async def note_headers(request: web.Request, handler: Any) -> web.StreamResponse:
        requests.append(dict(request.headers))
        answer: web.StreamResponse = await handler(request)
        return answer

    async with anyio.create_task_group() as tasks:
        # As in a Pod: behind a router the Host of a request is no name of this machine.
        options = SandboxdOptions(host="0.0.0.0", root=workspace, allowed_roots=(workspace.parent,))  # noqa: S104
        app = create_app(options, tasks)
        app.middlewares.append(note_headers)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", requests
        finally:
            with anyio.CancelScope(shield=True):
                await app[DAEMON].stop()
                await runner.cleanup()
            tasks.cancel_scope.cancel()
            app[DAEMON].close()
