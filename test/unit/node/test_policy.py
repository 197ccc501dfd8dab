"""Which connections NetworkPolicies allow."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.clock import SystemClock
from agent_sandbox.local.node.firewall import Firewall
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.policy import Endpoint, Flow, Policy, PolicySet, disjoint
from agent_sandbox.runtime.store import Store, StoreWriter
from agent_sandbox_api.core import NetworkPolicyView

WEB = Endpoint("shop", "10.88.0.2", {"app": "web"}, {("http", "tcp"): 8080})
DB = Endpoint("shop", "10.88.0.3", {"app": "db"})
SPY = Endpoint("spies", "10.88.0.4", {"app": "web"})
NAMESPACES = {"shop": {"team": "a"}, "spies": {"team": "b"}}


def flows(*specs: dict[str, Any], namespace: str = "shop") -> set[tuple[str, str, str, int, int]]:
    policies = [Policy(namespace, spec) for spec in specs]
    found = PolicySet(policies, NAMESPACES).flows([WEB, DB, SPY])
    return {
        (flow.source[-1], flow.destination[-1], flow.protocol, flow.first_port, flow.last_port)
        for flow in found
        if flow.protocol == "tcp"
    }


def select(**labels: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels}}


DB_FROM_WEB = {**select(app="db"), "ingress": [{"from": [select(app="web")], "ports": [{"port": 5432}]}]}


def test_without_policies_no_pod_reaches_another() -> None:
    assert flows() == set()


def test_a_rule_lets_in_the_pods_it_names_from_its_own_namespace_on_its_ports() -> None:
    assert flows(DB_FROM_WEB) == {("2", "3", "tcp", 5432, 5432)}


def test_a_policy_without_rules_lets_nobody_in() -> None:
    assert flows({**select(app="db"), "policyTypes": ["Ingress"]}) == set()


def test_an_empty_rule_lets_everybody_in_on_every_port() -> None:
    assert flows({**select(app="db"), "ingress": [{}]}) == {("2", "3", "tcp", 0, 65535), ("4", "3", "tcp", 0, 65535)}


def test_a_protocol_that_is_none_opens_nothing_and_reaches_no_rule_of_the_kernel() -> None:
    odd = {"protocol": "tcp . 1 }\nflush ruleset\n", "port": 1}
    spec = {**select(app="db"), "ingress": [{"ports": [odd]}], "egress": [{"ports": [odd]}]}
    policies = PolicySet([Policy("shop", spec)], NAMESPACES)

    assert policies.flows([WEB, DB, SPY]) == set()
    assert policies.reach(DB) == frozenset()


@pytest.mark.parametrize(
    "rules",
    [
        {"egress": [{"to": [{"ipBlock": {"cidr": "anywhere"}}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/99"]}}]}]},
        {"ingress": [{"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Odd"}]}}]}]},
        {"ingress": [{"ports": [{"port": [80]}]}]},
        {"ingress": "all"},
    ],
)
def test_a_policy_that_cannot_be_read_closes_what_it_selects_and_nothing_else(rules: dict[str, Any]) -> None:
    """A policy of another namespace must not close the whole stack, and none may open by mistake."""
    broken = Policy("shop", {**select(app="web"), **rules})
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        broken.check()

    policies = PolicySet([broken.without_rules(), Policy("shop", DB_FROM_WEB)], NAMESPACES)
    out = Policy("spies", {"podSelector": {}, "egress": [{}], "ingress": [{}]})
    elsewhere = PolicySet([broken.without_rules(), out], NAMESPACES)

    assert policies.flows([WEB, DB, SPY]) == set()  # WEB may not go out, where it might before
    assert elsewhere.reach(SPY)
    assert not elsewhere.reach(WEB)


def test_a_policy_whose_selector_cannot_be_read_closes_its_namespace() -> None:
    broken = Policy("shop", {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Odd"}]}})

    assert PolicySet([broken.without_rules(), Policy("shop", DB_FROM_WEB)], NAMESPACES).flows([WEB, DB]) == set()


def test_policies_add_up() -> None:
    other = {**select(app="db"), "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}]}

    assert flows(DB_FROM_WEB, other) == {
        ("2", "3", "tcp", 5432, 5432),
        ("2", "3", "tcp", 80, 80),
        ("4", "3", "tcp", 80, 80),
    }


@pytest.mark.parametrize(
    ("peer", "sources"),
    [
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, {"4"}),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}, {"2", "4"}),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}, {"2"}),
        ({"podSelector": {}}, {"2"}),
        ({"ipBlock": {"cidr": "10.88.0.0/16", "except": ["10.88.0.4/32"]}}, {"2"}),
        ({"ipBlock": {"cidr": "192.168.0.0/16"}}, set()),
    ],
)
def test_peers_are_chosen_by_namespace_label_and_address(peer: dict[str, Any], sources: set[str]) -> None:
    assert {source for source, *_ in flows({**select(app="db"), "ingress": [{"from": [peer]}]})} == sources


def test_named_ports_and_ranges_are_those_of_the_target() -> None:
    named = {**select(app="web"), "ingress": [{"ports": [{"port": "http"}, {"port": "unknown"}]}]}
    ranged = {**select(app="db"), "ingress": [{"ports": [{"port": 8000, "endPort": 8010}]}]}

    assert flows(named) == {("3", "2", "tcp", 8080, 8080), ("4", "2", "tcp", 8080, 8080)}
    assert {(first, last) for *_, first, last in flows(ranged)} == {(8000, 8010)}


def test_a_pod_with_egress_rules_needs_the_consent_of_both_sides() -> None:
    closed = {**select(app="web"), "policyTypes": ["Egress"]}
    narrow = {**closed, "egress": [{"to": [select(app="db")], "ports": [{"port": 5000, "endPort": 5432}]}]}

    assert flows(DB_FROM_WEB, closed) == set()
    assert flows(DB_FROM_WEB, narrow) == {("2", "3", "tcp", 5432, 5432)}


def test_a_policy_governs_its_own_namespace_only() -> None:
    assert flows(DB_FROM_WEB, namespace="spies") == set()


ranges = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)


@given(st.lists(ranges))
def test_disjoint_ranges_hold_the_same_ports_and_never_overlap(spans: list[list[int]]) -> None:
    result = disjoint(Flow("a", "b", "tcp", first, last) for first, last in spans)

    ports = [port for flow in result for port in range(flow.first_port, flow.last_port + 1)]
    assert len(ports) == len(set(ports))
    assert set(ports) == {port for first, last in spans for port in range(first, last + 1)}


BAD_RULES: list[dict[str, Any]] = [
    {"ingress": [{"from": [{"ipBlock": {"cidr": "garbage"}}]}]},
    {"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["zz"]}}]}]},
    {"egress": [{"to": [{"ipBlock": {}}]}]},
    {"ingress": [{"ports": [{"port": 99999}]}]},
    {"ingress": [{"ports": [{"port": -1}]}]},
    {"ingress": [{"ports": [{"port": 50, "endPort": 40}]}]},
    {"ingress": [{"ports": ["x"]}]},
    {"ingress": [{"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Foo"}]}}]}]},
    {"ingress": [{"from": [{}]}]},
    {"egress": "x"},
]


@pytest.mark.parametrize("spec", BAD_RULES)
def test_a_policy_with_a_part_that_has_no_meaning_is_told_from_others(spec: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        Policy("shop", spec).check()


def test_a_peer_that_names_nothing_is_nobody() -> None:
    assert flows({"ingress": [{"from": [{}]}]}) == set()
    assert flows({"ingress": [{"from": [{"podSelector": {}}]}]}) != set()


def test_a_whole_policy_is_read_without_complaint() -> None:
    peers = [
        {"podSelector": {}},
        {"namespaceSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]
    ports = [{"port": 1, "endPort": 65535}, {"port": "http"}, {"protocol": "UDP"}, {"protocol": "ICMP", "port": 99999}]
    Policy(
        "shop", {"ingress": [{"from": peers, "ports": ports}, {}], "egress": [{"to": peers, "ports": ports}]}
    ).check()


async def test_one_policy_that_cannot_be_read_closes_no_other_namespace() -> None:
    """Who may write policies in one namespace could cut off all others."""
    one, two = Endpoint("shop", "10.88.0.2"), Endpoint("shop", "10.88.0.3")
    other, another = Endpoint("bank", "10.88.0.4"), Endpoint("bank", "10.88.0.5")
    policies: StoreWriter[NetworkPolicyView] = StoreWriter(clock=SystemClock())
    everybody = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}], "policyTypes": ["Ingress"]}
    for namespace, spec in (("bank", everybody), ("shop", {"podSelector": {}, **BAD_RULES[0]})):
        metadata = {"name": "p", "namespace": namespace, "uid": namespace, "resourceVersion": "1"}
        encoded = msgspec.json.encode({"metadata": metadata, "spec": spec})
        policies.apply("", msgspec.json.decode(encoded, type=NetworkPolicyView))
    pods = [one, two, other, another]
    firewall = Firewall(PodNetwork(), SystemClock(), lambda: pods, policies.store, Store())

    allowed = {(flow.source, flow.destination) for flow in firewall._wanted(frozenset()).flows}

    assert allowed == {(other.address, another.address), (another.address, other.address)}
