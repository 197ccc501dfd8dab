"""The knobs of the controllers, each with its unit, its default and why it is so."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final

from agent_sandbox_api.names import SYSTEM_NAMESPACE
from agent_sandbox_controllers.errors import OptionError

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DOMAIN: Final = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")


@dataclass(frozen=True, kw_only=True)
class ControllerOptions:
    """How the four controllers behave.

    Attributes:
        sandbox_workers: Sandboxes reconciled at the same time. A worker mostly waits for the API server.
        claim_workers: claims reconciled at the same time.
        warm_pool_workers: pools reconciled at the same time; more than one, so that a pool's large batch does not keep
            the others waiting.
        template_workers: templates reconciled at the same time.
        pool_batch_size: most members that one pass creates or deletes.
        pool_replenish_delay: seconds to wait after members were taken before the pool is refilled; 0 refills at once.
            More smooths bursts and can starve a pool under sustained load.
        pool_refill_rate: most members created per second and pool; 0 for no limit.
        pool_readiness_grace: seconds that a member may be unready, counted from when it last was Ready, before it is
            replaced. Less than an image pull takes makes a pool that never fills.
        pool_recheck_interval: seconds between looks at members that are held because nothing would be gained by
            replacing them.
        pool_eviction: mark the Pods of pool members as safe to evict for the cluster autoscaler; a claim removes the
            mark.
        pool_status_delay: seconds for which a pool's falling readyReplicas are not reported: in a pool that is refilled
            in that time a claim costs no status write. A pool without any Ready member says so after a third of it.
        claim_patience: seconds that a claim waits for a member that is about to be Ready before it starts cold.
        cluster_domain: DNS domain of the cluster, for ``status.serviceFQDN``.
        router_namespace: namespace of the router's Pods, from which the default policy lets traffic in.
        router_labels: labels of the router's Pods.
        extra_egress_excepts: further CIDRs that the default policy does not let Pods reach, for example the cluster's
            own ranges where they are public.
        allowed_label_domains: domains (with their subdomains) of the labels that claims may put on Pods.
        claim_events: whether claims get events of their ordinary life (adopted, provisioned): one write each.
        watch_namespaces: the only namespaces to watch; None for all. The manager's cache must be given the same.
        member_suffixes: seed of the random part of member names; None for a different one each time. For tests.
    """

    sandbox_workers: int = 100
    claim_workers: int = 50
    warm_pool_workers: int = 4
    template_workers: int = 2
    pool_batch_size: int = 300
    pool_replenish_delay: float = 0.0
    pool_refill_rate: float = 0.0
    pool_readiness_grace: float = 300.0
    pool_recheck_interval: float = 60.0
    pool_eviction: bool = True
    pool_status_delay: float = 15.0
    claim_patience: float = 2.0
    cluster_domain: str = "cluster.local"
    router_namespace: str = SYSTEM_NAMESPACE
    router_labels: dict[str, str] = field(default_factory=lambda: {"app": "sandbox-router"})
    extra_egress_excepts: tuple[str, ...] = ()
    allowed_label_domains: tuple[str, ...] = ("sandbox.users.io",)
    claim_events: bool = True
    watch_namespaces: tuple[str, ...] | None = None
    member_suffixes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            OptionError: a value is out of its range; the message names it.
        """
        for name in ("sandbox_workers", "claim_workers", "warm_pool_workers", "template_workers", "pool_batch_size"):
            if getattr(self, name) < 1:
                raise OptionError(name, getattr(self, name), "at least 1")
        for name in ("pool_readiness_grace", "pool_recheck_interval"):
            if not 0 < getattr(self, name) < float("inf"):
                raise OptionError(name, getattr(self, name), "more than 0 seconds")
        for name in ("pool_replenish_delay", "pool_refill_rate", "pool_status_delay", "claim_patience"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OptionError(name, getattr(self, name), "0 or more, and finite")
        self._check_names()

    def _check_names(self) -> None:
        # What these end in are objects that every sandbox waits for: a policy that the API server refuses stops all.
        for namespace in (self.router_namespace, *(self.watch_namespaces or ())):
            if _LABEL.fullmatch(namespace) is None:
                raise OptionError("a namespace", namespace, "a DNS label, as in agent-sandbox-system")
        for name, domains in (
            ("cluster_domain", (self.cluster_domain,)),
            ("allowed_label_domains", self.allowed_label_domains),
        ):
            for domain in domains:
                if _DOMAIN.fullmatch(domain) is None:
                    raise OptionError(name, domain, "a domain in lower case, as in cluster.local")
        for network in self.extra_egress_excepts:
            try:
                ip_network(network)
            except ValueError as error:
                raise OptionError("extra_egress_excepts", network, f"a CIDR, as in 203.0.113.0/24 ({error})") from error
