"""The flags of `agent-sandbox manager`, and what they mean to the runtime and to the controllers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from agent_sandbox.cli.namespaces import NAMESPACE, watch_namespaces_option
from agent_sandbox.kube import in_cluster
from agent_sandbox.runtime import LeaderElectionOptions, ManagerOptions
from agent_sandbox.runtime.certificates import CertificateFiles
from agent_sandbox_api.names import CONTROLLER_LEASE, SYSTEM_NAMESPACE
from agent_sandbox_controllers import ControllerOptions

F = TypeVar("F", bound=Callable[..., Any])
Flags = dict[str, Any]

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

_PROCESS: Final = (
    watch_namespaces_option,
    click.option(
        "--leader-elect/--no-leader-elect",
        default=None,
        help="Let one of several managers work at a time. Default: yes inside a cluster, no outside.",
    ),
    click.option(
        "--leader-election-namespace",
        type=NAMESPACE,
        default=SYSTEM_NAMESPACE,
        show_default=True,
        help="Home of the Lease.",
    ),
    click.option(
        "--lease-duration", default=15.0, show_default=True, help="Seconds until a silent leader is replaced."
    ),
    click.option("--renew-deadline", default=10.0, show_default=True, help="Seconds until a cut-off leader gives up."),
    click.option("--retry-period", default=2.0, show_default=True, help="Seconds between renewals."),
    click.option(
        "--metrics-bind-address",
        default="127.0.0.1:8080",
        show_default=True,
        help="Where /metrics is served; :8080 for all interfaces, empty for nowhere.",
    ),
    click.option("--metrics-certificate", type=_FILE, help="Serve /metrics by TLS with this certificate ..."),
    click.option("--metrics-key", type=_FILE, help="... and this key. Both are read again when they change."),
    click.option("--metrics-authorization", is_flag=True, help="Ask Kubernetes who may scrape /metrics."),
    click.option(
        "--health-probe-bind-address",
        default="127.0.0.1:8081",
        show_default=True,
        help="Where /healthz and /readyz are served.",
    ),
    click.option(
        "--introspection", is_flag=True, help="Serve /debug/tasks, /debug/queues and /debug/caches there, too."
    ),
)

_CONTROLLERS: Final = (
    click.option("--cluster-domain", default="cluster.local", show_default=True, help="DNS domain of the cluster."),
    click.option(
        "--router-namespace",
        default=SYSTEM_NAMESPACE,
        show_default=True,
        help="Home of the router: the default policy of a template lets traffic in from there only.",
    ),
    click.option(
        "--extra-egress-except",
        "extra_egress_excepts",
        multiple=True,
        metavar="CIDR",
        help="Range that the default policy keeps sandboxes from, beside the private ones. May be repeated.",
    ),
    click.option(
        "--allowed-label-domain",
        "allowed_label_domains",
        multiple=True,
        default=("sandbox.users.io",),
        show_default=True,
        help="Domain of the labels that claims may put on Pods. May be repeated.",
    ),
    click.option("--sandbox-concurrent-workers", default=100, show_default=True, help="Sandboxes worked on at a time."),
    click.option("--sandbox-claim-concurrent-workers", default=50, show_default=True, help="Claims at a time."),
    click.option("--sandbox-warm-pool-concurrent-workers", default=4, show_default=True, help="Pools at a time."),
    click.option("--sandbox-template-concurrent-workers", default=2, show_default=True, help="Templates at a time."),
    click.option(
        "--sandbox-warm-pool-max-batch-size", default=300, show_default=True, help="Members made in one pass."
    ),
    click.option(
        "--sandbox-warm-pool-max-refill-rate", default=0.0, show_default=True, help="Members per second; 0: no limit."
    ),
    click.option(
        "--sandbox-warm-pool-replenish-delay", default=0.0, show_default=True, help="Seconds before a pool is refilled."
    ),
    click.option(
        "--sandbox-warm-pool-readiness-grace-period",
        default=300.0,
        show_default=True,
        help="Seconds that a member may be unready before it is replaced.",
    ),
    click.option(
        "--sandbox-warm-pool-unschedulable-recheck-interval",
        default=60.0,
        show_default=True,
        help="Seconds between looks at members that are kept because no node would take others either.",
    ),
    click.option(
        "--enable-warm-pool-eviction/--no-enable-warm-pool-eviction",
        default=True,
        show_default=True,
        help="Mark the Pods of pools as safe to evict; a claim takes the mark away.",
    ),
    click.option(
        "--warm-claim-patience",
        default=2.0,
        show_default=True,
        help="Seconds that a claim waits for a member that is nearly Ready before it starts cold.",
    ),
    click.option(
        "--disable-claim-events", is_flag=True, help="Spare one write per claim: no events of its usual life."
    ),
)


def manager_flags(function: F) -> F:
    """Add all flags to a command, in the order in which `--help` shows them."""
    for option in reversed(_PROCESS + _CONTROLLERS):
        function = option(function)
    return function


def controller_options(flags: Flags) -> ControllerOptions:
    """What the flags mean to the controllers.

    Raises:
        agent_sandbox_controllers.OptionError: a value is out of its range.
    """
    return ControllerOptions(
        sandbox_workers=flags["sandbox_concurrent_workers"],
        claim_workers=flags["sandbox_claim_concurrent_workers"],
        warm_pool_workers=flags["sandbox_warm_pool_concurrent_workers"],
        template_workers=flags["sandbox_template_concurrent_workers"],
        pool_batch_size=flags["sandbox_warm_pool_max_batch_size"],
        pool_refill_rate=flags["sandbox_warm_pool_max_refill_rate"],
        pool_replenish_delay=flags["sandbox_warm_pool_replenish_delay"],
        pool_readiness_grace=flags["sandbox_warm_pool_readiness_grace_period"],
        pool_recheck_interval=flags["sandbox_warm_pool_unschedulable_recheck_interval"],
        pool_eviction=flags["enable_warm_pool_eviction"],
        claim_patience=flags["warm_claim_patience"],
        cluster_domain=flags["cluster_domain"],
        router_namespace=flags["router_namespace"],
        extra_egress_excepts=flags["extra_egress_excepts"],
        allowed_label_domains=flags["allowed_label_domains"],
        claim_events=not flags["disable_claim_events"],
        watch_namespaces=flags["watch_namespaces"],
    )


def manager_options(flags: Flags) -> ManagerOptions:
    """What the flags mean to the process around the controllers.

    Raises:
        click.UsageError: a certificate without its key, or the reverse.
        ValueError: the times of the election do not fit together, or an address is none.
    """
    return ManagerOptions(
        component="agent-sandbox-controller",
        namespaces=flags["watch_namespaces"],
        leader_election=_election(flags),
        metrics_address=flags["metrics_bind_address"],
        metrics_certificate=_certificate(flags["metrics_certificate"], flags["metrics_key"]),
        metrics_authorization=flags["metrics_authorization"],
        health_address=flags["health_probe_bind_address"],
        introspection=flags["introspection"],
        tune_garbage_collector=True,
    )


def _election(flags: Flags) -> LeaderElectionOptions | None:
    wanted = flags["leader_elect"]
    if not (in_cluster() if wanted is None else wanted):
        return None
    return LeaderElectionOptions(
        namespace=flags["leader_election_namespace"],
        name=CONTROLLER_LEASE,
        lease_duration=flags["lease_duration"],
        renew_deadline=flags["renew_deadline"],
        retry_period=flags["retry_period"],
    )


def _certificate(certificate: Path | None, key: Path | None) -> CertificateFiles | None:
    if (certificate is None) != (key is None):
        raise click.UsageError("--metrics-certificate and --metrics-key go together")
    return CertificateFiles(certificate, key) if certificate is not None and key is not None else None
