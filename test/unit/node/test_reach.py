"""What lies outside the stack and policies allow, made disjoint."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.local.node.policy import Endpoint, Policy, PolicySet
from agent_sandbox.local.node.reach import Reach, addresses_of, disjoint_reach
from agent_sandbox.local.node.ruleset import Rules, changes

POD = Endpoint("shop", "10.88.0.2", {"app": "web"}, {("http", "tcp"): 8080})
ALL = (0, 2**32 - 1)


def reach(*rules: dict[str, Any]) -> set[str]:
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": list(rules)}
    return {str(one) for one in PolicySet([Policy("shop", spec)], {}).reach(POD)}


def block(cidr: str, *excepts: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, "except": list(excepts)}}


def test_without_an_egress_policy_nothing_lies_open() -> None:
    only_inward = Policy("shop", {"podSelector": {}, "ingress": [{}]})

    assert PolicySet([only_inward], {}).reach(POD) == frozenset()
    assert not PolicySet([only_inward], {}).may_ask_outside(POD)


def test_a_rule_opens_its_blocks_without_their_exceptions_on_its_ports() -> None:
    rule = {
        "to": [block("10.0.0.0/8", "10.1.0.0/16")],
        "ports": [{"port": 443}, {"protocol": "UDP", "port": 1000, "endPort": 1003}],
    }

    assert reach(rule) == {
        "10.0.0.0-10.0.255.255 . tcp . 443", "10.2.0.0-10.255.255.255 . tcp . 443",
        "10.0.0.0-10.0.255.255 . udp . 1000-1003", "10.2.0.0-10.255.255.255 . udp . 1000-1003",
    }  # fmt: skip


def test_peers_in_the_stack_named_ports_and_the_other_family_open_nothing_outside() -> None:
    assert reach({"to": [{"podSelector": {}}, {"namespaceSelector": {}}]}) == set()
    assert reach({"to": [block("1.2.3.4/32")], "ports": [{"port": "http"}]}) == set()
    assert reach({"to": [block("::/0")]}) == set()


def test_dns_for_everybody_opens_the_stacks_name_server_and_no_server_outside() -> None:
    rule = {"ports": [{"protocol": "UDP", "port": 53}]}
    policies = PolicySet([Policy("shop", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]})], {})

    assert policies.reach(POD) == frozenset()
    assert (policies.may_resolve(POD, "udp"), policies.may_resolve(POD, "tcp")) == (True, False)
    assert policies.may_ask_outside(POD)
    assert reach({"to": [block("8.8.8.8/32")], **rule}) == {"8.8.8.8 . udp . 53"}


def test_an_empty_rule_opens_everything() -> None:
    assert reach({}) == {f"0.0.0.0-255.255.255.255 . {protocol} . 0-65535" for protocol in ("tcp", "udp", "sctp")}


def test_rules_that_overlap_become_disjoint() -> None:
    web = {"to": [block("10.0.0.0/24")], "ports": [{"port": 80}]}
    more = {"to": [block("10.0.0.128/25")], "ports": [{"port": 80, "endPort": 90}]}

    assert reach(web, more) == {"10.0.0.0-10.0.0.127 . tcp . 80", "10.0.0.128-10.0.0.255 . tcp . 80-90"}


@pytest.mark.parametrize("cidr", ["1.2.3.4/33", "somewhere", ""])
def test_what_is_no_block_is_refused(cidr: str) -> None:
    with pytest.raises(ValueError, match="does not appear"):
        addresses_of(cidr)


_SMALL = st.integers(0, 30)


@st.composite
def reaches(draw: st.DrawFn) -> Reach:
    first, last = sorted((draw(_SMALL), draw(_SMALL)))
    low, high = sorted((draw(_SMALL), draw(_SMALL)))
    return Reach(draw(st.sampled_from(("tcp", "udp"))), first, last, low, high)


def _points(rules: Any) -> list[tuple[str, int, int]]:
    return [
        (rule.protocol, address, port)
        for rule in rules
        for address in range(rule.first_address, rule.last_address + 1)
        for port in range(rule.first_port, rule.last_port + 1)
    ]


@given(st.lists(reaches(), max_size=6))
def test_disjoint_ranges_hold_the_same_connections_each_once(rules: list[Reach]) -> None:
    points = _points(disjoint_reach(rules))

    assert sorted(points) == sorted(set(_points(rules)))


@given(
    st.integers(24, 32), st.integers(0, 255), st.lists(st.tuples(st.integers(25, 32), st.integers(0, 255)), max_size=4)
)
def test_a_block_without_exceptions_holds_exactly_the_rest(
    prefix: int, offset: int, holes: list[tuple[int, int]]
) -> None:
    whole = ipaddress.ip_network(f"192.0.2.{offset}/{prefix}", strict=False)
    excepts = [ipaddress.ip_network(f"192.0.2.{place}/{length}", strict=False) for length, place in holes]
    left = {int(address) for address in whole if not any(address in hole for hole in excepts)}

    spans = addresses_of(str(whole), map(str, excepts))

    assert [number for first, last in sorted(spans) for number in range(first, last + 1)] == sorted(left)


def test_rules_change_by_difference_and_pods_that_may_the_same_share_a_profile() -> None:
    web = frozenset({Reach("tcp", *ALL, 443, 443)})
    one = Rules(leaving={"10.88.0.2": web})
    two = Rules(leaving={"10.88.0.2": web, "10.88.0.3": web})

    first, second, third = changes(Rules(), one), changes(one, two), changes(two, Rules(leaving={"10.88.0.3": web}))

    assert first.count("add chain") == 1
    assert "add chain" not in second
    assert second.startswith("add element inet pods leaving { 10.88.0.3 : jump out_")
    assert third == "delete element inet pods leaving { 10.88.0.2 }\n"
    assert "delete chain" in changes(one, Rules())
    assert changes(two, two) == ""
