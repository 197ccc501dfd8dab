"""What the node does when things break: killed sandboxes, full disks, thousands of files, hundreds of Pods."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.kube import KubeClient
from agent_sandbox.local.node.pods import Pod
from agent_sandbox.local.node.volumes import ReferredObjects, read_referred
from agent_sandbox.testing.footprint import take_footprint

RunNode = Callable[..., Any]
MARK = f"2000{os.getpid()}"
SLEEPER = {"name": "main", "image": "localhost/host", "command": ["sleep", MARK]}
AT_ONCE = 10


def box(script: str, *mounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    command = ["sh", "-c", script]
    return {"name": "main", "image": "localhost/host", "command": command, "volumeMounts": list(mounts), **more}


async def test_a_sandbox_that_is_killed_from_outside_starts_again_with_its_address(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [SLEEPER]})
        before = await stack.until_ready("one")
        process = next(iter(stack.node._workers.values())).runners["main"].process
        os.kill(process.pid, signal.SIGKILL)
        after = await stack.until("one", lambda pod: pod.ready and pod.status.container_statuses[0].restart_count == 1)

    assert after.ips == before.ips
    assert after.status.container_statuses[0].last_state.terminated.exit_code == 137


async def test_whatever_one_pod_or_claim_says_the_node_goes_on(
    run_node: RunNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these ended the node with all its Pods, and again at every start, since the objects outlive it."""

    async def fail_over_one(client: KubeClient, pod: Pod) -> ReferredObjects:
        if pod.metadata.name == "odd":
            raise ZeroDivisionError("of which nobody thought")
        return await read_referred(client, pod)

    monkeypatch.setattr("agent_sandbox.local.node.worker.read_referred", fail_over_one)
    # The server refuses such a port by now; objects that were stored before are not looked at again.
    monkeypatch.setattr("agent_sandbox.local.apiserver.builtin.pod_rules._PROBES", ())
    probed = {**SLEEPER, "readinessProbe": {"tcpSocket": {"port": 99999}}}
    async with run_node() as stack:
        await stack.create_pod("odd", {"containers": [SLEEPER]})
        await stack.create_pod("probed", {"containers": [probed]})
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1e30"}}}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "all"}, "spec": spec}
        await stack.server.create(claim)
        failed = await stack.until("odd", lambda pod: pod.status.phase == "Failed")
        await stack.until("probed", lambda pod: pod.status.phase == "Running")
        await stack.create_pod("good", {"containers": [SLEEPER]})
        await stack.until_ready("good")
        await stack.delete_pod("odd", grace_period_seconds=0)

    assert not failed.ready


@pytest.mark.slow
async def test_ten_thousand_files_are_written_and_removed_with_their_pod(run_node: RunNode) -> None:
    script = "i=0; while [ $i -lt 10000 ]; do : > /d/$i; i=$((i+1)); done; echo done; sleep 1000"
    volumes = [{"name": "d", "emptyDir": {"sizeLimit": "64Mi"}}]
    async with run_node(disk_period=0.1) as stack:
        await stack.create_pod(
            "many", {"containers": [box(script, {"name": "d", "mountPath": "/d"})], "volumes": volumes}
        )
        await stack.until_printed("many", "main", "done")
        ready = await stack.until_ready("many")
        with anyio.fail_after(60):
            await stack.delete_pod("many")
        left = await anyio.to_thread.run_sync(lambda: list((stack.state / "pods").iterdir()))

    assert ready.status.phase == "Running"
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_hundred_pods_come_and_go_and_nothing_of_them_is_left(run_node: RunNode, state_dir: Path) -> None:
    async with run_node() as stack:
        await _cycle(stack, 0)
        helper = Path(f"/proc/{stack.node.network.pid}/fd")
        open_before, helper_before = _count(Path("/proc/self/fd")), _count(helper)
        links_before = await anyio.to_thread.run_sync(_links, stack.node.network.pid)
        before = await anyio.to_thread.run_sync(take_footprint)
        for batch in range(1, 21):
            await _cycle(stack, batch)

        with anyio.fail_after(60):  # the helper may be loading rules, and the kernel removing what nobody holds
            while _count(helper) > helper_before or _count(Path("/proc/self/fd")) > open_before:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        links_after = await anyio.to_thread.run_sync(_links, stack.node.network.pid)
        groups = await anyio.to_thread.run_sync(
            lambda: [path for parent in stack.node._cgroups.parents for path in parent.iterdir() if path.is_dir()]
        )
        mounts = await anyio.to_thread.run_sync(lambda: Path(f"/proc/{stack.node.network.pid}/mounts").read_text())
        after = await anyio.to_thread.run_sync(take_footprint)
        parents = list(stack.node._cgroups.parents)
        assert stack.node._addresses._taken == set()
        assert _count(stack.state / "pods") == 0

    assert groups == []
    assert "/own/" not in mounts
    assert links_after == links_before
    assert after.mounts == before.mounts
    assert after.interfaces == before.interfaces
    assert [process for process in after.processes if MARK in process] == []
    assert await anyio.to_thread.run_sync(lambda: [path for path in parents if path.exists()]) == []


def _count(directory: Path) -> int:
    return len(os.listdir(directory))  # noqa: PTH208 - a generator would hold one descriptor more


def _links(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


async def _cycle(stack: Any, batch: int) -> None:
    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(_live_and_die, stack, f"pod-{batch}-{number}")


async def _live_and_die(stack: Any, name: str) -> None:
    memory = {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    container = {**SLEEPER, "volumeMounts": [{"name": "m", "mountPath": "/m"}]}
    await stack.create_pod(name, {"containers": [container], "volumes": [memory]})
    await stack.until_ready(name)
    await stack.delete_pod(name)


@asynccontextmanager
async def _small_disk(place: Path) -> AsyncIterator[Path]:
    """A file system of 24 MiB."""
    await anyio.Path(place).mkdir()
    await anyio.run_process(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)])
    try:
        yield place
    finally:
        await anyio.run_process(["umount", "-l", str(place)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
async def test_on_a_full_disk_pods_wait_and_say_why_and_start_when_there_is_room(
    run_node: RunNode, tmp_path: Path, root_files: Path, node_in: RunNode
) -> None:
    from shutil import copytree

    async with _small_disk(tmp_path / "disk") as disk:
        state = disk / "node"
        await anyio.to_thread.run_sync(lambda: copytree(root_files, state / "runtime", symlinks=True))
        async with node_in(state, disk_reserve=0, disk_period=3600) as stack:
            await stack.create_pod("early", {"containers": [SLEEPER]})
            await stack.until_ready("early")
            filler = disk / "filler"
            await anyio.to_thread.run_sync(_fill, filler)

            await stack.create_pod("late", {"containers": [SLEEPER]})
            late = await stack.until("late", lambda pod: "No space left" in str(pod.status))
            command = await stack.execute("early", "main", ["echo", "alive"])
            await anyio.to_thread.run_sync(filler.unlink)
            await stack.until_ready("late")
            await stack.delete_pod("early")

    assert late.status.phase == "Pending"
    assert command.out == b"alive\n"


def _fill(path: Path) -> None:
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        return  # full, as wanted
