"""One trace from the SDK's create to the first command: all parts are real, and put their spans into one memory.

API server, controllers, router and daemon run in this process; the kubelet is played.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from agent_sandbox import tracing
from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import ConflictError, EventType, KubeClient, MergePatch, NotFoundError
from agent_sandbox.router import Directory, Router, RouterOptions
from agent_sandbox.runtime import Cache, Manager
from agent_sandbox.sdk import AsyncSandboxClient, SandboxClient
from agent_sandbox.sdk.loop_thread import shared_loop
from agent_sandbox.testing import InMemoryApiServer
from agent_sandbox.testing.pretend_cluster import open_pretend_cluster, serve_daemon
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_WARM_POOLS
from agent_sandbox_api.views import is_condition_true
from agent_sandbox_controllers import register

ANNOTATION = "opentelemetry.io/trace-context"
GROUP = "extensions.agents.x-k8s.io/v1alpha1"
POD = {"containers": [{"name": "main", "image": "python-runtime-sandbox"}]}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Everything that was traced in this test, in memory; afterwards the process has no tracer provider again."""
    trace = pytest.importorskip("opentelemetry.trace", reason="OpenTelemetry is not installed: pip install '.[otel]'")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield memory
    provider.shutdown()


@dataclass
class Cluster:
    """What a test needs of the running parts."""

    kube: KubeClient
    router_url: str
    daemon_port: int

    def client(self, **options: Any) -> AsyncSandboxClient:
        return AsyncSandboxClient(
            "python", kube=self.kube, api_url=self.router_url, server_port=self.daemon_port, **options
        )


@asynccontextmanager
async def running(workspace: Path) -> AsyncIterator[Cluster]:
    """API server, controllers, router, daemon."""
    async with (
        InMemoryApiServer(crds=load_crds()) as api,
        serve_daemon(workspace) as (daemon_url, _),
        anyio.create_task_group() as tasks,
    ):
        kube = KubeClient(api.transport())
        template = {"podTemplate": {"spec": POD}, "service": False}
        await api.create(
            {
                "apiVersion": GROUP,
                "kind": "SandboxTemplate",
                "metadata": {"name": "python", "namespace": "default"},
                "spec": template,
            }
        )
        manager = Manager(KubeClient(api.transport()))
        register(manager)
        await tasks.start(manager.run)
        tasks.start_soon(play_kubelet, kube)
        cache = Cache(KubeClient(api.transport()), clock=SystemClock())
        directory = Directory()
        directory.follow(cache)
        await tasks.start(cache.run)
        await cache.wait_until_synced(10)
        router = Router(directory, options=RouterOptions(port=0), kube=kube)
        url = await tasks.start(router.serve)
        yield Cluster(kube, url, urlsplit(daemon_url).port or 0)
        tasks.cancel_scope.cancel()


async def play_kubelet(kube: KubeClient) -> None:
    """Make every Pod Ready at once, all at the daemon's address."""
    ready = [{"type": name, "status": "True"} for name in ("PodScheduled", "Ready")]
    status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": ready}
    async with kube.watch(PODS, resource_version="0", timeout_seconds=600) as events:
        async for event in events:
            if event.type is EventType.ADDED:
                meta = event.object.metadata
                try:
                    await kube.patch(
                        PODS, meta.name, MergePatch({"status": status}), meta.namespace, subresource="status"
                    )
                except (NotFoundError, ConflictError):
                    continue


def by_name(spans: Any) -> dict[str, Any]:
    """The first span of each name."""
    found: dict[str, Any] = {}
    for span in spans.get_finished_spans():
        found.setdefault(span.name, span)
    return found


def parent_of(span: Any, spans: Any) -> str:
    """The name of a span's parent; empty for a root."""
    if span.parent is None:
        return ""
    (name,) = {each.name for each in spans.get_finished_spans() if each.context.span_id == span.parent.span_id}
    return str(name)


