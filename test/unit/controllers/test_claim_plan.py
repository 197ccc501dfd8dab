"""Edge cases 102 to 160: how a claim gets its Sandbox."""

from dataclasses import replace
from typing import Any

import pytest

from agent_sandbox_controllers.actions import Create
from agent_sandbox_controllers.sandboxclaim.metadata import metadata_trouble
from agent_sandbox_controllers.sandboxclaim.observed import Candidate
from agent_sandbox_controllers.sandboxclaim.plan import (
    Adopt,
    Keep,
    Refuse,
    StartCold,
    Vanished,
    Wait,
    adoption,
    decide,
)
from agent_sandbox_controllers.sandboxclaim.ranking import best_first

DOMAINS = ("sandbox.users.io",)
PREFIX = "agents.x-k8s.io/"


def decided(observed: Any) -> Any:
    return decide(observed, DOMAINS)


def cold(observed: Any) -> dict[str, Any]:
    decision = decided(observed)
    assert isinstance(decision, StartCold), decision
    assert isinstance(decision.create, Create)
    return dict(decision.create.body)


def refused(observed: Any) -> Any:
    decision = decided(observed)
    assert isinstance(decision, Refuse), decision
    return decision.trouble


def container(body: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["podTemplate"]["spec"]["containers"][index]
    return found


def test_edge_102_without_members_a_sandbox_of_the_claims_name_is_made(make: Any) -> None:
    body = cold(make.claim())

    assert body["metadata"]["name"] == "mine"
    assert body["metadata"]["ownerReferences"][0]["uid"] == "mine-uid"
    assert body["metadata"]["labels"][f"{PREFIX}launch-type"] == "cold"
    assert body["spec"]["podTemplate"]["spec"]["automountServiceAccountToken"] is False


def test_edge_103_automount_that_the_template_wants_is_kept(make: Any) -> None:
    spec = {**make.spec, "automountServiceAccountToken": True}
    body = cold(make.claim(template=make.template(podTemplate={"spec": spec})))

    assert body["spec"]["podTemplate"]["spec"]["automountServiceAccountToken"] is True


def test_edge_104_a_missing_template_is_named(make: Any) -> None:
    trouble = refused(make.claim(template=None))

    assert trouble.reason == "TemplateNotFound"
    assert trouble.message.startswith('SandboxTemplate "python" not found')
    assert trouble.retry_after is None


def test_edge_105_a_missing_pool_that_the_claim_insists_on_is_named(make: Any) -> None:
    trouble = refused(make.claim(claim={"warmpool": "fast"}))

    assert (trouble.reason, trouble.retry_after) == ("WarmPoolNotFound", None)
    assert trouble.message.startswith('SandboxWarmPool "fast" not found')


def test_edge_106_a_namesake_of_somebody_else_is_refused_without_backoff(make: Any) -> None:
    trouble = refused(make.claim(namesake=make.sandbox("mine")))

    assert trouble.reason == "SandboxNameConflict"
    assert "Please use a different claim name or delete the sandbox manually" in trouble.message


def test_edge_107_and_108_a_bound_claim_keeps_its_sandbox_whatever_becomes_of_the_template(make: Any) -> None:
    own = make.sandbox("mine")

    assert decided(make.claim(bound=own, template=None)) == Keep(own)


def test_edge_112_the_trace_context_goes_along(make: Any) -> None:
    body = cold(make.claim(metadata={"annotations": {"opentelemetry.io/trace-context": "{}"}}))

    assert body["metadata"]["annotations"]["opentelemetry.io/trace-context"] == "{}"


def test_edge_114_volumes_of_the_template_go_along(make: Any) -> None:
    volumes = [{"metadata": {"name": "data"}, "spec": {}}]

    assert (
        cold(make.claim(template=make.template(volumeClaimTemplates=volumes)))["spec"]["volumeClaimTemplates"]
        == volumes
    )


# Metadata


def test_edge_118_allowed_metadata_reaches_the_pod_template(make: Any) -> None:
    extra = {"labels": {"sandbox.users.io/team": "x"}, "annotations": {"note": "y"}}

    body = cold(make.claim(claim={"additionalPodMetadata": extra}))

    assert body["spec"]["podTemplate"]["metadata"] == extra


@pytest.mark.parametrize(
    "labels",
    [
        {"team": "x"},
        {"sandbox.users.io/team": "x" * 64},
        {"sandbox.users.io/team": "-x"},
        {"sandbox.users.io/-team": "x"},
        {"kubernetes.io/team": "x"},
        {"App": "Sandbox-Router"},
        {"evil-sandbox.users.io/team": "x"},
    ],
)
def test_edge_119_labels_that_are_not_allowed_are_refused(make: Any, labels: dict[str, str]) -> None:
    trouble = refused(make.claim(claim={"additionalPodMetadata": {"labels": labels}}))

    assert trouble.reason == "InvalidMetadata"
    assert trouble.message.startswith("invalid additionalPodMetadata: failed to validate label")


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", True),
        ("note", True),
        ("example.com/note", True),
        ("kubernetes.io/note", False),
        ("sub.k8s.io/note", False),
        ("agents.x-k8s.io/pod-name", False),
    ],
)
def test_edge_120_annotations_of_system_domains_are_refused_but_for_safe_to_evict(
    make: Any, key: str, allowed: bool
) -> None:
    observed = make.claim(claim={"additionalPodMetadata": {"annotations": {key: "x"}}})

    assert (metadata_trouble(observed.claim, DOMAINS) is None) is allowed


