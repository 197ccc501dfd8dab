"""The two commands of our Deployments, as processes, each with the kubeconfig of its own service account."""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import anyio.abc
import pytest

from agent_sandbox.kube import EventType, KubeClient, connect
from agent_sandbox.testing.envtest import Kubernetes
from agent_sandbox_api.core import LEASES

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

CONFIG = Path(__file__).resolve().parents[2] / "config"
SYSTEM = "agent-sandbox-system"
LEASE = "agent-sandbox-controller"


@pytest.fixture(scope="module", autouse=True)
def applied(cluster: Kubernetes) -> None:
    """Everything that a cluster gets."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CONFIG / "default"))
    cluster.wait_until_served()
    account = f"system:serviceaccount:{SYSTEM}:"
    cluster.wait_until_allowed(f"{account}agent-sandbox-controller", "create", "pods")
    cluster.wait_until_allowed(f"{account}agent-sandbox-controller", "update", "leases", "-n", SYSTEM)
    cluster.wait_until_allowed(f"{account}sandbox-router", "watch", "pods")


@asynccontextmanager
async def process(folder: Path, name: str, *arguments: str) -> AsyncIterator[anyio.abc.Process]:
    """`agent-sandbox ...` with its log in a file; killed if the block does not end it."""
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "agent_sandbox", *arguments]
        async with await anyio.open_process(command, stdout=log, stderr=log) as running:
            try:
                yield running
            finally:
                if running.returncode is None:
                    running.kill()


async def ended(running: anyio.abc.Process) -> int:
    """Ask it to end, as a kubelet does, and give its exit status."""
    running.send_signal(signal.SIGTERM)
    with anyio.fail_after(40):
        return await running.wait()


async def holder_other_than(client: KubeClient, known: str | None) -> str:
    """Wait by one watch until somebody else holds the Lease."""
    with anyio.fail_after(60):
        found = await client.list(LEASES, SYSTEM, field_selector=f"metadata.name={LEASE}")
        for lease in found.items:
            if lease.spec.holder_identity not in {known, None, ""}:
                return str(lease.spec.holder_identity)
        async with client.watch(LEASES, SYSTEM, resource_version=found.resource_version, timeout_seconds=120) as events:
            async for event in events:
                if event.type in {EventType.ADDED, EventType.MODIFIED} and event.object.metadata.name == LEASE:
                    holder = event.object.spec.holder_identity
                    if holder not in {known, None, ""}:
                        return str(holder)
    raise AssertionError("the watch ended before anybody held the Lease")


async def test_the_second_manager_takes_over_when_the_first_is_asked_to_end(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    kubeconfig = cluster.kubeconfig_for_service_account(SYSTEM, "agent-sandbox-controller")
    arguments = ["manager", "--kubeconfig", str(kubeconfig), "--leader-elect"]
    arguments += ["--metrics-bind-address=", "--health-probe-bind-address="]
    admin = await connect(cluster.kubeconfig)
    try:
        async with process(tmp_path, "first", *arguments) as first:
            leader = await holder_other_than(admin, None)
            async with process(tmp_path, "second", *arguments) as second:
                assert await ended(first) == 0
                assert await holder_other_than(admin, leader) != leader
                assert await ended(second) == 0
    finally:
        await admin.aclose()
    assert missing_rights(tmp_path / "first.log", tmp_path / "second.log") == []


async def test_the_router_fills_its_directory_and_knows_no_sandbox_that_is_not_there(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    kubeconfig = cluster.kubeconfig_for_service_account(SYSTEM, "sandbox-router")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    arguments = ["router", "--kubeconfig", str(kubeconfig), f"--port={port}", "--unsafe-allow-all"]
    async with process(tmp_path, "router", *arguments) as router, aiohttp.ClientSession() as session:
        await until_healthy(session, url)
        async with session.get(f"{url}/", headers={"X-Sandbox-ID": "nobody"}) as answer:
            assert (answer.status, answer.headers["X-Sandbox-Error"]) == (404, "not-found")
        assert await ended(router) == 0
    assert missing_rights(tmp_path / "router.log") == []


def missing_rights(*logs: Path) -> list[str]:
    """Lines that tell of a right that the role lacks; an ending namespace refuses with 403 as well, in other words."""
    return [line for log in logs for line in log.read_text().splitlines() if ": 403 " in line and " cannot " in line]


async def until_healthy(session: aiohttp.ClientSession, url: str) -> None:
    """Ask until the router answers; it serves once its directory is filled."""
    with anyio.fail_after(60):
        while True:
            try:
                async with session.get(f"{url}/healthz") as answer:
                    assert answer.status == 200
                    return
            except aiohttp.ClientConnectorError:
                await anyio.sleep(0.1)  # another process: there is nothing to wait on
