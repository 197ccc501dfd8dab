"""Edge cases 116 and 163 to 182: what a claim says, and when it ends."""

from typing import Any

import pytest

from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS
from agent_sandbox_api.views import ConditionView
from agent_sandbox_controllers.sandboxclaim.expiry import expiry_of, finished_condition, seconds_until
from agent_sandbox_controllers.sandboxclaim.status import (
    bound_status,
    deletes_itself,
    expired_status,
    is_marked_expired,
    vanished_status,
)
from agent_sandbox_controllers.status import difference, status_change, status_json
from agent_sandbox_controllers.troubles import Trouble


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in status["conditions"]}


def test_edge_116_and_defect_50_ready_carries_the_claims_generation_and_time(make: Any) -> None:
    observed = make.claim(metadata={"generation": 4})

    ready = conditions(bound_status(observed, make.member(), None))["Ready"]

    assert (ready["status"], ready["observedGeneration"]) == ("True", 4)
    assert ready["lastTransitionTime"] == make.stamp()


def test_defect_50_finished_keeps_its_time_and_carries_the_claims_generation(make: Any) -> None:
    finished = {"type": "Finished", "status": "True", "reason": "PodSucceeded", "observedGeneration": 9,
                "lastTransitionTime": make.stamp(-50), "message": ""}  # fmt: skip
    observed = make.claim(metadata={"generation": 4})

    mirrored = conditions(bound_status(observed, make.member(conditions=[finished]), None))["Finished"]

    assert (mirrored["lastTransitionTime"], mirrored["observedGeneration"]) == (make.stamp(-50), 4)


def test_name_and_addresses_are_given_in_both_forms(make: Any) -> None:
    status = bound_status(make.claim(), make.member("m1"), None)

    assert status["sandboxName"] == "m1"
    assert status["sandbox"] == {"name": "m1", "podIPs": ["10.0.0.1"]}


def test_a_sandbox_without_conditions_is_not_ready_yet(make: Any) -> None:
    assert conditions(bound_status(make.claim(), make.sandbox("mine"), None))["Ready"]["reason"] == "SandboxNotReady"


def test_a_sandbox_that_expired_by_itself_is_named_so(make: Any) -> None:
    ready = conditions(bound_status(make.claim(), make.member(ready=False, reason="SandboxExpired"), None))["Ready"]

    assert ready["message"] == "Underlying Sandbox resource has expired independently of the Claim."


def test_metadata_that_cannot_be_applied_leaves_a_working_claim_ready(make: Any) -> None:
    seen = conditions(bound_status(make.claim(), make.member(), Trouble("InvalidMetadata", "bad label")))

    assert seen["Ready"]["status"] == "True"
    assert (seen["MetadataApplied"]["status"], seen["MetadataApplied"]["reason"]) == ("False", "InvalidMetadata")


def test_defect_35_the_name_of_a_vanished_sandbox_stays_on_record(make: Any) -> None:
    status = vanished_status(make.claim(), "pool-1")

    assert status["sandbox"] == {"name": "pool-1"}
    assert conditions(status)["Ready"]["reason"] == "SandboxMissing"


def test_edge_165_and_defect_24_a_status_write_is_conditional_and_says_only_what_changed(make: Any) -> None:
    observed = make.claim(status={"sandboxName": "m1", "sandbox": {"name": "m1"}})
    old = status_json(observed.view.status)

    change = status_change(SANDBOX_CLAIMS, observed.view.metadata, old, {**old, "sandboxName": "m2"})

    assert change is not None
    assert change.body == {"status": {"sandboxName": "m2"}, "metadata": {"uid": "mine-uid", "resourceVersion": "7"}}
    assert change.subresource == "status"
    assert status_change(SANDBOX_CLAIMS, observed.view.metadata, old, old) is None


def test_a_field_that_is_no_longer_wanted_is_removed() -> None:
    assert difference({"service": "a", "replicas": 1}, {"replicas": 0}) == {"service": None, "replicas": 0}


def test_a_field_inside_an_object_that_is_no_longer_wanted_is_removed() -> None:
    old = {"sandbox": {"name": "a", "podIPs": ["10.0.0.1"]}, "sandboxName": "a"}
    new = {"sandbox": {"name": "a"}, "sandboxName": "a"}
    assert difference(old, new) == {"sandbox": {"podIPs": None}}
    assert difference(new, old) == {"sandbox": {"podIPs": ["10.0.0.1"]}}


# The end


def lifecycle(make: Any, **fields: Any) -> Any:
    return make.claim(claim={"lifecycle": fields})


@pytest.mark.parametrize(
    ("shutdown", "ttl", "finished", "expected"),
    [
        (None, None, None, None),
        (60, None, None, 60),
        (None, 30, None, None),
        (None, 30, -10, 20),
        (10, 30, -10, 10),
        (60, 30, -10, 20),
        (None, 0, 0, 0),
    ],
)
def test_edge_182_the_earlier_of_shutdown_time_and_ttl_counts(
    make: Any, shutdown: int | None, ttl: int | None, finished: int | None, expected: int | None
) -> None:
    fields: dict[str, Any] = {}
    if shutdown is not None:
        fields["shutdownTime"] = make.stamp(shutdown)
    if ttl is not None:
        fields["ttlSecondsAfterFinished"] = ttl
    condition = None
    if finished is not None:
        moment = make.now.fromisoformat(make.stamp(finished))
        condition = ConditionView("Finished", "True", last_transition_time=moment)

    end = expiry_of(lifecycle(make, **fields).claim, condition)

    assert seconds_until(end, make.now) == expected


def test_edge_179_a_finished_condition_that_is_false_ends_nothing(make: Any) -> None:
    was = {"type": "Finished", "status": "False", "reason": "X", "lastTransitionTime": make.stamp(-60)}

    assert finished_condition(make.claim(status={"conditions": [was]}).view) is None


def test_edge_181_the_first_pass_after_the_end_only_marks(make: Any) -> None:
    observed = make.claim(status={"sandboxName": "m1", "sandbox": {"name": "m1", "podIPs": ["10.0.0.1"]}})

    status = expired_status(observed, done=False)

    assert not is_marked_expired(observed)
    assert conditions(status)["Ready"]["message"].startswith("Claim expired. Sandbox cleanup initiated.")
    assert status["sandbox"]["name"] == "m1"


def test_edge_176_a_retained_claim_forgets_its_sandbox_and_keeps_that_it_finished(make: Any) -> None:
    was = {"type": "Finished", "status": "True", "reason": "PodSucceeded", "lastTransitionTime": make.stamp(-60)}
    status = expired_status(make.claim(status={"conditions": [was], "sandboxName": "m1"}), done=True)

    assert "sandbox" not in status
    assert conditions(status)["Finished"]["status"] == "True"


def test_edge_177_a_recorded_sandbox_of_somebody_else_is_not_deleted_and_named(make: Any) -> None:
    status = expired_status(make.claim(), done=True, foreign="m1")

    assert conditions(status)["Ready"]["message"] == (
        'Claim expired. sandbox not owned by this claim: sandbox "m1" is not owned by claim "mine"; deletion skipped.'
    )


@pytest.mark.parametrize(("policy", "goes"), [("Delete", True), ("DeleteForeground", True), ("Retain", False)])
def test_edge_178_delete_removes_the_claim_itself(make: Any, policy: str, goes: bool) -> None:
    assert deletes_itself(lifecycle(make, shutdownPolicy=policy).claim) is goes
    assert not deletes_itself(make.claim().claim)