def test_edge_121_domains_are_an_option_and_include_subdomains(make: Any) -> None:
    observed = make.claim(claim={"additionalPodMetadata": {"labels": {"a.corp.example/team": "x"}}})

    assert metadata_trouble(observed.claim, ("corp.example",)) is None


def test_defect_32_and_33_a_contradiction_to_the_template_is_told_before_anything_is_written(make: Any) -> None:
    template = make.template(podTemplate={"metadata": {"annotations": {"note": "a"}}, "spec": make.spec})
    extra = {"additionalPodMetadata": {"annotations": {"note": "b"}}}

    trouble = refused(make.claim(template=template, claim=extra, ready=(Candidate(make.member()),)))

    assert (trouble.reason, trouble.retry_after) == ("MetadataConflict", None)
    assert trouble.message.startswith("metadata override conflict")


# Environment


def env(make: Any, policy: str | None, variables: list[dict[str, str]], **rest: Any) -> Any:
    spec = {
        "containers": [
            {"name": "main", "image": "x", "env": [{"name": "OLD", "valueFrom": {"x": {}}}], **rest.get("main", {})},
            {"name": "side", "image": "x", **rest.get("side", {})},
        ],
        "initContainers": [{"name": "first", "image": "x", **rest.get("first", {})}],
    }
    chosen = {} if policy is None else {"envVarsInjectionPolicy": policy}
    template = make.template(podTemplate={"spec": spec}, **chosen)
    return make.claim(template=template, claim={"env": variables}, **rest.get("observed", {}))


@pytest.mark.parametrize(("number", "policy"), [(122, "Overrides"), (123, "Allowed")])
def test_edge_122_and_123_a_new_variable_is_appended(make: Any, number: int, policy: str) -> None:
    body = cold(env(make, policy, [{"name": "NEW", "value": "1"}]))

    assert [each["name"] for each in container(body)["env"]] == ["OLD", "NEW"]


def test_edge_124_variables_make_the_start_cold(make: Any) -> None:
    observed = env(
        make,
        "Allowed",
        [{"name": "NEW", "value": "1"}],
        observed={"ready": (Candidate(make.member()),), "patience": 2.0},
    )

    assert isinstance(decided(observed), StartCold)


@pytest.mark.parametrize(
    ("number", "policy", "variable", "parts"),
    [
        (125, "Allowed", {"name": "OLD", "value": "1"}, {}),
        (126, "Disallowed", {"name": "NEW", "value": "1"}, {}),
        (126, None, {"name": "NEW", "value": "1"}, {}),
        (127, "Allowed", {"name": "NEW", "value": "1"}, {"main": {"envFrom": [{}]}}),
        (127, "Allowed", {"name": "NEW", "value": "1", "containerName": "first"}, {"first": {"envFrom": [{}]}}),
        (130, "Allowed", {"name": "NEW", "value": "1", "containerName": "absent"}, {}),
    ],
)
def test_edge_125_to_130_variables_that_the_template_does_not_take_are_refused_without_backoff(
    make: Any, number: int, policy: str | None, variable: Any, parts: Any
) -> None:
    trouble = refused(env(make, policy, [variable], **parts))

    assert (trouble.reason, trouble.retry_after) == ("EnvVarsInjectionRejected", None)


