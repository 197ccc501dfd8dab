"""What the Makefile offers for clusters, run as people run it, against a real API server of its own.

There is no kubelet: Deployments are stored and no Pod runs. So the processes are started here, each with the token of
its own service account and with exactly the arguments that its Deployment gives it, apart from files and addresses.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.kube import EventType, connect
from agent_sandbox.testing.envtest import KubeAssets, Kubernetes, kubernetes
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM = "agent-sandbox-system"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """A Kubernetes that this module may empty."""
    assets = KubeAssets.find()
    if assets.kube_controller_manager is None:
        pytest.skip("the assets have no kube-controller-manager, which removes namespaces")
    with kubernetes(tmp_path_factory.mktemp("make"), assets=assets, controller_manager=True) as server:
        yield server


def make(cluster: Kubernetes, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    command = ["make", *words, f"KUBECTL={cluster.assets.kubectl}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def crds(cluster: Kubernetes) -> set[str]:
    return set(cluster.kubectl("get", "crd", "-o", "name").stdout.split())


def test_install_and_uninstall_are_each_others_inverse(cluster: Kubernetes) -> None:
    make(cluster, "install")
    assert len(crds(cluster)) == 4
    cluster.wait_until_served()
    cluster.kubectl("apply", "-f", str(REPOSITORY / "config" / "samples" / "sandbox.yaml"))
    told = make(cluster, "uninstall").stderr
    assert crds(cluster) == set()
    assert "sandbox.agents.x-k8s.io/my-sandbox" in told, "what goes is listed before it goes"


def test_kinds_that_nobody_has_read_are_removed_at_once(cluster: Kubernetes) -> None:
    make(cluster, "install")
    make(cluster, "uninstall")
    assert crds(cluster) == set()


@pytest.mark.parametrize("components", ["", "grafana high-availability", "namespaced"])
def test_deploy_brings_everything_once_and_undeploy_takes_it_away(cluster: Kubernetes, components: str) -> None:
    words = ["REGISTRY=registry.example.com/team", "VERSION=0.1.0", f"COMPONENTS={components}"]
    make(cluster, "deploy", *words)
    images = cluster.kubectl("get", "deployment", "-n", SYSTEM, "-o", "jsonpath={..image}").stdout.split()
    assert images == [
        f"registry.example.com/team/{name}:0.1.0" for name in ("agent-sandbox-controller", "sandbox-router")
    ]
    make(cluster, "deploy", *words)
    generations = ["get", "deployment", "-n", SYSTEM, "-o", "jsonpath={.items[*].metadata.generation}"]
    assert set(cluster.kubectl(*generations).stdout.split()) == {"1"}, "a second deploy changes nothing"

    make(cluster, "undeploy", *words)
    assert crds(cluster) == set()
    assert cluster.kubectl("get", "namespace", SYSTEM, check=False).returncode != 0
    left = cluster.kubectl("get", "clusterrole,clusterrolebinding,role,rolebinding", "-A", "-o", "name").stdout
    assert "sandbox" not in left


async def test_with_the_component_namespaced_a_sandbox_starts_under_rights_of_one_namespace(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    make(cluster, "deploy", "REGISTRY=localhost", "COMPONENTS=namespaced")
    try:
        cluster.wait_until_served()
        account = f"system:serviceaccount:{SYSTEM}:agent-sandbox-controller"
        cluster.wait_until_allowed(account, "create", "pods", "-n", "default")
        cluster.wait_until_allowed(account, "update", "leases", "-n", SYSTEM)
        kubeconfig = cluster.kubeconfig_for_service_account(SYSTEM, "agent-sandbox-controller")
        arguments = [*arguments_of(cluster, "agent-sandbox-controller"), "--kubeconfig", str(kubeconfig)]
        arguments += ["--metrics-bind-address=", "--health-probe-bind-address="]
        log = tmp_path / "manager.log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "agent_sandbox", *arguments]
            async with await anyio.open_process(command, stdout=out, stderr=out) as manager:
                try:
                    cluster.kubectl("apply", "-f", str(REPOSITORY / "config" / "samples" / "sandbox.yaml"))
                    await until_a_pod_is_made(cluster)
                finally:
                    manager.terminate()
        assert " cannot " not in log.read_text()
    finally:
        make(cluster, "undeploy", "COMPONENTS=namespaced")


def arguments_of(cluster: Kubernetes, deployment: str) -> list[str]:
    found: dict[str, Any] = json.loads(
        cluster.kubectl("get", "deployment", deployment, "-n", SYSTEM, "-o", "json").stdout
    )
    return list(found["spec"]["template"]["spec"]["containers"][0]["args"])


async def until_a_pod_is_made(cluster: Kubernetes) -> None:
    client = await connect(cluster.kubeconfig)
    try:
        with anyio.fail_after(60):
            found = await client.list(PODS, "default")
            if found.items:
                return
            version = found.resource_version
            async with client.watch(PODS, "default", resource_version=version, timeout_seconds=90) as events:
                async for event in events:
                    if event.type is EventType.ADDED:
                        assert event.object.metadata.controller is not None
                        assert event.object.metadata.controller.kind == SANDBOXES.kind
                        return
    finally:
        await client.aclose()
    raise AssertionError("the watch ended before there was a Pod")
