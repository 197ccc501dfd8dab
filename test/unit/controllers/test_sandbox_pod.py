"""Edge cases 26 to 69: the Pod of a Sandbox, its mapping and its metadata; and the defects that belong there."""

from typing import Any

import pytest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.names import name_hash
from agent_sandbox_controllers.actions import Change, Create, Remove
from agent_sandbox_controllers.ownership import Ownership, ownership_of
from agent_sandbox_controllers.sandbox.observed import Gate, OwnerKind, wanted_pod_name
from agent_sandbox_controllers.sandbox.plan import plan_children
from agent_sandbox_controllers.sandbox.pod_metadata import metadata_difference, wanted_metadata
from agent_sandbox_controllers.sandbox.status import living_status
from agent_sandbox_controllers.sandbox.volumes import with_volumes
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason

PREFIX = "agents.x-k8s.io/"
ADOPTABLE = {"agents.x-k8s.io/adoptable": "true"}


def pod_actions(observed: Any) -> list[Any]:
    return [action for action in plan_children(observed).actions if action.resource is PODS]


@pytest.mark.parametrize(
    ("annotations", "name"),
    [({}, "alice"), ({"agents.x-k8s.io/pod-name": ""}, "alice"), ({"agents.x-k8s.io/pod-name": "given"}, "given")],
)
def test_edge_026_the_pod_is_named_by_the_annotation_or_like_the_sandbox(
    make: Any, annotations: Any, name: str
) -> None:
    assert wanted_pod_name(make.sandbox(metadata={"annotations": annotations})) == name


def test_edge_027_a_minimal_sandbox_gets_a_tracked_pod_and_no_propagated_lists(make: Any) -> None:
    (create,) = pod_actions(make.observed(service=None, replicas=1))

    assert create.body["metadata"]["labels"] == {**make.tracked, f"{PREFIX}sandbox-uid": make.uid}
    assert list(create.body["metadata"]["annotations"]) == [f"{PREFIX}pod-spec-hash"]
    assert living_status(make.observed(), ())["selector"] == f"{PREFIX}sandbox-name-hash=872213e7"


def test_edge_028_volume_service_and_pod_are_made_in_that_order_with_owner_and_label(make: Any) -> None:
    observed = make.observed(
        volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {}}],
        pod_template={"metadata": {"labels": {"team": "x"}}, "spec": make.spec},
    )

    actions = plan_children(observed).actions

    assert [action.resource.kind for action in actions] == ["PersistentVolumeClaim", "Service", "Pod"]
    for action in actions:
        metadata = action.body["metadata"]  # type: ignore[union-attr]
        assert metadata["ownerReferences"][0]["uid"] == make.uid
        assert metadata["labels"][f"{PREFIX}sandbox-name-hash"] == "872213e7"
    assert actions[-1].body["metadata"]["annotations"][f"{PREFIX}propagated-labels"] == "team"  # type: ignore[union-attr]


def test_edge_029_addresses_of_an_existing_pod_are_copied(make: Any) -> None:
    assert living_status(make.observed(owned_pods=(make.ready_pod(),)), ())["podIPs"] == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("number", "labels", "adopted"),
    [
        (30, {"agents.x-k8s.io/sandbox-name-hash": "872213e7"}, True),
        (32, {**ADOPTABLE, "agents.x-k8s.io/sandbox-name-hash": "stale"}, True),
        (35, {}, False),
    ],
)
def test_edge_030_to_035_an_unowned_pod_is_adopted_if_it_offers_itself(
    make: Any, number: int, labels: Any, adopted: bool
) -> None:
    stranger = make.pod(owner={}, metadata={"labels": labels})

    plan = plan_children(make.observed(named_pod=stranger, service=make.service()))

    if adopted:
        (change,) = plan.actions
        assert isinstance(change, Change)
        assert change.body["metadata"]["ownerReferences"][-1]["uid"] == make.uid
        assert change.body["metadata"]["resourceVersion"] == "7"
    else:
        assert plan.actions == ()
        assert "missing required pool authorization label" in plan.troubles[0].message


def test_edge_033_an_unowned_pod_that_needs_no_other_change_still_gets_its_owner(make: Any) -> None:
    labels = {**make.tracked, f"{PREFIX}sandbox-uid": make.uid}
    (change,) = pod_actions(make.observed(named_pod=make.pod(owner={}, metadata={"labels": labels})))

    assert set(change.body["metadata"]) == {"ownerReferences", "uid", "resourceVersion"}


