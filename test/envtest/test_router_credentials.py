"""Credentials on a real API server: RBAC decides, under the very role that the router has."""

import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import anyio
import pytest
import yaml

from agent_sandbox.kube import KubeClient, MergePatch, connect
from agent_sandbox.sdk import AsyncSandboxes, ConnectionOptions
from agent_sandbox.testing.envtest import Kubernetes
from agent_sandbox.testing.pretend_cluster import PretendCluster, serve_daemon
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]
CONFIG = Path(__file__).resolve().parents[2] / "config"
SYSTEM = "agent-sandbox-system"


@pytest.fixture(scope="module", autouse=True)
def applied(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Everything that a cluster gets, the rights of the component tokenreview, and an account for the SDK."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CONFIG / "default"))
    cluster.kubectl("apply", "-f", str(CONFIG / "tokenreview" / "rbac.yaml"))
    cluster.wait_until_served()
    for account in ("agent", "stranger", "my-account"):
        cluster.kubectl("create", "serviceaccount", account)
    cluster.kubectl(
        "create", "rolebinding", "agent", "--clusterrole=agent-sandbox-client", "--serviceaccount=default:agent"
    )
    own_token = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "own-token", "namespace": "default"},
        "rules": [
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["agent"], "verbs": ["create"]}
        ],
    }
    file = tmp_path_factory.mktemp("role") / "role.yaml"
    file.write_text(yaml.safe_dump(own_token))
    cluster.kubectl("apply", "-f", str(file))
    cluster.kubectl("create", "rolebinding", "own-token", "--role=own-token", "--serviceaccount=default:agent")
    agent, router = "system:serviceaccount:default:agent", f"system:serviceaccount:{SYSTEM}:sandbox-router"
    cluster.wait_until_allowed(agent, "create", "sandboxclaims.extensions.agents.x-k8s.io")
    cluster.wait_until_allowed(agent, "create", "serviceaccounts/agent", "--subresource=token")
    cluster.wait_until_allowed(router, "watch", "pods")
    cluster.wait_until_allowed(router, "create", "tokenreviews.authentication.k8s.io")


