"""`agent-sandbox manager`: the four controllers against a cluster."""

import functools
from pathlib import Path

import click

from agent_sandbox.cli.connection import connection_options
from agent_sandbox.cli.eventloop import run_until_signalled
from agent_sandbox.cli.logs import LogFormat, configure_logging, log_format_option, log_level_option
from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeError, connect, in_cluster
from agent_sandbox.runtime import LeaderElectionOptions, Manager, ManagerOptions
from agent_sandbox_api.names import SYSTEM_NAMESPACE
from agent_sandbox_controllers import ControllerOptions, OptionError, register

LEASE_NAME = "agent-sandbox-controller"


@click.command()
@connection_options
@click.option("--watch-namespaces", default="", help="Comma-separated namespaces to serve. Default: all.")
@click.option(
    "--leader-elect/--no-leader-elect",
    default=None,
    help="Let one of several managers work at a time. Default: yes inside a cluster, no outside.",
)
@click.option("--leader-election-namespace", default=SYSTEM_NAMESPACE, show_default=True, help="Home of the Lease.")
@click.option(
    "--metrics-bind-address",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where /metrics is served; :8080 for all interfaces, empty for nowhere.",
)
@click.option(
    "--health-probe-bind-address",
    default="127.0.0.1:8081",
    show_default=True,
    help="Where /healthz and /readyz are served.",
)
@click.option("--cluster-domain", default="cluster.local", show_default=True, help="DNS domain of the cluster.")
@click.option(
    "--router-namespace",
    default=SYSTEM_NAMESPACE,
    show_default=True,
    help="Home of the router: the default policy of a template lets traffic in from there only.",
)
@click.option("--sandbox-concurrent-workers", default=100, show_default=True, help="Sandboxes worked on at a time.")
@click.option("--sandbox-claim-concurrent-workers", default=50, show_default=True, help="Claims worked on at a time.")
@click.option("--sandbox-warm-pool-concurrent-workers", default=4, show_default=True, help="Pools worked on at a time.")
@click.option("--sandbox-warm-pool-max-batch-size", default=300, show_default=True, help="Members made in one pass.")
@log_level_option
@log_format_option
def manager(
    kubeconfig: Path | None,
    context: str | None,
    watch_namespaces: str,
    leader_elect: bool | None,
    leader_election_namespace: str,
    metrics_bind_address: str,
    health_probe_bind_address: str,
    cluster_domain: str,
    router_namespace: str,
    sandbox_concurrent_workers: int,
    sandbox_claim_concurrent_workers: int,
    sandbox_warm_pool_concurrent_workers: int,
    sandbox_warm_pool_max_batch_size: int,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Run the controllers of Sandbox, SandboxTemplate, SandboxClaim and SandboxWarmPool.

    The cluster needs the CRDs first: kubectl apply -k config/crd
    """
    configure_logging(log_level, log_format)
    namespaces = tuple(name.strip() for name in watch_namespaces.split(",") if name.strip()) or None
    elects = in_cluster() if leader_elect is None else leader_elect
    try:
        controller_options = ControllerOptions(
            sandbox_workers=sandbox_concurrent_workers,
            claim_workers=sandbox_claim_concurrent_workers,
            warm_pool_workers=sandbox_warm_pool_concurrent_workers,
            pool_batch_size=sandbox_warm_pool_max_batch_size,
            cluster_domain=cluster_domain,
            router_namespace=router_namespace,
            watch_namespaces=namespaces,
        )
    except OptionError as error:
        raise click.BadParameter(str(error)) from error
    election = LeaderElectionOptions(namespace=leader_election_namespace, name=LEASE_NAME) if elects else None
    options = ManagerOptions(
        component="agent-sandbox-controller",
        namespaces=namespaces,
        leader_election=election,
        metrics_address=metrics_bind_address,
        health_address=health_probe_bind_address,
        tune_garbage_collector=True,
    )
    try:
        run_until_signalled(functools.partial(_run, kubeconfig, context, options, controller_options))
    except (KubeError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(
    kubeconfig: Path | None, context: str | None, options: ManagerOptions, controller_options: ControllerOptions
) -> None:
    clock = SystemClock()
    client = await connect(kubeconfig, context, clock=clock)
    try:
        manager = Manager(client, clock=clock, options=options)
        register(manager, controller_options)
        await manager.run()
    finally:
        await client.aclose()
