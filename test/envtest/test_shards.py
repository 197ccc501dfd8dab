"""Namespace shards, as docs/guides/tuning.md describes them: two managers, disjoint namespaces, a Lease each."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from agent_sandbox.testing.envtest import Kubernetes

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

CONFIG = Path(__file__).resolve().parents[2] / "config"


@asynccontextmanager
async def shard(cluster: Kubernetes, folder: Path, name: str, namespace: str) -> AsyncIterator[None]:
    """A manager for one namespace, with its Lease in a namespace of its own."""
    arguments = ["manager", "--kubeconfig", str(cluster.kubeconfig), "--leader-elect"]
    arguments += [f"--leader-election-namespace={name}", f"--watch-namespaces={namespace}"]
    arguments += ["--metrics-bind-address=", "--health-probe-bind-address="]
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "agent_sandbox", *arguments]
        async with await anyio.open_process(command, stdout=log, stderr=log) as running:
            try:
                yield
            finally:
                running.terminate()


async def test_each_shard_serves_its_own_namespaces_and_nobody_those_of_none(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CONFIG / "crd"))
    cluster.wait_until_served()
    for name in ("shard-a", "shard-b", "team-1", "team-2", "nobodys"):
        cluster.kubectl("create", "namespace", name)
        cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shard(cluster, tmp_path, "shard-a", "team-1"))
        await stack.enter_async_context(shard(cluster, tmp_path, "shard-b", "team-2"))
        for name in ("nobodys", "team-1", "team-2"):
            cluster.kubectl("apply", "-f", str(CONFIG / "samples/sandbox.yaml"), "-n", name)
        for name in ("team-1", "team-2"):
            cluster.kubectl("wait", "--for=create", "pod/my-sandbox", "-n", name, "--timeout=60s")

        leases = cluster.kubectl("get", "leases", "-A", "-o", "name", "--field-selector=metadata.namespace=shard-a")
        assert leases.stdout.strip().endswith("/agent-sandbox-controller")
        assert cluster.kubectl("get", "pods,services", "-n", "nobodys", "-o", "name").stdout == ""
        for own, foreign in (("shard-a", "team-2"), ("shard-b", "team-1")):
            assert f'"{foreign}"' not in (tmp_path / f"{own}.log").read_text()
    cluster.kubectl("delete", "namespace", "shard-a", "shard-b", "team-1", "team-2", "nobodys", "--wait=false")