def test_edge_128_env_from_of_another_container_does_not_matter(make: Any) -> None:
    assert cold(env(make, "Allowed", [{"name": "NEW", "value": "1"}], side={"envFrom": [{}]}))
    assert cold(env(make, "Allowed", [], main={"envFrom": [{}]}))


def test_edge_129_overrides_replaces_the_whole_entry(make: Any) -> None:
    body = cold(env(make, "Overrides", [{"name": "OLD", "value": "1"}]))

    assert container(body)["env"] == [{"name": "OLD", "value": "1"}]


@pytest.mark.parametrize("name", ["side", "first"])
def test_edge_130_a_named_container_alone_gets_the_variable(make: Any, name: str) -> None:
    body = cold(env(make, "Allowed", [{"name": "NEW", "value": "1", "containerName": name}]))
    spec = body["spec"]["podTemplate"]["spec"]

    got = [
        each["name"]
        for each in [*spec["initContainers"], *spec["containers"]]
        if {"name": "NEW", "value": "1"} in each.get("env", ())
    ]
    assert got == [name]


# Volumes


def volumes(make: Any, policy: str | None, own: list[str], base: list[str] | None = None) -> Any:
    def listed(names: list[str], size: str) -> list[dict[str, Any]]:
        return [{"metadata": {"name": name}, "spec": {"size": size}} for name in names]

    chosen = {} if policy is None else {"volumeClaimTemplatesPolicy": policy}
    template = make.template(volumeClaimTemplates=listed(base if base is not None else ["data"], "template"), **chosen)
    return make.claim(template=template, claim={"volumeClaimTemplates": listed(own, "claim")})


@pytest.mark.parametrize(
    ("number", "policy", "own", "result"),
    [
        (131, "Overrides", ["data"], [("data", "claim")]),
        (132, "Allowed", ["more"], [("data", "template"), ("more", "claim")]),
        (133, "Disallowed", [], [("data", "template")]),
    ],
)
def test_edge_131_to_133_volumes_are_replaced_added_or_left(
    make: Any, number: int, policy: str, own: list[str], result: Any
) -> None:
    body = cold(volumes(make, policy, own))

    assert [(each["metadata"]["name"], each["spec"]["size"]) for each in body["spec"]["volumeClaimTemplates"]] == result


@pytest.mark.parametrize(
    ("policy", "own", "base"),
    [
        ("Disallowed", ["more"], ["data"]),
        (None, ["more"], ["data"]),
        ("Allowed", ["data"], ["data"]),
        ("Allowed", ["a", "a"], ["data"]),
        ("Allowed", ["a"], ["data", "data"]),
    ],
)
def test_edge_134_volumes_that_do_not_go_together_are_refused(
    make: Any, policy: str | None, own: Any, base: Any
) -> None:
    trouble = refused(volumes(make, policy, own, base))

    assert (trouble.reason, trouble.retry_after) == ("VolumeClaimTemplatesError", None)


# Adoption


def test_edge_135_and_144_adoption_changes_owner_and_labels_and_nothing_of_the_spec(make: Any) -> None:
    observed = make.claim(metadata={"labels": {f"{PREFIX}created-by": "python-client"}})
    member = make.member()

    change = adoption(observed, member, make.template())

    metadata = change.body["metadata"]
    assert metadata["ownerReferences"][0]["kind"] == "SandboxClaim"
    assert metadata["labels"] == {
        f"{PREFIX}warm-pool-sandbox": None,
        f"{PREFIX}sandbox-template-hash": None,
        f"{PREFIX}created-by": "python-client",
        f"{PREFIX}launch-type": "warm",
        f"{PREFIX}claim-uid": "mine-uid",
    }
    assert (metadata["uid"], metadata["resourceVersion"]) == ("m1-uid", "7")
    assert "spec" not in change.body


def test_edge_144_without_a_creator_the_pools_is_removed(make: Any) -> None:
    change = adoption(make.claim(), make.member(), make.template())

    assert change.body["metadata"]["labels"][f"{PREFIX}created-by"] is None


