"""The doctor: what is wrong between a program and its sandboxes is found, named, and comes with the next step."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent_sandbox.kube import KubeClient, MergePatch
from agent_sandbox.sdk import ConnectionOptions, Finding, diagnose
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox.testing.pretend_cluster import PretendCluster, ready_condition
from agent_sandbox_api.core import CUSTOM_RESOURCE_DEFINITIONS, LEASES, NAMESPACES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_api.names import CONTROLLER_LEASE, SYSTEM_NAMESPACE


async def findings_of(**options: Any) -> dict[str, Finding]:
    """All findings by what was looked at."""
    return {finding.check: finding async for finding in diagnose(ConnectionOptions(**options))}


async def hold_lease(kube: KubeClient, *, seconds_ago: float) -> None:
    """A leader that was last heard of so long ago."""
    await kube.create(NAMESPACES, {"metadata": {"name": SYSTEM_NAMESPACE}})
    await kube.create(
        LEASES,
        {
            "metadata": {"name": CONTROLLER_LEASE, "namespace": SYSTEM_NAMESPACE},
            "spec": {
                "holderIdentity": "manager-1",
                "leaseDurationSeconds": 15,
                "renewTime": (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="microseconds"),
            },
        },
        SYSTEM_NAMESPACE,
    )


async def make_template(kube: KubeClient, **condition: str) -> None:
    """A template that a controller has looked at, if a condition is given."""
    spec = {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}
    await kube.create(SANDBOX_TEMPLATES, {"metadata": {"name": "python"}, "spec": spec}, "default")
    if condition:
        status = {"status": {"conditions": [ready_condition(1, **condition)]}}
        await kube.patch(SANDBOX_TEMPLATES, "python", MergePatch(status), "default", subresource="status")


async def test_a_cluster_without_our_kinds_is_told_what_to_apply() -> None:
    async with InMemoryApiServer() as api:
        found = await findings_of(kube=KubeClient(api.transport()), api_url="http://127.0.0.1:9")

    assert [found[check].verdict for check in ("cluster", "credential", "definitions")] == ["ok", "ok", "fail"]
    assert "sandboxclaims.extensions.agents.x-k8s.io" in found["definitions"].message
    assert "config/crd" in found["definitions"].next_step
    assert "router" not in found


async def test_definitions_that_lack_a_field_are_older_than_this_program(cluster: PretendCluster) -> None:
    name = "sandboxclaims.extensions.agents.x-k8s.io"
    crd = await cluster.kube.get_object(CUSTOM_RESOURCE_DEFINITIONS, name)
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["env"]
    await cluster.kube.update(CUSTOM_RESOURCE_DEFINITIONS, crd)

    found = (await findings_of(kube=cluster.kube, api_url=cluster.api_url))["definitions"]

    assert found.verdict == "warn"
    assert name in found.message


async def test_nothing_installed_but_the_kinds(cluster: PretendCluster) -> None:
    """Controllers, router and templates are each told for themselves."""
    found = await findings_of(kube=cluster.kube, api_url="http://127.0.0.1:9")

    assert found["definitions"] == Finding(
        "definitions", "ok", "all four kinds are installed, v1alpha1, as this program knows them"
    )
    assert (found["controllers"].verdict, found["controllers"].next_step.split()[0]) == ("fail", "kubectl")
    assert (found["router"].verdict, "does not answer" in found["router"].message) == ("fail", True)
    assert (found["templates"].verdict, found["templates"].next_step) == (
        "warn",
        "agent-sandbox apply -f config/samples",
    )
    assert found["pools"].verdict == "ok"


@pytest.mark.parametrize(("seconds_ago", "verdict"), [(1, "ok"), (29, "ok"), (60, "fail")])
async def test_a_leader_that_is_silent_for_two_leases_leads_no_more(
    cluster: PretendCluster, seconds_ago: float, verdict: str
) -> None:
    await hold_lease(cluster.kube, seconds_ago=seconds_ago)

    found = (await findings_of(kube=cluster.kube, api_url=cluster.api_url))["controllers"]

    assert found.verdict == verdict
    assert "manager-1" in found.message


async def test_controllers_without_an_election_are_known_by_their_work(cluster: PretendCluster) -> None:
    """`make run` holds no Lease; its conditions show that it was there."""
    await make_template(cluster.kube, status="True")

    assert (await findings_of(kube=cluster.kube, api_url=cluster.api_url))["controllers"].verdict == "warn"


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        ("not-found", "ok", "takes the credential"),
        ("unauthenticated", "fail", "does not take the credential"),
        ("forbidden", "ok", "certain sandboxes only"),
        ("rate-limited", "warn", "rate-limited"),
        (None, "fail", "no router"),
    ],
)
async def test_what_the_router_says_of_a_sandbox_that_cannot_exist(
    cluster: PretendCluster, reason: str | None, verdict: str, words: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["X-Sandbox-Authorization"] == "Bearer secret"
        return web.Response(headers={"X-Sandbox-Error": reason} if reason else {})

    async with served(answer) as url:
        found = (await findings_of(kube=cluster.kube, api_url=url, router_token="secret"))["router"]

    assert (found.verdict, words in found.message) == (verdict, True), found
    assert "secret" not in found.message + found.next_step


async def test_a_client_that_signs_for_each_sandbox_has_nothing_to_show_for_none(cluster: PretendCluster) -> None:
    """A router that wants signed tokens refuses a question about no sandbox: that is no fault of the credential."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401, headers={"X-Sandbox-Error": "unauthenticated"})

    async with served(refuse) as url:
        found = (await findings_of(kube=cluster.kube, api_url=url))["router"]

    assert (found.verdict, "key" in found.message) == ("ok", True)


