"""Where outside the stack a Pod may connect to: rules of address ranges and ports, made disjoint for the kernel's sets.

A pure room. In: the allowed ranges, which may overlap in any way. Out: the same connections as ranges of which no two
share an address and a port.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[int, int]
"""First and last of consecutive numbers: addresses or ports."""


@dataclass(frozen=True, order=True)
class Reach:
    """Ports of addresses outside that a Pod may connect to."""

    protocol: str
    first_address: int
    last_address: int
    first_port: int
    last_port: int

    def __str__(self) -> str:
        """The form of an element of the kernel's set: addresses, protocol, ports."""
        first, last = (ipaddress.IPv4Address(number) for number in (self.first_address, self.last_address))
        return f"{_span(str(first), str(last))} . {self.protocol} . {_span(str(self.first_port), str(self.last_port))}"


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last}"


def addresses_of(cidr: str, excepts: Iterable[str] = ()) -> list[Span]:
    """The IPv4 addresses of a block without its exceptions; none of an IPv6 block.

    Raises:
        ValueError: something is no block of addresses.
    """
    whole = _block(cidr)
    if whole is None:
        return []
    left = [whole]
    for text in excepts:
        hole = _block(text)
        if hole is not None:
            left = [part for span in left for part in _without(span, hole)]
    return left


def _block(cidr: str) -> Span | None:
    network = ipaddress.ip_network(cidr, strict=False)
    if network.version != 4:
        return None
    return int(network.network_address), int(network.broadcast_address)


def _without(span: Span, hole: Span) -> Iterator[Span]:
    if span[0] < hole[0]:
        yield span[0], min(span[1], hole[0] - 1)
    if span[1] > hole[1]:
        yield max(span[0], hole[1] + 1), span[1]


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same numbers in as few spans as possible, in order."""
    result: list[Span] = []
    for first, last in sorted(spans):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return tuple(result)


def disjoint_reach(rules: Iterable[Reach]) -> frozenset[Reach]:
    """The same connections, no two of which share an address and a port."""
    by_protocol: dict[str, list[Reach]] = defaultdict(list)
    for rule in rules:
        by_protocol[rule.protocol].append(rule)
    return frozenset(part for protocol, same in by_protocol.items() for part in _disjoint(protocol, same))


def _disjoint(protocol: str, rules: Sequence[Reach]) -> Iterator[Reach]:
    """Cut the addresses where any rule begins or ends; between two cuts all rules agree."""
    cuts = sorted({rule.first_address for rule in rules} | {rule.last_address + 1 for rule in rules})
    spans: dict[tuple[Span, ...], list[Span]] = defaultdict(list)
    for first, following in pairwise(cuts):
        covering = [rule for rule in rules if rule.first_address <= first and following - 1 <= rule.last_address]
        ports = merged((rule.first_port, rule.last_port) for rule in covering)
        spans[ports].append((first, following - 1))
    for ports, addresses in spans.items():
        for first_address, last_address in merged(addresses):
            for first_port, last_port in ports:
                yield Reach(protocol, first_address, last_address, first_port, last_port)
