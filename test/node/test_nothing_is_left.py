"""What remains after Pods, after the node, and after violence: nothing, or exactly the Pods that the API server has."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.apiserver import SqliteJournal
from agent_sandbox.local.node import StateInUseError
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox.testing.footprint import Footprint, take_footprint
from agent_sandbox_api.core import PODS

RunNode = Callable[..., Any]
RunVictim = Callable[..., Any]
MARK = f"1000{os.getpid()}"
"""An argument by which processes of these tests are known among those of other people on this machine."""
SLEEPER = {"containers": [{"name": "main", "image": "localhost/host", "command": ["sleep", MARK]}]}
CYCLES = 20


async def _footprint(state: Path) -> Footprint:
    whole = await anyio.to_thread.run_sync(take_footprint, state / "pods", state / "volumes")
    return replace(whole, processes=frozenset(line for line in whole.processes if MARK in line))


async def _until_nothing_new(before: Footprint, state: Path, *, but: str = "") -> dict[str, list[str]]:
    """What appeared (``but`` for one kind, which shall stay), once the kernel had a moment to finish removing."""
    deadline = anyio.current_time() + 60
    while True:
        found = (await _footprint(state)).appeared_since(before)
        if found.keys() <= {but} or anyio.current_time() > deadline:
            return found
        await anyio.sleep(0.01)


async def test_twenty_cycles_of_create_and_delete_leave_no_process_mount_interface_descriptor_or_file(
    run_node: RunNode, state_dir: Path
) -> None:
    outside = await _footprint(state_dir)
    async with run_node() as stack:
        await stack.create_pod("warm-up", SLEEPER)
        await stack.until_ready("warm-up")
        await stack.delete_pod("warm-up")
        before, open_before = await _footprint(stack.state), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        helper_before = len(os.listdir(f"/proc/{stack.node.network.pid}/fd"))  # noqa: PTH208

        for number in range(CYCLES):
            await stack.create_pod(f"pod-{number}", SLEEPER)
            await stack.until_ready(f"pod-{number}")
            await stack.delete_pod(f"pod-{number}")

        assert await _until_nothing_new(before, stack.state) == {}
        assert len(os.listdir("/proc/self/fd")) <= open_before  # noqa: PTH208
        with anyio.fail_after(60):  # the helper may be loading rules, through pipes to nft
            while len(os.listdir(f"/proc/{stack.node.network.pid}/fd")) > helper_before:  # noqa: ASYNC110, PTH208
                await anyio.sleep(0.01)

    assert await _until_nothing_new(outside, state_dir) == {}


async def test_a_node_that_stops_takes_its_processes_with_it_and_keeps_its_pods(
    run_node: RunNode, state_dir: Path
) -> None:
    before = await _footprint(state_dir)
    async with InMemoryApiServer() as server:
        async with run_node(server) as stack:
            await stack.create_pod("one", SLEEPER)
            await stack.until_ready("one")
        left = await _until_nothing_new(before, state_dir, but="files")
        pod = await stack.client.get(PODS, "one", "default")

        async with run_node(server) as again:
            restarted = await again.until(
                "one", lambda pod: pod.ready and pod.status.container_statuses[0].restart_count == 1
            )

    assert set(left) == {"files"}
    assert restarted.metadata.uid == pod.metadata.uid
    assert restarted.ips == pod.ips


async def test_two_nodes_do_not_work_in_one_state_directory(run_node: RunNode) -> None:
    async with run_node():
        with pytest.raises(ExceptionGroup) as caught:
            async with run_node():
                raise AssertionError("the second node started")

    assert caught.group_contains(StateInUseError)


async def test_when_the_helper_is_killed_its_pods_start_again(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", SLEEPER)
        before = await stack.until_ready("one")

        os.kill(stack.node.network.pid, signal.SIGKILL)
        after = await stack.until("one", lambda pod: pod.ready and pod.status.container_statuses[0].restart_count >= 1)
        session = await stack.execute("one", "main", ["sh", "-c", "echo /proc/[0-9]*"])

        assert after.ips == before.ips
        assert after.status.container_statuses[0].restart_count == 1
        assert session.out.startswith(b"/proc/1 ")


async def test_after_kill_minus_nine_of_node_and_helper_the_next_node_starts_each_pod_once(
    run_node: RunNode, state_dir: Path, tmp_path: Path, run_victim: RunVictim
) -> None:
    before = await _footprint(state_dir)
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": SLEEPER} for name in ("a", "b")]
    async with run_victim(pods) as victim:
        await victim.until_ready()
        os.kill(victim.helper, signal.SIGKILL)
        await victim.kill()
        left = await _until_nothing_new(before, state_dir, but="files")
    stranger = state_dir / "pods" / "of-a-pod-that-is-gone"
    await anyio.Path(stranger).mkdir()

    async with InMemoryApiServer(journal=SqliteJournal(victim.database)) as server, run_node(server) as stack:
        started = [
            await stack.until(name, lambda pod: pod.ready and pod.status.container_statuses[0].restart_count == 1)
            for name in ("a", "b")
        ]
        listed = (await stack.client.list(PODS)).items
        running = await _footprint(state_dir)

    assert set(left) == {"files"}
    assert [pod.metadata.name for pod in listed] == ["a", "b"]
    assert len({pod.ips for pod in started}) == 2
    assert sum(f"-- sleep {MARK}" in process for process in running.processes) == 2
    assert str(stranger) not in running.files