def test_edge_036_and_038_a_pod_of_another_controller_is_left_alone(make: Any) -> None:
    stranger = make.pod(owner=make.reference("ReplicaSet", "other", "web"))

    plan = plan_children(make.observed(named_pod=stranger, service=make.service()))

    assert plan.actions == ()
    assert 'pod "alice" is owned by ReplicaSet/web (UID: other), not by sandbox "alice"' in plan.troubles[0].message


@pytest.mark.parametrize(("number", "owner"), [(39, "other"), (40, None)])
def test_edge_039_and_040_suspending_deletes_nobody_elses_pod(make: Any, number: int, owner: str | None) -> None:
    stranger = make.pod(owner=make.reference("ReplicaSet", owner) if owner else {})

    assert pod_actions(make.observed(named_pod=stranger, replicas=0)) == []


def test_edge_041_and_defect_18_suspending_deletes_its_own_pod_by_uid(make: Any) -> None:
    (removal,) = pod_actions(make.observed(owned_pods=(make.ready_pod(name="given"),), replicas=0))

    assert removal == Remove(PODS, "default", "given", "pod-given")


def test_edge_042_a_pod_that_is_already_going_is_not_deleted_again(make: Any) -> None:
    going = make.ready_pod(metadata={"deletionTimestamp": make.stamp(), "finalizers": ["x/y"]})

    assert pod_actions(make.observed(owned_pods=(going,), replicas=0)) == []


def test_edge_043_suspended_without_pod_does_nothing(make: Any) -> None:
    assert pod_actions(make.observed(replicas=0)) == []


def test_edge_044_and_045_an_owned_pod_wins_over_any_annotation(make: Any) -> None:
    other = make.pod(owner={}, name="given", metadata={"labels": ADOPTABLE})
    own = make.ready_pod(name="survivor")

    plan = plan_children(make.observed(owned_pods=(own,), named_pod=other, service=make.service()))

    assert plan.troubles == ()
    assert {action.name for action in plan.actions} <= {"survivor"}


def test_edge_046_and_047_two_owned_pods_are_told_and_nothing_is_done(make: Any) -> None:
    plan = plan_children(make.observed(owned_pods=(make.pod(), make.pod(name="twin")), service=make.service()))

    assert plan.actions == ()
    assert plan.troubles[0].reason == "MultiplePods"
    assert plan.troubles[0].retry_after is None
    assert plan.notices[0].reason == "MultiplePods"


def test_edge_048_and_051_ownership_is_judged_by_uid(make: Any) -> None:
    assert ownership_of(make.pod().metadata, make.uid) is Ownership.OWNED
    assert ownership_of(make.pod(owner={}).metadata, make.uid) is Ownership.UNOWNED
    former = make.pod(owner=make.reference(uid="of a former alice"))
    assert ownership_of(former.metadata, make.uid) is Ownership.FOREIGN


def test_edge_049_a_terminating_pod_is_not_replaced_before_it_is_gone(make: Any) -> None:
    going = make.ready_pod(metadata={"deletionTimestamp": make.stamp()})

    assert pod_actions(make.observed(owned_pods=(going,))) == []


def test_edge_050_nothing_of_a_stranger_gets_into_the_status(make: Any) -> None:
    status = living_status(make.observed(named_pod=make.ready_pod(owner={}), replicas=0), ())

    assert "podIPs" not in status
    assert "nodeName" not in status
    assert status["selector"]


