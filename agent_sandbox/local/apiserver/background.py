"""What the server does without being asked."""

import anyio
from anyio.abc import TaskStatus

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.objects import Objects
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.storage import ObjectStore


class Background:
    """The server's own workers."""

    def __init__(self, store: ObjectStore, registry: Registry, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._objects = objects
        self._clock = clock

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the workers until cancelled."""
        task_status.started()
        await anyio.sleep_forever()
