"""Which connections NetworkPolicies allow. A pure room: Pods and policies go in, what each may comes out.

It follows networking.k8s.io/v1, with differences that err on the safe side. A Pod that no policy selects for ingress
is reachable by no other Pod, and one that none selects for egress reaches nothing outside the stack, where Kubernetes
would allow everything. A rule for DNS that names no peers opens the stack's name server, not every server of the world
on that port. The router is not a Pod and always gets in.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent_sandbox.kube import selector_from
from agent_sandbox.local.node.helper.namespaces import GATEWAY
from agent_sandbox.local.node.reach import Reach, Span, addresses_of, disjoint_reach

_Json = dict[str, Any]

_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_LAST_PORT: Final = 65535


@dataclass(frozen=True, order=True)
class Flow:
    """Connections that may be opened: from one Pod to ports of another."""

    source: str
    destination: str
    protocol: str
    first_port: int = 0
    last_port: int = _LAST_PORT


@dataclass(frozen=True)
class Endpoint:
    """A Pod as policies see it.

    Attributes:
        namespace: its namespace.
        address: its address.
        labels: its labels.
        ports: named ports of its containers, with their protocol: ``(name, protocol)`` to number.
    """

    namespace: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy: its namespace and its spec as JSON."""

    namespace: str
    spec: _Json

    def governs(self, endpoint: Endpoint, direction: str) -> bool:
        """Whether it selects the Pod for ``Ingress`` or ``Egress``."""
        if endpoint.namespace != self.namespace or direction not in self._types():
            return False
        return _selects(self.spec.get("podSelector"), endpoint.labels)

    def _types(self) -> Sequence[str]:
        given: Sequence[str] | None = self.spec.get("policyTypes")
        return given or ["Ingress", *(["Egress"] if "egress" in self.spec else [])]


def _selects(selector: _Json | None, labels: Mapping[str, str]) -> bool:
    return selector_from(selector or {}).matches(labels)


DNS_PORT: Final = 53
_NOBODY: Final = Endpoint("", "")
"""Outside the stack no port has a name that we know."""
NAME_SERVER: Final = Endpoint(
    "kube-system", GATEWAY, {"k8s-app": "kube-dns"}, {("dns", "udp"): DNS_PORT, ("dns-tcp", "tcp"): DNS_PORT}
)
"""The stack's name server as policies written for a cluster know it."""


