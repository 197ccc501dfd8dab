"""Cancelled at any moment, a client leaves neither a claim nor a command behind."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.sdk import AsyncSandbox, AsyncSandboxClient, AsyncSandboxes, ConnectionOptions
from agent_sandbox.testing.pretend_cluster import PretendCluster

pytestmark = pytest.mark.slow


async def cancel_after(turns: int, work: Coroutine[Any, Any, None]) -> bool:
    """Run the work and cancel it after so many turns of the event loop; False if it had ended by itself."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        left = turns

        def turn() -> None:
            nonlocal left
            left -= 1
            if left > 0:
                loop.call_soon(turn)
            else:
                task.cancel()

        loop.call_soon(turn)
        await asyncio.wait([task])
    return task.cancelled()


def commands_below(marker: Path) -> list[int]:
    """Processes that name this file in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str(marker) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def none_left(marker: Path) -> None:
    """Wait until the killed ones have gone."""
    with anyio.fail_after(60):
        while commands_below(marker):  # noqa: ASYNC110 - nothing tells of the end of somebody else's child
            await anyio.sleep(0.005)


async def with_a_client(cluster: PretendCluster, marker: Path) -> None:
    async with AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        await sandbox.commands.run(f"cat; sleep 0.02; : {marker}", stdin="x")
        await sandbox.run(f"sh -c 'sleep 0.02; : {marker}'")
        await sandbox.write("f", "x")


async def with_many(cluster: PretendCluster, marker: Path) -> None:
    async def one(sandbox: AsyncSandbox, number: int) -> None:
        process = await sandbox.commands.start(["sh", "-c", f"sleep 0.02; : {marker}"], timeout=60)
        try:
            await process.wait()
        finally:
            await process.detach()

    options = ConnectionOptions(kube=cluster.kube, api_url=cluster.api_url)
    async with AsyncSandboxes(options=options) as sandboxes:
        await sandboxes.map(one, range(3), template_name="python", at_once=2, ttl=60, heartbeat=True)


@pytest.mark.parametrize("work", [with_a_client, with_many])
async def test_whenever_it_is_cancelled_nothing_is_left(
    cluster: PretendCluster, tmp_path: Path, work: Callable[[PretendCluster, Path], Coroutine[Any, Any, None]]
) -> None:
    turns, cancelled = 1, True
    while cancelled:
        cancelled = await cancel_after(turns, work(cluster, tmp_path / "marker"))
        assert await cluster.claim_names() == [], f"cancelled after {turns} turns"
        await none_left(tmp_path / "marker")
        turns += max(1, turns // 12)