async def test_a_cluster_without_a_router_is_told_to_install_it_without_waiting(cluster: PretendCluster) -> None:
    found = (await findings_of(kube=cluster.kube))["router"]

    assert (found.verdict, "sandbox-router-svc" in found.message) == ("fail", True)
    assert "config/default" in found.next_step


@asynccontextmanager
async def served(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A server that answers so at its root."""
    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_templates_pools_and_sandboxes_in_trouble_are_named(cluster: PretendCluster) -> None:
    await make_template(cluster.kube, status="False", reason="PolicyRejected", message="no such field")
    pool = {"replicas": 2, "sandboxTemplateRef": {"name": "python"}}
    await cluster.kube.create(SANDBOX_WARM_POOLS, {"metadata": {"name": "quick"}, "spec": pool}, "default")
    cluster.answer = lambda _: {"status": "False", "reason": "ImagePullBackOff", "message": "no such image"}
    claim = {"metadata": {"name": "box"}, "spec": {"sandboxTemplateRef": {"name": "python"}}}
    made = await cluster.kube.create(SANDBOX_CLAIMS, claim, "default")
    await cluster.set_ready(made, status="False", reason="ImagePullBackOff", message="no such image")

    found = await findings_of(kube=cluster.kube, api_url=cluster.api_url)

    assert {found[check].verdict for check in ("templates", "pools", "sandboxes")} == {"warn"}
    assert "python: Ready is False, PolicyRejected: no such field" in found["templates"].message
    assert "quick 0 of 2 ready" in found["pools"].message
    assert "box: ImagePullBackOff: no such image" in found["sandboxes"].message
    assert found["sandboxes"].next_step == "agent-sandbox rm box"


async def test_no_cluster_at_all_is_the_only_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("KUBECONFIG", "AGENT_SANDBOX_STATE_DIR", "AGENT_SANDBOX_LOCAL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    found = await findings_of()

    assert list(found) == ["cluster"]
    assert (found["cluster"].verdict, found["cluster"].next_step) == ("fail", "agent-sandbox local up --background")


async def test_a_server_that_is_away_is_told_with_its_address(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
        "contexts: [{name: a, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n"
    )
    found = await findings_of(kubeconfig=kubeconfig)

    assert list(found) == ["cluster"]
    assert "127.0.0.1:9" in found["cluster"].message
    assert found["cluster"].next_step == "kubectl cluster-info"
