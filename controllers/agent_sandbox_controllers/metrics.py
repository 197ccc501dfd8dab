"""All metrics of the controllers, in one place, with the names that dashboards of the Go project know."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# The Go project's, and four below its first: a warm claim takes a few milliseconds here.
_STARTUP_BUCKETS: Final = (
    5, 10, 25, 50, 100, 250, 500, 750, 1000, 1250, 1500, 2000, 2500, 5000, 10000, 30000, 60000, 120000, 240000,
)  # fmt: skip
_CREATION_BUCKETS: Final = (
    50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 240000, 300000, 600000,
)  # fmt: skip
UNKNOWN: Final = "unknown"


class ControllerMetrics:
    """The controllers' counters and histograms. Times are in milliseconds, as their names say."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """
        Args:
            registry: where they are exported.
        """

        def histogram(name: str, text: str, labels: Iterable[str], buckets: tuple[int, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        Gauge(
            "agent_sandbox_build_info",
            "Always 1; the labels say what runs.",
            ("git_version", "python_version", "compiler", "platform"),
            registry=registry,
        ).labels(*_build()).set(1)
        startup = ("launch_type", "sandbox_template")
        self.claim_startup = histogram(
            "agent_sandbox_claim_startup_latency_ms",
            "From the admission webhook's first sight of a claim to Ready.",
            startup,
            _STARTUP_BUCKETS,
        )
        self.claim_controller_startup = histogram(
            "agent_sandbox_claim_controller_startup_latency_ms",
            "From the controller's first sight of a claim to Ready.",
            startup,
            _STARTUP_BUCKETS,
        )
        self.client_claim_startup = histogram(
            "agent_sandbox_client_claim_startup_latency_ms",
            "From the client's request, as noted on the claim, to Ready.",
            startup,
            _STARTUP_BUCKETS,
        )
        self.creation = histogram(
            "agent_sandbox_creation_latency_ms",
            "From a Sandbox's creation to its Ready; for a warm claim that was before the claim.",
            ("namespace", "launch_type", "sandbox_template"),
            _CREATION_BUCKETS,
        )
        self.claims_created = counter(
            "agent_sandbox_claim_creation_total",
            "Claims that got a Sandbox.",
            ("namespace", "sandbox_template", "launch_type", "warmpool_name", "pod_condition", "created_by"),
        )
        self.pool_replicas = Gauge(
            "agent_sandbox_warm_pool_replicas", "Members of a pool.", ("namespace", "warmpool"), registry=registry
        )
        self.pool_ready = Gauge(
            "agent_sandbox_warm_pool_ready_replicas",
            "Members of a pool that are Ready.",
            ("namespace", "warmpool"),
            registry=registry,
        )
        self.pool_desired = Gauge(
            "agent_sandbox_warm_pool_desired_replicas",
            "Members that a pool should have.",
            ("namespace", "warmpool"),
            registry=registry,
        )
        self.pool_hits = counter(
            "agent_sandbox_warm_pool_requests_total",
            "Claims that could have taken a pool member, by whether they got one: hit or miss.",
            ("namespace", "sandbox_template", "result"),
        )
        self.transitions = counter(
            "agent_sandbox_transitions_total",
            "Sandboxes that were suspended, resumed or expired.",
            ("namespace", "transition"),
        )
        self.transition_seconds = Histogram(
            "agent_sandbox_transition_seconds",
            "From a change of replicas, as first seen, to Suspended or Ready.",
            ("transition",),
            registry=registry,
        )
        self.pods_lost = counter(
            "agent_sandbox_pods_lost_total",
            "Pods that were evicted, preempted or lost with their node, and created again.",
            ("namespace",),
        )

    def forget_pool(self, namespace: str, name: str) -> None:
        """Drop the series of a pool that is gone."""
        for gauge in (self.pool_replicas, self.pool_ready, self.pool_desired):
            if (namespace, name) in gauge._metrics:  # noqa: SLF001 - the library offers no other question
                gauge.remove(namespace, name)


def _build() -> tuple[str, ...]:
    try:
        ours = version("agent-sandbox-k8s")
    except PackageNotFoundError:
        # Run from sources that were never installed.
        ours = UNKNOWN
    where = f"{platform.system()}/{platform.machine()}".lower()
    return ours, platform.python_version(), platform.python_implementation(), where
