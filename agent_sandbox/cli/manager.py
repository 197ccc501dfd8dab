"""`agent-sandbox manager`: the four controllers against a cluster."""

import functools
from pathlib import Path
from typing import Any

import click

from agent_sandbox.cli.connection import CLUSTER_DEFAULT, connection_options
from agent_sandbox.cli.eventloop import run_until_signalled
from agent_sandbox.cli.logs import LogFormat, configure_logging, log_format_option, log_level_option
from agent_sandbox.cli.manager_flags import controller_options, manager_flags, manager_options
from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeError, connect
from agent_sandbox.runtime import Manager, ManagerOptions
from agent_sandbox_controllers import ControllerOptions, OptionError, register


@click.command()
@connection_options(CLUSTER_DEFAULT)
@manager_flags
@log_level_option
@log_format_option
def manager(kubeconfig: Path | None, context: str | None, log_level: str, log_format: LogFormat, **flags: Any) -> None:
    """Run the controllers of Sandbox, SandboxTemplate, SandboxClaim and SandboxWarmPool.

    The cluster needs the CRDs first: kubectl apply -k config/crd
    """
    configure_logging(log_level, log_format)
    try:
        work = functools.partial(_run, kubeconfig, context, manager_options(flags), controller_options(flags))
    except (OptionError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    try:
        run_until_signalled(work, service="agent-sandbox-controller")
    except (KubeError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(
    kubeconfig: Path | None, context: str | None, options: ManagerOptions, controllers: ControllerOptions
) -> None:
    clock = SystemClock()
    client = await connect(kubeconfig, context, clock=clock)
    try:
        manager = Manager(client, clock=clock, options=options)
        register(manager, controllers)
        await manager.run()
    finally:
        await client.aclose()
