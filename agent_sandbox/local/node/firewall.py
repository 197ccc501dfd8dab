"""Keeps the pod network's rules equal to what NetworkPolicies allow, while Pods, labels and policies change.

In: informers of Pods, NetworkPolicies and Namespaces. Out: elements of one nftables set, added and removed by
difference, some 15 ms after a change. What the set does not hold is dropped, so a new Pod, a late update or an error of
ours closes and never opens. Connections that are established already stay, as with most implementations in clusters.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import anyio
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.errors import HelperError
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.policy import Endpoint, Flow, Policy, PolicySet, disjoint
from agent_sandbox.runtime.store import Store
from agent_sandbox_api.core import MetaOnlyView, NetworkPolicyView
from agent_sandbox_api.views import raw_object

log = structlog.get_logger(__name__)

_COALESCE: Final = 0.01
_RETRY: Final = 1.0

Endpoints = Callable[[], list[Endpoint]]


@dataclass(frozen=True)
class Rules:
    """What the pod network lets through: connections between Pods, and Pods that may ask for names."""

    flows: frozenset[Flow] = frozenset()
    resolvers: frozenset[str] = frozenset()


class Firewall:
    """Enforces NetworkPolicies between Pods.

    Flow: ``touch`` whenever something changed; ``run`` as long as one pod network lives.
    """

    def __init__(
        self,
        network: PodNetwork,
        clock: Clock,
        endpoints: Endpoints,
        policies: Store[NetworkPolicyView],
        namespaces: Store[MetaOnlyView],
    ) -> None:
        self._network = network
        self._clock = clock
        self._endpoints = endpoints
        self._policies = policies
        self._namespaces = namespaces
        self._changed = anyio.Event()

    def touch(self, _: object = None) -> None:
        """Something changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the rules right until cancelled; begins with a pod network that allows nothing."""
        applied = Rules()
        self._changed.set()
        while True:
            await self._changed.wait()
            await self._clock.sleep(_COALESCE)
            self._changed = anyio.Event()
            wanted = self._wanted()
            try:
                await self._apply(applied, wanted)
            except HelperError as error:
                log.error("network policies not applied; Pods stay closed to each other", error=str(error))
                await self._clock.sleep(_RETRY)
                self._changed.set()
            else:
                applied = wanted

    def _wanted(self) -> Rules:
        policies = [Policy(entry.metadata.namespace, raw_object(entry.spec)) for entry in self._policies.list()]
        namespaces = {entry.metadata.name: entry.metadata.labels for entry in self._namespaces.list()}
        try:
            policy_set, endpoints = PolicySet(policies, namespaces), self._endpoints()
            resolvers = frozenset(entry.address for entry in endpoints if policy_set.may_resolve(entry))
            return Rules(frozenset(disjoint(policy_set.flows(endpoints))), resolvers)
        except (ValueError, TypeError, KeyError) as error:
            log.error("a network policy cannot be read; Pods are closed to each other", error=repr(error))
            return Rules()

    async def _apply(self, applied: Rules, wanted: Rules) -> None:
        # One transaction: what goes, goes first, so that a changed range does not collide with its old form.
        commands = [
            *_change("delete", "flows", map(_element, applied.flows - wanted.flows)),
            *_change("delete", "resolvers", applied.resolvers - wanted.resolvers),
            *_change("add", "flows", map(_element, wanted.flows - applied.flows)),
            *_change("add", "resolvers", wanted.resolvers - applied.resolvers),
        ]
        if commands:
            await self._network.apply_rules("\n".join(commands) + "\n")


def _change(verb: str, name: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(sorted(elements))
    return [f"{verb} element inet pods {name} {{ {listed} }}"] if listed else []


def _element(flow: Flow) -> str:
    ports = str(flow.first_port) if flow.first_port == flow.last_port else f"{flow.first_port}-{flow.last_port}"
    return f"{flow.source} . {flow.destination} . {flow.protocol} . {ports}"
