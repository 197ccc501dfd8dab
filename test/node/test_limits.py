"""Limits of containers, each pushed against from inside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.local.node.cgroups import Limits, find_cgroups
from agent_sandbox_api.core import PODS

RunNode = Callable[..., Any]


@pytest.fixture(autouse=True)
def _needs_cgroups(tmp_path: Path) -> None:
    found = find_cgroups(tmp_path)
    if found is None:
        pytest.skip("this user may make no control groups on this machine")
    found.remove()


def pod(script: str, **limits: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "localhost/host",
        "command": ["python", "-c", script],
        "resources": {"limits": limits},
    }
    return {"containers": [container], "restartPolicy": "Never"}


async def test_a_container_that_takes_too_much_memory_is_killed_and_its_state_says_why(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("greedy", pod("b = bytearray(400 << 20); print('got it')", memory="96Mi"))
        await stack.create_pod("modest", pod("b = bytearray(20 << 20); print('got it')", memory="96Mi"))
        for name in ("greedy", "modest"):
            await stack.until(name, lambda pod: pod.status.phase in {"Failed", "Succeeded"})
        greedy = await stack.client.get(PODS, "greedy", "default")
        output = await stack.log("modest", "main")

    ended = greedy.status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)
    assert output == "got it\n"


async def test_a_fork_bomb_ends_at_the_limit_of_processes_and_dies_with_its_pod(run_node: RunNode) -> None:
    script = (
        "import os, signal, time\n"
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: signal.pause()\n"
        "        count += 1\n"
        "except BlockingIOError: print('stopped at', count, flush=True)\n"
        "time.sleep(1000)\n"
    )
    async with run_node(max_processes=100) as stack:
        await stack.create_pod("bomb", pod(script))
        output = await stack.until_printed("bomb", "main", "stopped")
        with anyio.fail_after(60):
            await stack.delete_pod("bomb")

    assert 90 <= int(output.split()[-1]) < 100


async def test_a_command_executed_in_a_container_counts_against_its_limits(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", pod("import time; time.sleep(1000)", memory="96Mi"))
        await stack.until_ready("one")
        session = await stack.execute("one", "main", ["python", "-c", "b = bytearray(400 << 20); print('got it')"])

    assert session.code == 137
    assert session.out == b""


async def test_a_cpu_limit_holds(run_node: RunNode) -> None:
    script = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    async with run_node() as stack:
        await stack.create_pod("busy", pod(script, cpu="200m"))
        await stack.until("busy", lambda pod: pod.status.phase == "Succeeded")
        used = float(await stack.log("busy", "main"))

    assert used < 0.6


def test_a_later_node_removes_groups_that_a_killed_one_left(tmp_path: Path) -> None:
    first = find_cgroups(tmp_path)
    assert first is not None
    first.create("left", Limits())
    parents = first.parents

    second = find_cgroups(tmp_path)
    assert second is not None
    second.create("kept-main", Limits())
    second.keep_only(["kept"])
    kept = [path for parent in parents for path in parent.glob("kept-main")]
    left = [path for parent in parents for path in parent.glob("left")]
    second.remove()

    assert left == []
    assert len(kept) == len(parents)
    assert not any(parent.exists() for parent in parents)