def test_edge_143_metadata_of_the_claim_goes_into_the_pod_template_with_the_same_write(make: Any) -> None:
    extra = {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}}

    change = adoption(make.claim(claim={"additionalPodMetadata": extra}), make.member(), make.template())

    assert change.body["spec"]["podTemplate"]["metadata"] == extra


def test_edge_136_139_149_an_empty_pool_or_spent_patience_means_a_cold_start(make: Any) -> None:
    assert isinstance(decided(make.claim(pending=0, patience=2.0)), StartCold)
    assert isinstance(decided(make.claim(pending=3, patience=0.0)), StartCold)


def test_edge_148_149_and_defect_26_a_nearly_ready_member_is_waited_for(make: Any) -> None:
    assert decided(make.claim(pending=1, patience=1.5)) == Wait(1.5)
    assert isinstance(decided(make.claim(pending=1, ahead=1, patience=1.5)), StartCold)


def test_edge_138_and_159_and_defect_28_ready_members_are_tried_fullest_node_first_then_oldest(make: Any) -> None:
    def on(name: str, node: str, age: float) -> Candidate:
        return Candidate(make.member(name, age=age, status={"nodeName": node}))

    order = best_first([on("lonely", "n1", 900), on("young", "n2", 10), on("old", "n2", 500)])

    assert [each.view.metadata.name for each in order] == ["old", "young", "lonely"]


def test_edge_145_and_146_fresh_members_come_before_stale_ones(make: Any) -> None:
    stale, fresh = Candidate(make.member("a"), fresh=False), Candidate(make.member("b"))

    decision = decided(make.claim(ready=(stale, fresh)))

    assert isinstance(decision, Adopt)
    assert [each.view.metadata.name for each in decision.candidates] == ["b", "a"]


def test_warmpool_none_never_takes_a_member(make: Any) -> None:
    assert isinstance(decided(make.claim(claim={"warmpool": "none"}, ready=(Candidate(make.member()),))), StartCold)


def test_a_pool_of_another_template_is_refused(make: Any) -> None:
    pool = make.pool_model(sandboxTemplateRef={"name": "node"})

    trouble = refused(make.claim(claim={"warmpool": "pool"}, pool=pool))

    assert trouble.reason == "WarmPoolMismatch"


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [(None, "TemplateNotAllowed"), (["other"], "TemplateNotAllowed"), (["default"], ""), (["*"], "")],
)
def test_a_template_of_another_namespace_must_allow_the_claims_namespace(make: Any, allowed: Any, reason: str) -> None:
    template = make.template(**({} if allowed is None else {"allowedNamespaces": allowed}))
    template.metadata.namespace = "shared"
    observed = make.claim(template=template, claim={"sandboxTemplateRef": {"name": "python", "namespace": "shared"}})

    if reason:
        assert refused(observed).reason == reason
    else:
        body = cold(observed)
        assert body["metadata"]["namespace"] == "default"
        assert body["metadata"]["annotations"][f"{PREFIX}sandbox-template-namespace"] == "shared"


def test_defect_35_and_48_a_bound_sandbox_that_vanished_is_never_replaced_silently(make: Any) -> None:
    observed = make.claim(status={"sandboxName": "pool-1", "sandbox": {"name": "pool-1"}})

    assert decided(observed) == Vanished("pool-1")
    assert decided(replace(observed, ready=(Candidate(make.member()),))) == Vanished("pool-1")


@pytest.mark.parametrize(
    "key",
    [
        "sidecar.istio.io/inject",
        "karpenter.sh/do-not-disrupt",
        "linkerd.io/inject",
        "kueue.x-k8s.io/queue-name",
        "iam.amazonaws.com/role",
        "vault.hashicorp.com/agent-inject",
        "instrumentation.opentelemetry.io/inject-python",
        "dev.gvisor.flag.debug",
        "io.katacontainers.config.hypervisor.kernel_params",
        "io.kubernetes.cri-o.Devices",
        "org.systemd.property.DeviceAllow",
    ],
)
def test_defect_13_annotations_that_steer_other_controllers_are_refused(make: Any, key: str) -> None:
    observed = make.claim(claim={"additionalPodMetadata": {"annotations": {key: "x"}}})

    assert metadata_trouble(observed.claim, DOMAINS) is not None
