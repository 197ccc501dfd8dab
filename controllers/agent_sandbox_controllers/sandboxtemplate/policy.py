"""The NetworkPolicy of a template: the user's rules, or the secure default.

The default lets in the router and nobody else, and lets out to the public internet and to the cluster's own DNS, to
nothing else: no private, link-local (cloud metadata), carrier-grade NAT, loopback, multicast or reserved range, and no
IPv6 form of those.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from agent_sandbox_api.extensions.v1alpha1 import SandboxTemplate
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_controllers.options import ControllerOptions
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.vocabulary import ANNOTATION_TEMPLATE_UID, LABEL_TEMPLATE_ID

EXCEPTED_V4: Final = (
    "0.0.0.0/8",  # this host
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # carrier-grade NAT: Pod ranges and metadata (100.100.100.200) of some clouds
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local: metadata of most clouds
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks, used inside some clouds
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved
)
# IPv4-mapped addresses (::ffff:0:0/96) leave as IPv4 and meet the list above; the API refuses a policy that names them.
EXCEPTED_V6: Final = (
    "::/127",  # unspecified and loopback
    "64:ff9b:1::/48",  # local-use NAT64
    "fc00::/7",  # unique local
    "fe80::/10",  # link-local
    "ff00::/8",  # multicast
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
CLUSTER_DNS: Final[JsonObject] = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
"""CoreDNS, and the original kube-dns, carry this label in every distribution we know."""


def network_policy(template: SandboxTemplate, namespace: str, options: ControllerOptions) -> JsonObject:
    """The NetworkPolicy that governs a template's Pods in one namespace.

    It has no ownerReference: the garbage collector would remove it together with the template, under the feet of the
    Pods that it governs. Our controller removes it when the last of them is gone.
    """
    record = TemplateRecord.of(template)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": record.policy_name_in(namespace),
            "namespace": namespace,
            "labels": record.labels(),
            "annotations": {
                **record.annotations(namespace),
                ANNOTATION_TEMPLATE_UID: template.metadata.uid or "",
            },
        },
        "spec": policy_spec(template, options),
    }


def policy_spec(template: SandboxTemplate, options: ControllerOptions) -> JsonObject:
    """The spec: which Pods, and what they may."""
    rules = template.spec.network_policy
    spec: JsonObject = {
        "podSelector": {"matchLabels": TemplateRecord.of(template).labels()},
        "policyTypes": ["Ingress", "Egress"],
    }
    if rules is None:
        extra = tuple(options.extra_egress_excepts)
        return spec | {
            "ingress": [_from_router(options)],
            "egress": _default_egress(extra),
        }
    if rules.ingress:
        spec["ingress"] = list(rules.ingress)
    if rules.egress:
        spec["egress"] = list(rules.egress)
    return spec


def _from_router(options: ControllerOptions) -> JsonObject:
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": options.router_namespace}},
        "podSelector": {"matchLabels": dict(options.router_labels)},
    }
    return {"from": [peer]}


@lru_cache(maxsize=8)
def _default_egress(extra_excepts: tuple[str, ...]) -> list[JsonObject]:
    """Shared: never change it. Each Sandbox's gate compares with it."""
    extra = [ipaddress.ip_network(cidr) for cidr in extra_excepts]
    v4 = [*EXCEPTED_V4, *(str(network) for network in extra if network.version == 4)]
    v6 = [*EXCEPTED_V6, *_through_nat64(v4), *(str(network) for network in extra if network.version == 6)]
    internet = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": v4}},
        {"ipBlock": {"cidr": "::/0", "except": v6}},
    ]
    dns_ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    return [{"to": internet}, {"to": [CLUSTER_DNS], "ports": dns_ports}]


def _through_nat64(cidrs: Iterable[str]) -> list[str]:
    """The IPv6 ranges under which a NAT64 gateway reaches these IPv4 ranges."""
    base = int(_NAT64.network_address)
    networks = [ipaddress.IPv4Network(cidr) for cidr in cidrs]
    return [str(ipaddress.IPv6Network((base + int(each.network_address), 96 + each.prefixlen))) for each in networks]


def same_policy(present: JsonObject, wanted: JsonObject) -> bool:
    """Whether two specs mean the same, after the defaults that an API server writes into what it stores."""
    return _normalised(present) == _normalised(wanted)


def _normalised(spec: Mapping[str, Any]) -> JsonObject:
    return {
        "podSelector": spec.get("podSelector") or {},
        "policyTypes": sorted(spec.get("policyTypes") or ()),
        "ingress": [_rule(rule, "from") for rule in spec.get("ingress") or ()],
        "egress": [_rule(rule, "to") for rule in spec.get("egress") or ()],
    }


def _rule(rule: Mapping[str, Any], direction: str) -> JsonObject:
    ports = [{**port, "protocol": port.get("protocol") or "TCP"} for port in rule.get("ports") or ()]
    peers = [_peer(peer) for peer in rule.get(direction) or ()]
    return {"ports": ports, "peers": peers}


def _peer(peer: Mapping[str, Any]) -> JsonObject:
    block = peer.get("ipBlock")
    if block is None:
        return dict(peer)
    kept = {key: value for key, value in block.items() if value}
    return {**peer, "ipBlock": kept}


def is_ours(labels: Mapping[str, str], record: TemplateRecord) -> bool:
    """Whether an existing policy is the one we made for this template."""
    return labels.get(LABEL_TEMPLATE_ID) == record.id
