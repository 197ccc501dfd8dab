"""A whole small stack in a process of its own, for tests that kill it.

Arguments: database, state directory, seconds to sleep.
"""

# ruff: noqa: T201 - it tells its test when it is ready
import sys
from pathlib import Path

import anyio
import structlog

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.local.apiserver import SqliteJournal
from agent_sandbox.local.node import Node
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox_api.core import PODS


async def main() -> None:
    """Run two Pods until killed."""
    async with (
        InMemoryApiServer(journal=SqliteJournal(Path(sys.argv[1]))) as server,
        anyio.create_task_group() as group,
    ):
        client = KubeClient(server.transport())
        node = Node(client, clock=SystemClock(), state_dir=Path(sys.argv[2]))
        await group.start(node.run)
        container = {"name": "main", "image": "localhost/host", "command": ["sleep", sys.argv[3]]}
        for name in ("a", "b"):
            await server.create(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
            )
            while not (await client.get(PODS, name, "default")).ready:  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.01)
        print(f"ready {node.network.pid}", flush=True)
        await anyio.sleep_forever()


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
anyio.run(main)
