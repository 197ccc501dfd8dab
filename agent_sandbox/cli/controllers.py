"""The four controllers as one part of the local stack."""

import anyio
import anyio.abc

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import Manager, ManagerOptions
from agent_sandbox_controllers import ControllerOptions, register


async def run_controllers(
    client: KubeClient,
    *,
    metrics_port: int | None = None,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run the controllers without an election: the stack's state directory has one owner already.

    Args:
        client: of the API server.
        metrics_port: port of 127.0.0.1 on which /metrics is served; None serves none.
        task_status: told when the controllers work.
    """
    options = ManagerOptions(
        component="agent-sandbox-local",
        metrics_address="" if metrics_port is None else f"127.0.0.1:{metrics_port}",
    )
    manager = Manager(client, clock=SystemClock(), options=options)
    register(manager, ControllerOptions())
    await manager.run(task_status=task_status)
