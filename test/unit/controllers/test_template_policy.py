"""Edge cases 238 to 241 and the defects of network policy."""

import ipaddress
from typing import Any

from agent_sandbox_controllers import ControllerOptions
from agent_sandbox_controllers.actions import Change, Create, Remove
from agent_sandbox_controllers.object_names import bounded_name, member_name, policy_name, template_id
from agent_sandbox_controllers.sandboxtemplate import (
    TemplateObserved,
    network_policy,
    plan_template,
    policy_spec,
    same_policy,
    template_conditions,
)
from agent_sandbox_controllers.template_record import TemplateRecord

OPTIONS = ControllerOptions()


def observed(
    make: Any, *policies: Any, ours: bool = True, namespaces: Any = ("default",), **spec: Any
) -> TemplateObserved:
    view = make.template_view(**spec)
    return TemplateObserved(
        view=view,
        template=view.model(),
        wanted_namespaces=namespaces,
        named={policy.metadata.namespace: policy for policy in policies},
        ours=tuple(policies) if ours else (),
        now=make.now,
    )


def standing(make: Any, **spec: Any) -> Any:
    """The policy as the controller makes it for this template."""
    body = network_policy(make.template(**spec), "default", OPTIONS)
    return make.policy(body["metadata"]["name"], metadata=body["metadata"], spec=body["spec"])


def test_edge_238_the_secure_default_is_made_and_then_left_alone(make: Any) -> None:
    (create,) = plan_template(observed(make), OPTIONS).actions

    assert isinstance(create, Create)
    assert create.name == "python-network-policy"
    ingress = create.body["spec"]["ingress"]
    assert ingress[0]["from"][0]["podSelector"]["matchLabels"] == {"app": "sandbox-router"}
    assert plan_template(observed(make, standing(make)), OPTIONS).actions == ()


def test_edge_239_custom_rules_unmanaged_and_drift(make: Any) -> None:
    custom = policy_spec(make.template(networkPolicy={"egress": [{"ports": [{"port": 53}]}]}), OPTIONS)
    assert "ingress" not in custom
    assert custom["egress"] == [{"ports": [{"port": 53}]}]

    gone = plan_template(observed(make, standing(make), networkPolicyManagement="Unmanaged"), OPTIONS).actions
    assert isinstance(gone[0], Remove)
    assert plan_template(observed(make, networkPolicyManagement="Unmanaged"), OPTIONS).actions == ()

    (update,) = plan_template(observed(make, standing(make), networkPolicy={}), OPTIONS).actions
    assert isinstance(update, Change)
    assert update.body["spec"]["ingress"] is None


def test_edge_240_and_defect_02_a_policy_of_that_name_that_is_not_ours_is_a_condition(make: Any) -> None:
    foreign = make.policy(spec={"podSelector": {}})
    seen = observed(make, foreign, ours=False)

    plan = plan_template(seen, OPTIONS)

    assert plan.actions == ()
    assert plan.trouble is not None
    assert plan.trouble.message.startswith('refusing to update NetworkPolicy "python-network-policy"')
    (condition,) = template_conditions(seen, plan.trouble)
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "NetworkPolicyReady",
        "False",
        "NetworkPolicyConflict",
    )


def test_defect_01_the_policy_is_not_collected_with_its_template(make: Any) -> None:
    body = network_policy(make.template(), "default", OPTIONS)

    assert "ownerReferences" not in body["metadata"]


def test_defect_04_no_reserved_range_can_be_reached_by_default(make: Any) -> None:
    internet = policy_spec(make.template(), OPTIONS)["egress"][0]["to"]
    except_v4 = [ipaddress.ip_network(cidr) for cidr in internet[0]["ipBlock"]["except"]]
    except_v6 = [ipaddress.ip_network(cidr) for cidr in internet[1]["ipBlock"]["except"]]

    for address in (
        "10.1.2.3",
        "100.100.100.200",
        "127.0.0.1",
        "169.254.169.254",
        "172.20.0.1",
        "192.168.1.1",
        "240.0.0.1",
    ):
        assert any(ipaddress.ip_address(address) in network for network in except_v4), address
        nat64 = ipaddress.ip_address(int(ipaddress.ip_address("64:ff9b::")) + int(ipaddress.ip_address(address)))
        assert any(nat64 in network for network in except_v6), address
    for address in ("fd00::1", "fe80::1", "::1", "ff02::1"):
        assert any(ipaddress.ip_address(address) in network for network in except_v6), address
    for public in ("1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"):
        assert not any(ipaddress.ip_address(public) in network for network in (*except_v4, *except_v6)), public


def test_defect_04_further_ranges_are_an_option(make: Any) -> None:
    spec = policy_spec(make.template(), ControllerOptions(extra_egress_excepts=("34.118.224.0/20", "2600:1900::/28")))
    v4, v6 = spec["egress"][0]["to"]

    assert "34.118.224.0/20" in v4["ipBlock"]["except"]
    assert "2600:1900::/28" in v6["ipBlock"]["except"]


def test_defect_05_the_routers_namespace_is_an_option(make: Any) -> None:
    spec = policy_spec(make.template(), ControllerOptions(router_namespace="edge"))

    peer = spec["ingress"][0]["from"][0]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "edge"}


def test_defect_06_the_clusters_dns_can_be_reached_whatever_dns_policy_says(make: Any) -> None:
    dns = policy_spec(make.template(), OPTIONS)["egress"][1]

    assert [port["port"] for port in dns["ports"]] == [53, 53]
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


def test_edge_241_and_defect_08_templates_whose_name_hashes_collide_do_not_share_a_policy(make: Any) -> None:
    labels = TemplateRecord("default", "python").labels()

    assert labels["agents.x-k8s.io/sandbox-template-id"] == template_id("default", "python")
    assert len(template_id("default", "python")) == 40
    assert template_id("a", "b/c") != template_id("a", "c")
    assert template_id("default", "python") != template_id("other", "python")


def test_defect_51_defaults_of_the_server_are_no_drift() -> None:
    mine = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"port": 53}]}]}
    stored = {
        "podSelector": {},
        "policyTypes": ["Egress", "Ingress"],
        "egress": [{"ports": [{"port": 53, "protocol": "TCP"}], "to": []}],
    }

    assert same_policy(stored, mine)
    assert not same_policy(stored, {**mine, "egress": []})


def test_a_policy_of_a_namespace_that_nobody_uses_any_more_is_surplus(make: Any) -> None:
    abroad = make.policy(
        metadata={"namespace": "team", "labels": TemplateRecord("default", "python").labels()}, spec={"podSelector": {}}
    )

    plan = plan_template(observed(make, standing(make), abroad), OPTIONS)

    assert plan.surplus == (abroad,)


def test_defect_45_long_names_stay_names_and_stay_apart() -> None:
    first, second = bounded_name("a" * 300 + "x", 253), bounded_name("a" * 300 + "y", 253)

    assert len(first) == len(second) == 253
    assert first != second
    assert len(member_name("p" * 200, "abcde")) == 63
    assert policy_name("default", "python", "team") != policy_name("team", "python", "team")
