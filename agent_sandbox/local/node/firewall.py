"""Keeps the pod network's rules equal to what NetworkPolicies allow, while Pods, labels and policies change.

In: informers of Pods, NetworkPolicies and Namespaces. Out: elements of one nftables set, added and removed by
difference, some 15 ms after a change. What the set does not hold is dropped, so a new Pod, a late update or an error of
ours closes and never opens. Connections that are established already stay, as with most implementations in clusters.
"""

from collections.abc import Callable, Iterable
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
        applied: set[Flow] = set()
        self._changed.set()
        while True:
            await self._changed.wait()
            await self._clock.sleep(_COALESCE)
            self._changed = anyio.Event()
            wanted = self._wanted()
            try:
                await self._apply(applied - wanted, wanted - applied)
            except HelperError as error:
                log.error("network policies not applied; Pods stay closed to each other", error=str(error))
                await self._clock.sleep(_RETRY)
                self._changed.set()
            else:
                applied = wanted

    def _wanted(self) -> set[Flow]:
        policies = [Policy(entry.metadata.namespace, raw_object(entry.spec)) for entry in self._policies.list()]
        namespaces = {entry.metadata.name: entry.metadata.labels for entry in self._namespaces.list()}
        try:
            return disjoint(PolicySet(policies, namespaces).flows(self._endpoints()))
        except (ValueError, TypeError, KeyError) as error:
            log.error("a network policy cannot be read; Pods are closed to each other", error=repr(error))
            return set()

    async def _apply(self, gone: set[Flow], new: set[Flow]) -> None:
        # One transaction: what goes, goes first, so that a changed range does not collide with its old form.
        rules = [_change("delete", gone)] if gone else []
        rules += [_change("add", new)] if new else []
        if rules:
            await self._network.apply_rules("\n".join(rules) + "\n")


def _change(verb: str, flows: Iterable[Flow]) -> str:
    elements = ", ".join(_element(flow) for flow in sorted(flows))
    return f"{verb} element inet pods flows {{ {elements} }}"


def _element(flow: Flow) -> str:
    ports = str(flow.first_port) if flow.first_port == flow.last_port else f"{flow.first_port}-{flow.last_port}"
    return f"{flow.source} . {flow.destination} . {flow.protocol} . {ports}"