async def test_a_cold_start_and_its_first_command_are_one_trace_with_the_right_parents(
    spans: Any, tmp_path: Path
) -> None:
    async with running(tmp_path / "w") as cluster, cluster.client(warmpool="none") as sandbox:
        claim = await cluster.kube.get(SANDBOX_CLAIMS, sandbox.claim_name or "", "default")
        box = await cluster.kube.get(SANDBOXES, sandbox.sandbox_name or "", "default")
        result = await sandbox.run("echo secret-word")
    assert result.stdout == "secret-word\n"

    found = by_name(spans)
    daemon = next(
        each for each in spans.get_finished_spans() if each.name == "POST /execute" and each.kind.name == "SERVER"
    )
    router = next(each for each in spans.get_finished_spans() if each.context.span_id == daemon.parent.span_id)
    assert parent_of(found["sandbox.create"], spans) == ""
    assert parent_of(found["reconcile SandboxClaim"], spans) == "sandbox.create"
    assert parent_of(found["reconcile Sandbox"], spans) == "reconcile SandboxClaim"
    assert parent_of(found["sandbox.run"], spans) == "sandbox.create"
    assert router.name == "router"
    assert parent_of(router, spans) == "POST /execute", "the SDK's request"
    assert len({each.context.trace_id for each in spans.get_finished_spans()}) == 1

    assert tracing.from_annotation(claim.metadata.annotations[ANNOTATION])["traceparent"].split("-")[2] == (
        f"{found['sandbox.create'].context.span_id:016x}"
    )
    assert tracing.from_annotation(box.metadata.annotations[ANNOTATION])
    told = json.dumps([[each.name, dict(each.attributes)] for each in spans.get_finished_spans()])
    assert "secret-word" not in told
    assert '"process.exit_code": 0' in told


async def test_a_warm_start_within_a_trace_of_the_program_joins_it(spans: Any, tmp_path: Path) -> None:
    async with running(tmp_path / "w") as cluster:
        await cluster.kube.create(
            SANDBOX_WARM_POOLS,
            {"metadata": {"name": "pool"}, "spec": {"replicas": 1, "sandboxTemplateRef": {"name": "python"}}},
            "default",
        )
        await until_a_sandbox_is_ready(cluster.kube)
        assert spans.get_finished_spans() == (), "what nobody asked for within a trace is in none"
        with tracing.span("agent"):
            async with cluster.client() as sandbox:
                await sandbox.commands.run("true")
                box = await cluster.kube.get(SANDBOXES, sandbox.sandbox_name or "", "default")

    found = by_name(spans)
    assert parent_of(found["sandbox.create"], spans) == "agent"
    assert parent_of(found["sandbox.run"], spans) == "agent"
    assert parent_of(found["reconcile SandboxClaim"], spans) == "sandbox.create"
    assert "reconcile Sandbox" not in found, "it was Ready before: nothing of it is on the way of this start"
    assert box.metadata.annotations[ANNOTATION]
    assert {each.context.trace_id for each in spans.get_finished_spans()} == {found["agent"].context.trace_id}


async def until_a_sandbox_is_ready(kube: KubeClient) -> None:
    with anyio.fail_after(60):
        async with kube.watch(SANDBOXES, "default", resource_version="0", timeout_seconds=60) as events:
            async for event in events:
                if event.view is not None and is_condition_true(event.view.status.conditions, "Ready"):
                    return


async def test_without_a_tracer_provider_nothing_is_annotated_and_no_header_is_sent(tmp_path: Path) -> None:
    async with running(tmp_path / "w") as cluster, cluster.client(warmpool="none") as sandbox:
        claim = await cluster.kube.get(SANDBOX_CLAIMS, sandbox.claim_name or "", "default")
        result = await sandbox.run("true")

    assert result.exit_code == 0
    assert ANNOTATION not in claim.metadata.annotations


def test_the_synchronous_client_joins_the_trace_of_the_thread_that_uses_it(spans: Any, tmp_path: Path) -> None:
    """Its work is done in a thread of its own."""
    hosted = shared_loop().host(open_pretend_cluster(tmp_path / "w"))
    cluster = hosted.enter()
    try:
        with tracing.span("agent"), SandboxClient("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
            sandbox.run("true")
    finally:
        hosted.leave(None)

    found = by_name(spans)
    assert parent_of(found["sandbox.create"], spans) == "agent"
    assert parent_of(found["sandbox.run"], spans) == "agent"
    daemon = next(each for each in spans.get_finished_spans() if each.kind.name == "SERVER")
    assert daemon.context.trace_id == found["agent"].context.trace_id
