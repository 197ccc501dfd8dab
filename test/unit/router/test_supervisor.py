"""The supervisor of the router's workers ends with all of them, whenever it is told to."""

import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from agent_sandbox.router.options import RouterOptions
from agent_sandbox.router.workers import Supervisor, WorkerSockets


@pytest.mark.timeout(30)
@pytest.mark.parametrize("restarting", [False, True])
async def test_a_worker_that_still_starts_ends_with_its_supervisor(restarting: bool, tmp_path: Path) -> None:
    """A signal may come while a worker reads the cluster, in the middle of a rolling restart, too."""
    starting = anyio.Path(tmp_path / "starting")

    def command(sockets: WorkerSockets) -> Sequence[str]:
        first = restarting and not supervisor.url
        does = f"os.write({sockets.supervisor}, b'r')" if first else f"open({str(starting)!r}, 'w')"
        return [sys.executable, "-SE", "-c", f"import os, time; {does}; time.sleep(60)"]

    supervisor = Supervisor(command, 1, RouterOptions(port=0))
    async with anyio.create_task_group() as tasks:
        if restarting:
            await tasks.start(supervisor.serve)
            tasks.start_soon(supervisor.restart)
        else:
            tasks.start_soon(supervisor.serve)
        while not await starting.exists():  # noqa: ASYNC110 - another process makes it
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
