"""The four controllers as one part of the local stack."""

import anyio
import anyio.abc

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import Manager, ManagerOptions
from agent_sandbox_controllers import ControllerOptions, register


async def run_controllers(
    client: KubeClient, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Run the controllers without an election: the stack's state directory has one owner already."""
    manager = Manager(client, clock=SystemClock(), options=ManagerOptions(component="agent-sandbox-local"))
    register(manager, ControllerOptions())
    await manager.run(task_status=task_status)