@asynccontextmanager
async def routed(cluster: Kubernetes, folder: Path, *modes: str) -> AsyncIterator[tuple[str, PretendCluster]]:
    """The router as a process under its own account, in front of Pods that are this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kubeconfig = cluster.kubeconfig_for_service_account(SYSTEM, "sandbox-router")
    flags = [flag for mode in modes for flag in ("--authz-mode", mode)]
    command = [sys.executable, "-m", "agent_sandbox", "router", "--kubeconfig", str(kubeconfig), "--port", str(port)]
    admin = await connect(cluster.kubeconfig)
    with (folder / "router.log").open("wb") as log:
        async with serve_daemon(folder / "workspace") as (url, _), anyio.create_task_group() as tasks:
            pretended = PretendCluster(cast("Any", None), admin, url, folder / "workspace", lambda _: {})
            pretended.with_pods, pretended.pod_ip = True, "127.0.0.1"
            await tasks.start(pretended.run_controller)
            async with await anyio.open_process([*command, *flags], stdout=log, stderr=log) as router:
                try:
                    await until_served(f"http://127.0.0.1:{port}")
                    yield f"http://127.0.0.1:{port}", pretended
                finally:
                    router.kill()
            tasks.cancel_scope.cancel()
    await admin.aclose()


def documented(beginning: str, claim: str) -> list[list[str]]:
    """The kubectl commands that docs/router.md shows, for a claim that has another name."""
    text = (CONFIG.parent / "docs" / "router.md").read_text()
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if beginning in block]
    lines = [
        line.replace("resource-name=my-claim", f"resource-name={claim}")
        for line in block.splitlines()
        if line.startswith("kubectl ")
    ]
    assert len(lines) == 2
    return [shlex.split(line)[1:] for line in lines]


async def until_served(url: str) -> None:
    with anyio.fail_after(90):
        while True:
            try:
                async with aiohttp.request("GET", f"{url}/healthz"):
                    return
            except aiohttp.ClientConnectorError:
                await anyio.sleep(0.1)  # another process: there is nothing to wait on


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def status_with(url: str, sandbox: str, port: int, token: str) -> int:
    headers = {"X-Sandbox-ID": sandbox, "X-Sandbox-Port": str(port), "X-Sandbox-Authorization": f"Bearer {token}"}
    async with aiohttp.request("GET", f"{url}/", headers=headers) as answer:
        return answer.status


async def test_rbac_decides_who_reaches_a_claim_and_the_sdk_gets_its_token_by_itself(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    account = cluster.kubeconfig_for_service_account("default", "agent")
    async with routed(cluster, tmp_path, "tokenreview") as (url, pretended):
        port = port_of(pretended.api_url)
        options = ConnectionOptions(kubeconfig=account, local=False, api_url=url, server_port=port)
        async with AsyncSandboxes(options=options) as sandboxes, sandboxes.use("any") as sandbox:
            assert (await sandbox.run("echo 42")).stdout == "42\n"

            def token_of(account: str, *flags: str) -> str:
                return cluster.kubectl("create", "token", account, *flags).stdout.strip()

            mine = token_of("agent", "--audience=agent-sandbox-router")
            assert await status_with(url, sandbox.claim_name, port, mine) == 200
            assert await status_with(url, "nobody", port, mine) == 404
            strangers = token_of("stranger", "--audience=agent-sandbox-router")
            assert await status_with(url, sandbox.claim_name, port, strangers) == 403
            assert await status_with(url, "nobody", port, strangers) == 403
            for line in documented("create role", sandbox.claim_name):
                cluster.kubectl(*line)
            # The router keeps an answer for half a minute: it must not ask before the server goes by the new role.
            claim = f"sandboxclaims.extensions.agents.x-k8s.io/{sandbox.claim_name}"
            guest = "system:serviceaccount:default:my-account"
            cluster.wait_until_allowed(guest, "create", claim, "--subresource=connect")
            guests = token_of("my-account", "--audience=agent-sandbox-router")
            assert await status_with(url, sandbox.claim_name, port, guests) == 200
            async with sandboxes.use("any") as other:
                assert await status_with(url, other.claim_name, port, guests) == 403
            for_the_api_server = token_of("agent")
            assert await status_with(url, sandbox.claim_name, port, for_the_api_server) == 401


async def test_a_claims_own_key_opens_it_and_a_request_wakes_under_the_routers_role(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    account = cluster.kubeconfig_for_service_account("default", "agent")
    async with routed(cluster, tmp_path, "claim-key") as (url, pretended):
        port = port_of(pretended.api_url)
        options = ConnectionOptions(kubeconfig=account, local=False, api_url=url, server_port=port)
        async with AsyncSandboxes(options=options) as sandboxes, sandboxes.use("any") as sandbox:
            assert (await sandbox.run("echo 42")).stdout == "42\n"
            await suspend(pretended.kube, sandbox.sandbox_name)

            async def ask() -> None:
                while True:  # the first may come before the router has heard that the Pod is gone
                    await sandbox.is_ready()
                    await anyio.sleep(0.1)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                with anyio.fail_after(60):
                    await until_scaled_up(pretended.kube, sandbox.sandbox_name)
                tasks.cancel_scope.cancel()


async def until_scaled_up(kube: KubeClient, name: str) -> None:
    found = await kube.list(SANDBOXES, "default", field_selector=f"metadata.name={name}")
    async with kube.watch(SANDBOXES, "default", resource_version=found.resource_version, timeout_seconds=60) as events:
        while not (await kube.get_scale(SANDBOXES, name, "default")).replicas:
            await anext(events)


async def suspend(kube: KubeClient, name: str) -> None:
    """What a suspended Sandbox looks like whose template lets requests wake it."""
    wakes = {"metadata": {"annotations": {"agents.x-k8s.io/wake-on-request": "true"}}}
    patch = MergePatch({"spec": {"replicas": 0, "podTemplate": wakes}})
    await kube.patch(SANDBOXES, name, patch, "default")
    pod = await kube.get(PODS, name, "default")
    await kube.delete(PODS, name, "default", uid=pod.metadata.uid, grace_period_seconds=0)