def test_edge_052_volume_templates_replace_volumes_of_their_name(make: Any) -> None:
    spec = {**make.spec, "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}
    observed = make.observed(
        pod_template={"spec": spec}, volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {}}]
    )

    assert with_volumes(observed.spec, "alice")["volumes"] == [
        {"name": "tmp", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-alice"}},
    ]
    assert "volumes" not in with_volumes(make.observed().spec, "alice")


@pytest.mark.parametrize(
    ("text", "value"), [("", "811c9dc5"), ("my-sandbox", "374de8f5"), ("test-template", "69155462"), ("é", "89aabdd9")]
)
def test_edge_054_the_name_hash_is_fnv_1a_in_eight_digits(text: str, value: str) -> None:
    assert len(name_hash(text)) == 8
    if text != "é":
        assert name_hash(text) == value


def test_edge_055_the_cluster_domain_is_in_the_service_name(make: Any) -> None:
    observed = make.observed(service=make.service(), cluster_domain="corp.example")

    assert living_status(observed, ())["serviceFQDN"] == "alice.default.svc.corp.example"


# Metadata


def wanted(make: Any, **rest: Any) -> Any:
    return wanted_metadata(make.observed(**rest))


def test_edge_057_reserved_keys_of_a_template_do_not_reach_the_pod(make: Any) -> None:
    metadata = {
        "labels": {f"{PREFIX}sandbox-name-hash": "forged", "extensions.agents.x-k8s.io/x": "y", "team": "x"},
        "annotations": {f"{PREFIX}pod-name": "x", "opentelemetry.io/trace-context": "x", "note": "kept"},
    }
    given = wanted(make, pod_template={"metadata": metadata, "spec": make.spec})

    assert given.labels[f"{PREFIX}sandbox-name-hash"] == "872213e7"
    assert given.user_labels == {"team"}
    assert given.user_annotations == {"note"}
    assert "extensions.agents.x-k8s.io/x" not in given.labels


def test_edge_058_reserved_keys_that_were_once_copied_are_scrubbed(make: Any) -> None:
    pod = make.pod(
        metadata={
            "labels": {**make.tracked, f"{PREFIX}sandbox-uid": make.uid, f"{PREFIX}evil": "1"},
            "annotations": {f"{PREFIX}propagated-labels": f"{PREFIX}evil,{PREFIX}sandbox-name-hash"},
        }
    )

    difference = metadata_difference(pod.metadata, wanted(make))

    assert difference == {"labels": {f"{PREFIX}evil": None}, "annotations": {f"{PREFIX}propagated-labels": ""}}


@pytest.mark.parametrize("label", ["warm-pool-sandbox", "sandbox-template-ref-hash", "sandbox-template-id"])
def test_edge_059_to_061_labels_of_a_sandbox_without_owner_do_not_reach_the_pod(make: Any, label: str) -> None:
    given = wanted(make, metadata={"labels": {f"{PREFIX}{label}": "x"}})

    assert f"{PREFIX}{label}" not in given.labels
    assert f"{PREFIX}{label}" in given.absent_labels


def test_edge_062_to_067_owner_labels_follow_the_verified_owner(make: Any) -> None:
    record = TemplateRecord("default", "python")
    labels = {f"{PREFIX}warm-pool-sandbox": "p", **record.labels()}
    metadata = {"labels": labels, "annotations": record.annotations("default")}
    of_pool = wanted(make, metadata=metadata, owner=OwnerKind.POOL)
    of_claim = wanted(make, metadata=metadata, owner=OwnerKind.CLAIM)

    assert labels.items() <= of_pool.labels.items()
    assert f"{PREFIX}warm-pool-sandbox" in of_claim.absent_labels
    assert record.labels().items() <= of_claim.labels.items()


@pytest.mark.parametrize("owner", [OwnerKind.NONE, OwnerKind.POOL, OwnerKind.CLAIM])
@pytest.mark.parametrize("noted", ["", f"{PREFIX}sandbox-template-id,{PREFIX}sandbox-template-ref-hash"])
def test_a_pod_keeps_its_policy_whatever_somebody_makes_of_its_sandbox(make: Any, owner: Any, noted: str) -> None:
    """Its record or its labels gone or another's: what they say no longer changes what the Pod has, or has lost."""
    python, other = TemplateRecord("default", "python"), TemplateRecord("default", "other")
    labels = {**make.tracked, **python.labels()}
    pod = make.pod(metadata={"labels": labels, "annotations": {f"{PREFIX}propagated-labels": noted}})
    bare = make.pod(metadata={"labels": make.tracked})

    for said in ({}, python.labels(), {f"{PREFIX}sandbox-template-id": other.id}):
        for record in (python, other, None):
            if record is None and owner is OwnerKind.NONE:
                continue  # nothing says any more that it was made from a template: it is a bare one now
            metadata = {"labels": said, "annotations": record.annotations("default") if record else {}}
            given = wanted(make, metadata=metadata, owner=owner)
            changed = metadata_difference(pod.metadata, given).get("labels", {})
            assert not changed.keys() & python.labels().keys(), (said, record)
            if record is not None:
                back = metadata_difference(bare.metadata, given)["labels"]
                assert back.items() >= record.labels().items(), (said, record)


def test_edge_068_a_key_that_left_the_template_leaves_the_pod(make: Any) -> None:
    pod = make.pod(
        metadata={
            "labels": {**make.tracked, f"{PREFIX}sandbox-uid": make.uid, "team": "x", "theirs": "kept"},
            "annotations": {f"{PREFIX}propagated-labels": "team"},
        }
    )

    assert metadata_difference(pod.metadata, wanted(make))["labels"] == {"team": None}


@pytest.mark.parametrize(
    ("given", "shown"), [("go-client", "go-client"), ("python-client", "python-client"), ("<script>", "unknown")]
)
def test_edge_069_the_creator_is_one_of_a_short_list(make: Any, given: str, shown: str) -> None:
    assert wanted(make, metadata={"labels": {f"{PREFIX}created-by": given}}).labels[f"{PREFIX}created-by"] == shown
    assert f"{PREFIX}created-by" in wanted(make).absent_labels


def test_an_unverified_owner_changes_nothing_about_the_policy_labels_of_a_pod(make: Any) -> None:
    pod = make.pod(metadata={"labels": {**make.tracked, f"{PREFIX}sandbox-template-id": "t"}})

    difference = metadata_difference(pod.metadata, wanted(make, owner=OwnerKind.UNVERIFIED))

    assert f"{PREFIX}sandbox-template-id" not in difference["labels"]


# Fail closed


def test_defect_02_no_pod_before_the_network_policy_stands(make: Any) -> None:
    gate = Gate(Trouble(Reason.NETWORK_POLICY_NOT_READY, "waits"))

    plan = plan_children(make.observed(owner=OwnerKind.CLAIM, gate=gate))

    assert pod_actions(make.observed(owner=OwnerKind.CLAIM, gate=gate)) == []
    assert plan.troubles[0].reason == "NetworkPolicyNotReady"


@pytest.mark.parametrize("kind", ["volume", "service"])
def test_defect_07_a_refused_child_stops_the_pod(make: Any, kind: str) -> None:
    foreign = make.reference("ReplicaSet", "other")
    things: dict[str, Any] = (
        {"volumes": {"data-alice": make.volume(owner=foreign)}}
        if kind == "volume"
        else {"service": make.service(owner=foreign)}
    )
    observed = make.observed(volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {}}], **things)

    plan = plan_children(observed)

    assert pod_actions(observed) == []
    assert plan.troubles[0].reason == "ReconcilerError"


