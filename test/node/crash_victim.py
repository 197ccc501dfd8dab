"""A whole small stack in a process of its own, for tests that kill it.

Arguments: database, state directory, options of the node, Pods to create, names of those to wait for; all but the first
two as JSON. Prints ``ready`` and the helper's process id once those are Ready, and ``created`` before it waits.
"""

# ruff: noqa: T201 - it tells its test when it is ready
import json
import sys
from pathlib import Path

import anyio
import structlog

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.local.apiserver import SqliteJournal
from agent_sandbox.local.node import Node, NodeOptions
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox_api.core import PODS


async def main() -> None:
    """Run Pods until killed."""
    database, state, options, objects, awaited = sys.argv[1:]
    async with (
        InMemoryApiServer(journal=SqliteJournal(Path(database))) as server,
        anyio.create_task_group() as group,
    ):
        client = KubeClient(server.transport())
        node = Node(client, clock=SystemClock(), state_dir=Path(state), options=NodeOptions(**json.loads(options)))
        await group.start(node.run)
        print("created", flush=True)
        for manifest in json.loads(objects):
            await server.create(manifest)
        for name in json.loads(awaited):
            while not (await client.get(PODS, name, "default")).ready:  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.01)
        print(f"ready {node.network.pid}", flush=True)
        await anyio.sleep_forever()


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
anyio.run(main)
