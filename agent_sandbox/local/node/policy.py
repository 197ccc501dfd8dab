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

_Governing = tuple[int, ...]

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

    def check(self) -> None:
        """Read all of it once.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: an API server should never have taken it.
        """
        _selects(self.spec.get("podSelector"), {})
        for rules, peers in (("ingress", "from"), ("egress", "to")):
            for rule in self.spec.get(rules) or ():
                list(_ports(rule, _NOBODY))
                for entry in rule.get(peers) or ():
                    if entry.get("ipBlock") is not None:
                        addresses_of(entry["ipBlock"]["cidr"], entry["ipBlock"].get("except") or ())
                    elif not entry:
                        raise ValueError("a peer names neither Pods nor namespaces nor addresses")
                    for selector in ("namespaceSelector", "podSelector"):
                        _selects(entry.get(selector), {})

    def without_rules(self) -> "Policy":
        """What is left of it where it cannot be read: it closes what it selects, and is nothing to anybody else."""
        selector = self.spec.get("podSelector") or {}
        try:
            _selects(selector, {})
        except (ValueError, TypeError, KeyError, AttributeError):
            selector = {}
        return Policy(self.namespace, {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]})

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
        # Most Pods are governed by the same few policies: what these mean is worked out once for all of them.
        self._governing: dict[tuple[str, str, str], _Governing] = {}
        self._rules: dict[tuple[_Governing, str, str], list[_Json]] = {}
        self._reaches: dict[_Governing, frozenset[Reach]] = {}

    def flows(self, endpoints: Sequence[Endpoint]) -> set[Flow]:
        """Everything that is allowed between these Pods."""
        found: set[Flow] = set()
        admitted: dict[_Governing, list[tuple[Endpoint, list[_Json]]]] = {}
        for target in endpoints:
            inward = self._governing_of(target, "Ingress")
            if not inward:
                continue
            if inward not in admitted:
                named = ((source, self._rules_naming(source, inward, "ingress")) for source in endpoints)
                admitted[inward] = [(source, rules) for source, rules in named if rules]
            for source, rules in admitted[inward]:
                if source.address != target.address:
                    found |= self._released(source, target, _flows(source, target, rules))
        return found

    def _released(self, source: Endpoint, target: Endpoint, admitted: set[Flow]) -> set[Flow]:
        """What the source's own policies leave of what the target's admit."""
        outward = self._governing_of(source, "Egress")
        if not outward:
            return admitted
        released = _flows(source, target, self._rules_naming(target, outward, "egress"))
        return {flow for one in admitted for other in released if (flow := _common(one, other)) is not None}

    def may_resolve(self, source: Endpoint, protocol: str) -> bool:
        """Whether a Pod may ask the stack's name server, which stands where a cluster has kube-dns."""
        outward = self._governing_of(source, "Egress")
        if not outward:
            return True
        released = _flows(source, NAME_SERVER, self._rules_naming(NAME_SERVER, outward, "egress"))
        return any(flow.protocol == protocol and flow.first_port <= DNS_PORT <= flow.last_port for flow in released)

    def may_ask_outside(self, source: Endpoint) -> bool:
        """Whether a Pod may learn names outside the stack: where a policy lets it ask kube-dns, as in a cluster."""
        governed = bool(self._governing_of(source, "Egress"))
        return governed and any(self.may_resolve(source, protocol) for protocol in ("udp", "tcp"))

    def reach(self, source: Endpoint) -> frozenset[Reach]:
        """Everything outside the stack that a Pod may connect to."""
        outward = self._governing_of(source, "Egress")
        if outward not in self._reaches:
            rules = (rule for number in outward for rule in self._policies[number].spec.get("egress") or ())
            self._reaches[outward] = disjoint_reach(part for rule in rules for part in _reach_of(rule))
        return self._reaches[outward]

    def _governing_of(self, endpoint: Endpoint, direction: str) -> _Governing:
        """Which policies select a Pod for a direction, by their place in the list."""
        key = (endpoint.namespace, endpoint.address, direction)
        if key not in self._governing:
            self._governing[key] = tuple(
                number for number, policy in enumerate(self._policies) if policy.governs(endpoint, direction)
            )
        return self._governing[key]

    def _rules_naming(self, peer: Endpoint, governing: _Governing, rules: str) -> list[_Json]:
        """The rules of these policies whose list of peers holds this one."""
        key = (governing, rules, peer.address)
        if key not in self._rules:
            peers = "from" if rules == "ingress" else "to"
            policies = [self._policies[number] for number in governing]
            self._rules[key] = [
                rule
                for policy in policies
                for rule in policy.spec.get(rules) or ()
                if self._names(rule.get(peers), peer, policy.namespace)
            ]
        return self._rules[key]

    def _names(self, peers: Sequence[_Json] | None, peer: Endpoint, namespace: str) -> bool:
        """Whether a rule's list of peers holds this one; an absent or empty list holds everybody."""
        return not peers or any(self._is(entry, peer, namespace) for entry in peers)

    def _is(self, entry: _Json, peer: Endpoint, namespace: str) -> bool:
        if entry.get("ipBlock") is not None:
            return _in_block(entry["ipBlock"], peer.address)
        if entry.get("namespaceSelector") is not None:
            default = {"kubernetes.io/metadata.name": peer.namespace}
            if not _selects(entry["namespaceSelector"], {**default, **self._namespaces.get(peer.namespace, {})}):
                return False
        elif peer.namespace != namespace or entry.get("podSelector") is None:
            return False
        return _selects(entry.get("podSelector"), peer.labels)


def _flows(source: Endpoint, target: Endpoint, rules: Iterable[_Json]) -> set[Flow]:
    return {Flow(source.address, target.address, *ports) for rule in rules for ports in _ports(rule, target)}


def _reach_of(rule: _Json) -> Iterator[Reach]:
    """What one egress rule opens outside."""
    spans = [span for block in _blocks(rule.get("to")) for span in block]
    for protocol, first_port, last_port in _ports(rule, _NOBODY):
        if rule.get("to") or (first_port, last_port) != (DNS_PORT, DNS_PORT):
            yield from (Reach(protocol, *span, first_port, last_port) for span in spans)


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
        if protocol not in _PROTOCOLS:
            continue  # it would become a word of the kernel's rules
        port = entry.get("port")
        if port is None:
            yield protocol, 0, _LAST_PORT
        elif isinstance(port, str):
            number = target.ports.get((port, protocol))
            if number is not None:
                yield protocol, number, number
        else:
            first, last = int(port), int(entry.get("endPort") or port)
            if not 0 < first <= last <= _LAST_PORT:
                raise ValueError(f"{first}-{last} is no range of ports")  # nft would refuse all rules over it
            yield protocol, first, last


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
