"""The rules of the router between Pods, as nftables reads them.

A pure room: what Pods may goes in, commands come out. Two sets and a map hold everything that changes; the chains never
do. Every packet is held to them, those of connections that are established already too, so that what is no longer
allowed ends at once, in both directions.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent_sandbox.local.node.addresses import ISOLATED_NETWORK
from agent_sandbox.local.node.helper.namespaces import GATEWAY
from agent_sandbox.local.node.policy import Flow
from agent_sandbox.local.node.reach import Reach

OUTSIDE: Final = "outside0"
"""The router's interface to the world, if this machine gives it one."""

NEVER: Final = ("0.0.0.0/8", str(ISOLATED_NETWORK), "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""Where no policy leads: this host, Pods (they have rules of their own), loopback, link-local addresses, among them the
metadata service of clouds, multicast and reserved ranges."""

BASE: Final = f"""
table inet pods {{
  set flows {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service
    flags interval
  }}
  set resolvers {{
    type ipv4_addr . inet_proto
  }}
  set host {{
    type ipv4_addr
  }}
  set never {{
    type ipv4_addr
    flags interval
    elements = {{ {", ".join(NEVER)} }}
  }}
  map leaving {{
    type ipv4_addr : verdict
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct direction original ip saddr . ip daddr . meta l4proto . th dport @flows accept
    ct direction reply ct state established ip daddr . ip saddr . meta l4proto . th sport @flows accept
    oifname "{OUTSIDE}" ip daddr @never goto refuse
    oifname "{OUTSIDE}" ip daddr @host goto refuse
    oifname "{OUTSIDE}" ct direction original ip saddr vmap @leaving
    iifname "{OUTSIDE}" ct direction reply ct state established ip daddr vmap @leaving
    meta l4proto icmp ct state related accept
    goto refuse
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain input {{
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct direction reply ct state established,related accept
    ip daddr {GATEWAY} th dport 53 ip saddr . meta l4proto @resolvers accept
    goto refuse
  }}
  chain translate {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{OUTSIDE}" masquerade
  }}
}}
"""
"""Nobody starts a connection but the router (whose packets pass the output hook), and Pods as the sets allow: ``flows``
between Pods, ``leaving`` out of the stack, ``resolvers`` to the name server. Refusals are told, so that a program
fails at once instead of waiting."""


_CHANGING: Final = (("map", "leaving"), ("set", "flows"), ("set", "resolvers"), ("set", "host"))


@dataclass(frozen=True)
class Rules:
    """What the pod network lets through.

    Attributes:
        flows: connections between Pods.
        resolvers: Pods that may ask the name server: address and protocol.
        leaving: what lies outside the stack and a Pod may connect to, by its address.
        host: addresses of this machine, to which nothing leads.
    """

    flows: frozenset[Flow] = frozenset()
    resolvers: frozenset[tuple[str, str]] = frozenset()
    leaving: Mapping[str, frozenset[Reach]] = field(default_factory=dict)
    host: frozenset[str] = frozenset()


def changes(applied: Rules, wanted: Rules) -> str:
    """The commands, one transaction, that turn one into the other; empty if they are the same.

    What goes, goes first, so that a changed range does not collide with its old form.
    """
    before, after = _leaving(applied), _leaving(wanted)
    gone, fresh = set(before.values()) - set(after.values()), set(after.values()) - set(before.values())
    changed = {address for address in before.keys() | after.keys() if before.get(address) != after.get(address)}
    profiles = {_name(reach): reach for reach in wanted.leaving.values() if reach}
    commands = [
        *_change("add", "host", wanted.host - applied.host),
        *_change("delete", "flows", map(_flow, applied.flows - wanted.flows)),
        *_change("delete", "resolvers", map(_resolver, applied.resolvers - wanted.resolvers)),
        *_change("delete", "leaving", changed & before.keys()),
        *(f"delete chain inet pods {name}\ndelete set inet pods {name}" for name in sorted(gone)),
        *(_profile(name, profiles[name]) for name in sorted(fresh)),
        *_change("add", "flows", map(_flow, wanted.flows - applied.flows)),
        *_change("add", "resolvers", map(_resolver, wanted.resolvers - applied.resolvers)),
        *_change("add", "leaving", (f"{address} : jump {after[address]}" for address in changed & after.keys())),
        *_change("delete", "host", applied.host - wanted.host),
    ]
    return "".join(f"{command}\n" for command in commands)


def replacement(wanted: Rules) -> str:
    """The commands, one transaction, after which exactly ``wanted`` holds, whatever held before.

    For the first pass: an earlier node may have left its rules, under which Pods live. They hold until this moment.
    """
    return "".join(f"flush {kind} inet pods {name}\n" for kind, name in _CHANGING) + changes(Rules(), wanted)


def _leaving(rules: Rules) -> dict[str, str]:
    """Which profile each Pod has; Pods that may connect to the same have the same."""
    return {address: _name(reach) for address, reach in rules.leaving.items() if reach}


def _name(reach: frozenset[Reach]) -> str:
    text = "\n".join(str(one) for one in sorted(reach))
    return f"out_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _profile(name: str, reach: frozenset[Reach]) -> str:
    elements = ", ".join(str(one) for one in sorted(reach))
    return (
        f"add set inet pods {name} {{ type ipv4_addr . inet_proto . inet_service; flags interval; }}\n"
        f"add chain inet pods {name}\nflush chain inet pods {name}\nflush set inet pods {name}\n"
        f"add element inet pods {name} {{ {elements} }}\n"
        f"add rule inet pods {name} ct direction original ip daddr . meta l4proto . th dport @{name} accept\n"
        f"add rule inet pods {name} ct direction reply ip saddr . meta l4proto . th sport @{name} accept"
    )


def _change(verb: str, name: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(sorted(elements))
    return [f"{verb} element inet pods {name} {{ {listed} }}"] if listed else []


def _flow(flow: Flow) -> str:
    ports = str(flow.first_port) if flow.first_port == flow.last_port else f"{flow.first_port}-{flow.last_port}"
    return f"{flow.source} . {flow.destination} . {flow.protocol} . {ports}"


def _resolver(entry: tuple[str, str]) -> str:
    return " . ".join(entry)
