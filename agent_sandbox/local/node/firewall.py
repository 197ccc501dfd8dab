"""Keeps the pod network's rules equal to what NetworkPolicies allow, while Pods, labels and policies change.

In: informers of Pods, NetworkPolicies and Namespaces. Out: elements of nftables sets, added and removed by difference,
soon after a change. What the sets do not hold is refused, so a new Pod, a late update or an error of ours closes
and never opens. Connections that are established already are held to the rules of the moment too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.errors import HelperError
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.policy import Endpoint, Policy, PolicySet, disjoint
from agent_sandbox.local.node.ruleset import Rules, changes, replacement
from agent_sandbox.runtime.store import Store
from agent_sandbox_api.core import MetaOnlyView, NetworkPolicyView
from agent_sandbox_api.views import raw_object

log = structlog.get_logger(__name__)

_COALESCE: Final = 0.005
_REST: Final = 2.0
"""Pause after a pass, in units of its own length: a pass looks at all Pods, and shall not take all of a processor."""

_RETRY: Final = 1.0
_HOST_PERIOD: Final = 10.0
_LOCAL: Final = "/32 host LOCAL"

Endpoints = Callable[[], list[Endpoint]]


class Firewall:
    """Enforces NetworkPolicies.

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
        self._applied = anyio.Event()
        self._forwarded: frozenset[str] = frozenset()
        self._unreadable: dict[str, str] = {}  # UIDs of policies that were told of, with their versions

    def touch(self, _: object = None) -> None:
        """Something changed."""
        self._changed.set()

    def enforced(self) -> anyio.Event:
        """Set once everything that changed before this call is enforced."""
        self.touch()
        return self._applied

    def may_ask_outside(self, address: str) -> bool:
        """Whether names outside the stack are looked up for a Pod: one whose policies let it ask a name server."""
        return address in self._forwarded

    def leads_out(self, endpoint: Endpoint) -> bool:
        """Whether a Pod's policies allow it any connection out of the stack."""
        try:
            return bool(self._policy_set().reach(endpoint))
        except (ValueError, TypeError, KeyError):
            return False

    async def run(self) -> None:
        """Keep the rules right until cancelled; begins with a pod network that allows nothing, or what it did."""
        applied: Rules | None = None
        host, next_look = frozenset[str](), 0.0
        while True:
            began = self._clock.monotonic()
            # What a pass sees includes every change until here: whoever waits from now on waits for a later pass.
            self._changed = anyio.Event()
            passing, self._applied = self._applied, anyio.Event()
            if began >= next_look:  # the machine may get another address, about which nobody tells us
                host = await anyio.to_thread.run_sync(host_addresses)
                next_look = began + _HOST_PERIOD
            wanted = self._wanted(host)
            try:
                if commands := replacement(wanted) if applied is None else changes(applied, wanted):
                    await self._network.apply_rules(commands)
            except HelperError as error:
                log.error("network policies not applied; Pods stay closed to each other", error=str(error))
                await self._clock.sleep(_RETRY)
                self._changed.set()
            else:
                applied = wanted
                passing.set()
            ended = self._clock.monotonic()
            with anyio.move_on_after(_HOST_PERIOD):
                await self._changed.wait()
            # The first change is enforced at once; of many, several in one pass.
            pause = max(_COALESCE, _REST * (ended - began))
            await self._clock.sleep(max(0.0, ended + pause - self._clock.monotonic()))

    def _policy_set(self) -> PolicySet:
        policies = [self._readable(entry) for entry in self._policies.list()]
        namespaces = {entry.metadata.name: entry.metadata.labels for entry in self._namespaces.list()}
        return PolicySet(policies, namespaces)

    def _readable(self, entry: NetworkPolicyView) -> Policy:
        meta = entry.metadata
        policy = Policy(meta.namespace, raw_object(entry.spec))
        try:
            policy.check()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if self._unreadable.get(meta.uid) != meta.resource_version:
                self._unreadable[meta.uid] = meta.resource_version
                log.error(
                    "a network policy cannot be read; the Pods that it selects are closed",
                    namespace=meta.namespace,
                    name=meta.name,
                    error=repr(error),
                )
            return policy.without_rules()
        return policy

    def _wanted(self, host: frozenset[str]) -> Rules:
        try:
            policy_set, endpoints = self._policy_set(), self._endpoints()
            resolvers = {
                (entry.address, protocol)
                for entry in endpoints
                for protocol in ("tcp", "udp")
                if policy_set.may_resolve(entry, protocol)
            }
            self._forwarded = frozenset(entry.address for entry in endpoints if policy_set.may_ask_outside(entry))
            leaving = {entry.address: policy_set.reach(entry) for entry in endpoints}
            return Rules(frozenset(disjoint(policy_set.flows(endpoints))), frozenset(resolvers), leaving, host)
        except (ValueError, TypeError, KeyError) as error:
            log.error("a network policy cannot be read; Pods are closed", error=repr(error))
            self._forwarded = frozenset()
            return Rules(host=host)


def host_addresses() -> frozenset[str]:
    """The IPv4 addresses of this machine, in the network namespace of the calling process."""
    found, last = set(), ""
    for line in Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            last = words[1]
        elif line.strip() == _LOCAL:
            found.add(last)
    return frozenset(found)