class PolicySet:
    """All policies and namespaces of one moment."""

    def __init__(self, policies: Iterable[Policy], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        """
        Args:
            policies: the policies.
            namespaces: labels of namespaces by name.
        """
        self._policies = list(policies)
        self._namespaces = namespaces

    def flows(self, endpoints: Sequence[Endpoint]) -> set[Flow]:
        """Everything that is allowed between these Pods."""
        found: set[Flow] = set()
        for target in endpoints:
            inward = [policy for policy in self._policies if policy.governs(target, "Ingress")]
            for source in endpoints if inward else ():
                if source.address != target.address:
                    found |= self._between(source, target, inward)
        return found

    def _outward(self, source: Endpoint) -> list[Policy]:
        return [policy for policy in self._policies if policy.governs(source, "Egress")]

    def may_resolve(self, source: Endpoint, protocol: str) -> bool:
        """Whether a Pod may ask the stack's name server, which stands where a cluster has kube-dns."""
        outward = self._outward(source)
        if not outward:
            return True
        released = self._allowed(outward, "egress", "to", NAME_SERVER, source, NAME_SERVER)
        return any(flow.protocol == protocol and flow.first_port <= DNS_PORT <= flow.last_port for flow in released)

    def may_ask_outside(self, source: Endpoint) -> bool:
        """Whether a Pod may learn names outside the stack: where a policy lets it ask kube-dns, as in a cluster."""
        return bool(self._outward(source)) and any(self.may_resolve(source, protocol) for protocol in ("udp", "tcp"))

    def reach(self, source: Endpoint) -> frozenset[Reach]:
        """Everything outside the stack that a Pod may connect to."""
        found = []
        for policy in self._outward(source):
            for rule in policy.spec.get("egress") or ():
                spans = [span for block in _blocks(rule.get("to")) for span in block]
                found += [
                    Reach(protocol, *span, first_port, last_port)
                    for protocol, first_port, last_port in _ports(rule, _NOBODY)
                    for span in spans
                    if rule.get("to") or (first_port, last_port) != (DNS_PORT, DNS_PORT)
                ]
        return disjoint_reach(found)

    def _between(self, source: Endpoint, target: Endpoint, inward: Sequence[Policy]) -> set[Flow]:
        admitted = self._allowed(inward, "ingress", "from", source, target, target)
        outward = [policy for policy in self._policies if policy.governs(source, "Egress")]
        if not admitted or not outward:
            return admitted
        released = self._allowed(outward, "egress", "to", target, source, target)
        return {flow for one in admitted for other in released if (flow := _common(one, other)) is not None}

    def _allowed(
        self,
        policies: Sequence[Policy],
        rules: str,
        peers: str,
        peer: Endpoint,
        subject: Endpoint,
        target: Endpoint,
    ) -> set[Flow]:
        """What one side's policies allow, as flows towards ``target``."""
        source = peer if subject is target else subject
        found = set()
        for policy in policies:
            for rule in policy.spec.get(rules) or ():
                if self._names(rule.get(peers), peer, policy.namespace):
                    found |= {Flow(source.address, target.address, *ports) for ports in _ports(rule, target)}
        return found

    def _names(self, peers: Sequence[_Json] | None, peer: Endpoint, namespace: str) -> bool:
        """Whether a rule's list of peers holds this one; an absent or empty list holds everybody."""
        return not peers or any(self._is(entry, peer, namespace) for entry in peers)

    def _is(self, entry: _Json, peer: Endpoint, namespace: str) -> bool:
        if entry.get("ipBlock"):
            return _in_block(entry["ipBlock"], peer.address)
        if entry.get("namespaceSelector") is not None:
            default = {"kubernetes.io/metadata.name": peer.namespace}
            if not _selects(entry["namespaceSelector"], {**default, **self._namespaces.get(peer.namespace, {})}):
                return False
        elif peer.namespace != namespace:
            return False
        return _selects(entry.get("podSelector"), peer.labels)


def _blocks(peers: Sequence[_Json] | None) -> Iterator[list[Span]]:
    """Addresses outside that a rule's list of peers names; an absent or empty list names all."""
    if not peers:
        yield addresses_of("0.0.0.0/0")
    for entry in peers or ():
        block = entry.get("ipBlock")
        if block:
            yield addresses_of(block["cidr"], block.get("except") or ())


def _in_block(block: _Json, address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    if parsed not in ipaddress.ip_network(block["cidr"], strict=False):
        return False
    return all(parsed not in ipaddress.ip_network(part, strict=False) for part in block.get("except") or ())


def _ports(rule: _Json, target: Endpoint) -> Iterator[tuple[str, int, int]]:
    """Protocol and range of ports of each entry of a rule; every port of every protocol if it names none."""
    entries = rule.get("ports")
    if not entries:
        yield from ((protocol, 0, _LAST_PORT) for protocol in _PROTOCOLS)
        return
    for entry in entries:
        protocol = str(entry.get("protocol") or "TCP").lower()
        port = entry.get("port")
        if port is None:
            yield protocol, 0, _LAST_PORT
        elif isinstance(port, str):
            number = target.ports.get((port, protocol))
            if number is not None:
                yield protocol, number, number
        else:
            yield protocol, int(port), int(entry.get("endPort") or port)


def _common(one: Flow, other: Flow) -> Flow | None:
    """What both allow."""
    first, last = max(one.first_port, other.first_port), min(one.last_port, other.last_port)
    if one.protocol != other.protocol or first > last:
        return None
    return Flow(one.source, one.destination, one.protocol, first, last)


def disjoint(flows: Iterable[Flow]) -> set[Flow]:
    """The same connections without overlap: the kernel's sets hold no two ranges that share a port."""
    merged: set[Flow] = set()
    previous: Flow | None = None
    for flow in sorted(flows):
        if previous is not None and _same_pair(previous, flow) and flow.first_port <= previous.last_port + 1:
            last = max(previous.last_port, flow.last_port)
            previous = Flow(flow.source, flow.destination, flow.protocol, previous.first_port, last)
            continue
        if previous is not None:
            merged.add(previous)
        previous = flow
    return merged | ({previous} if previous is not None else set())


def _same_pair(one: Flow, other: Flow) -> bool:
    return (one.source, one.destination, one.protocol) == (other.source, other.destination, other.protocol)
