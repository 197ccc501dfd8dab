"""NetworkPolicies: which directions one governs when it does not say, and what none may say."""

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.metadata import port_name_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy

_DIRECTIONS: Final = ("Ingress", "Egress")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_PORT_RANGE: Final = "must be between 1 and 65535, inclusive"


def _default(value: JsonObject) -> None:
    """A policy governs ingress, and egress if it has egress rules."""
    spec = value.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or []:
            for port in rule.get("ports") or []:
                port.setdefault("protocol", "TCP")


def _causes(value: JsonObject, _old: JsonObject | None) -> list[Cause]:
    spec = value["spec"]
    causes: list[Cause] = []
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                causes += _port_causes(port, f"{path}.ports[{number}]")
            for number, peer in enumerate(rule.get(peers) or ()):
                causes += _peer_causes(peer, f"{path}.{peers}[{number}]")
    causes += [
        Cause.unsupported(f"spec.policyTypes[{index}]", found, _DIRECTIONS)
        for index, found in enumerate(spec["policyTypes"])
        if found not in _DIRECTIONS
    ]
    return causes


def _port_causes(entry: JsonObject, path: str) -> Iterator[Cause]:
    port, last = entry.get("port"), entry.get("endPort")
    if entry["protocol"] not in _PROTOCOLS:
        yield Cause.unsupported(f"{path}.protocol", entry["protocol"], _PROTOCOLS)
    if isinstance(port, str):
        for error in port_name_errors(port):
            yield Cause.invalid(f"{path}.port", port, error)
        if last is not None:
            yield Cause.invalid(f"{path}.endPort", last, "may not be specified when `port` is non-numeric")
    elif port is not None:
        if not 0 < port < 65536:
            yield Cause.invalid(f"{path}.port", port, _PORT_RANGE)
        if last is not None and not 0 < last < 65536:
            yield Cause.invalid(f"{path}.endPort", last, _PORT_RANGE)
        elif last is not None and last < port:
            yield Cause.invalid(f"{path}.endPort", last, "must be greater than or equal to `port`")
    elif last is not None:
        yield Cause.invalid(f"{path}.endPort", last, "may not be specified when `port` is not specified")


def _peer_causes(peer: JsonObject, path: str) -> Iterator[Cause]:
    block = peer.get("ipBlock")
    selects = any(peer.get(name) is not None for name in ("podSelector", "namespaceSelector"))
    if block is None and not selects:
        yield Cause.required(path, "must specify a peer")
    elif block is not None and selects:
        yield Cause.forbidden(path, "may not specify both ipBlock and another peer")
    elif block is not None:
        yield from _block_causes(block, f"{path}.ipBlock")


def _block_causes(block: JsonObject, path: str) -> Iterator[Cause]:
    if not block.get("cidr"):
        yield Cause.required(f"{path}.cidr")
        return
    try:
        whole = _network(block["cidr"])
    except ValueError as error:
        yield Cause.invalid(f"{path}.cidr", block["cidr"], str(error))
        return
    for index, text in enumerate(block.get("except") or ()):
        try:
            hole = _network(text)
        except ValueError as error:
            yield Cause.invalid(f"{path}.except[{index}]", text, str(error))
            continue
        if hole.version != whole.version or hole == whole or not hole.subnet_of(whole):
            yield Cause.invalid(f"{path}.except[{index}]", text, "must be a strict subset of `cidr`")


def _network(text: str) -> Any:
    """The block of addresses that a text means.

    Raises:
        ValueError: it is none; the message is for the user.
    """
    try:
        network = ipaddress.ip_network(text if "/" in text else "", strict=False)
    except ValueError as error:
        raise ValueError("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)") from error
    if str(network.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise ValueError("must not have bits set beyond the prefix length")
    return network


NETWORK_POLICY_STRATEGY = Strategy(generation=True, default=_default, validate=_causes)