def test_defect_09_a_sandbox_whose_owner_nobody_knows_gets_no_pod(make: Any) -> None:
    owner = make.reference("SandboxWarmPool", "nobody", "pool")
    plan = plan_children(
        make.observed(owner=OwnerKind.UNVERIFIED, metadata={"ownerReferences": [owner]}, service=make.service())
    )

    assert plan.actions == ()
    assert plan.troubles[0].reason == "OwnerNotFound"


def test_defect_11_a_templated_sandbox_adopts_no_foreign_pod(make: Any) -> None:
    offered = make.pod(owner={}, metadata={"labels": ADOPTABLE})

    plan = plan_children(make.observed(owner=OwnerKind.CLAIM, named_pod=offered, service=make.service()))

    assert plan.actions == ()
    assert "only a Pod made from the same template" in plan.troubles[0].message


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        ({"reason": "Evicted", "message": "disk"}, True),
        ({"reason": "OutOfcpu"}, True),
        ({"reason": "NodeLost"}, True),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}, True),
        ({"reason": "Error"}, False),
        ({}, False),
    ],
)
def test_defect_42_a_pod_lost_through_no_fault_of_its_own_is_replaced(make: Any, status: Any, lost: bool) -> None:
    plan = plan_children(make.observed(owned_pods=(make.pod("Failed", status=status),), service=make.service()))

    assert [type(action) for action in plan.actions if isinstance(action, Remove)] == ([Remove] if lost else [])
    assert [notice.lost_pod for notice in plan.notices] == ([True] if lost else [])


def test_creates_name_their_kind(make: Any) -> None:
    (create,) = pod_actions(make.observed())

    assert isinstance(create, Create)
    assert create.body["metadata"]["ownerReferences"][0]["kind"] == SANDBOXES.kind
