"""NetworkPolicies: what a server refuses, so that nobody believes in a wall that does not stand."""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import Api


def block(cidr: str, *excepts: str) -> dict[str, Any]:
    """An egress rule to addresses."""
    return {"egress": [{"to": [{"ipBlock": {"cidr": cidr, **({"except": list(excepts)} if excepts else {})}}]}]}


def ports(**port: Any) -> dict[str, Any]:
    """An ingress rule for a port."""
    return {"ingress": [{"ports": [port]}]}


def policy(name: str, **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy for all Pods."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {}, **spec},
    }


def path(api: Api) -> str:
    """Where they are."""
    return api.pods.replace("/api/v1/", "/apis/networking.k8s.io/v1/").replace("/pods", "/networkpolicies")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (block("anywhere"), "spec.egress[0].to[0].ipBlock.cidr"),
        (block("10.0.0.0"), "spec.egress[0].to[0].ipBlock.cidr"),
        (block("10.0.0.0/33"), "spec.egress[0].to[0].ipBlock.cidr"),
        (block("10.0.0.1/8"), "spec.egress[0].to[0].ipBlock.cidr"),
        (block("010.0.0.0/8"), "spec.egress[0].to[0].ipBlock.cidr"),
        (block("2001:db8::1/64"), "spec.egress[0].to[0].ipBlock.cidr"),
        (block(""), "spec.egress[0].to[0].ipBlock.cidr"),
        (block("0.0.0.0/0", "169.254.169.254"), "spec.egress[0].to[0].ipBlock.except[0]"),
        (block("10.0.0.0/8", "192.168.0.0/16"), "spec.egress[0].to[0].ipBlock.except[0]"),
        (block("10.0.0.0/8", "10.0.0.0/8"), "spec.egress[0].to[0].ipBlock.except[0]"),
        (ports(port=0), "spec.ingress[0].ports[0].port"),
        (ports(port=70000), "spec.ingress[0].ports[0].port"),
        (ports(port="Not_A_Name"), "spec.ingress[0].ports[0].port"),
        (ports(port=80, endPort=70), "spec.ingress[0].ports[0].endPort"),
        (ports(port="http", endPort=80), "spec.ingress[0].ports[0].endPort"),
        (ports(endPort=80), "spec.ingress[0].ports[0].endPort"),
        (ports(protocol="tcp", port=80), "spec.ingress[0].ports[0].protocol"),
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]"),
        (
            {"egress": [{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            "spec.egress[0].to[0]",
        ),
        ({"policyTypes": ["Both"]}, "spec.policyTypes[0]"),
    ],
)
async def test_a_policy_that_means_nothing_is_refused(api: Api, spec: dict[str, Any], field: str) -> None:
    """422 names the field."""
    answer = await api.request("POST", path(api), policy("a", **spec))

    assert answer.status == 422
    assert {cause["field"] for cause in answer.json["details"]["causes"]} == {field}


@pytest.mark.parametrize(
    "spec",
    [
        block("0.0.0.0/0", "169.254.169.254/32", "10.0.0.0/8"),
        block("::/0", "fd00::/8"),
        ports(port=80, endPort=80),
        ports(port="http"),
        ports(protocol="SCTP"),
        {"ingress": [{}], "egress": []},
    ],
)
async def test_a_policy_that_means_something_is_taken(api: Api, spec: dict[str, Any]) -> None:
    """And keeps what it was given."""
    made = await api.create(path(api), policy("a", **spec))

    for direction, rules in spec.items():
        assert len(made["spec"].get(direction, [])) == len(rules)
