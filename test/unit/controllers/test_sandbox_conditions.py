"""Edge cases 1 to 25: the conditions of a Sandbox."""

from typing import Any

import pytest

from agent_sandbox_controllers.sandbox.conditions import sandbox_conditions
from agent_sandbox_controllers.sandbox.plan import plan_children
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason


def conditions(observed: Any, *troubles: Trouble) -> dict[str, tuple[str, str, str]]:
    listed = sandbox_conditions(observed, troubles or plan_children(observed).troubles)
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in listed}


def test_edge_001_without_pod_and_service_ready_names_both(make: Any) -> None:
    seen = conditions(make.observed(service=None))

    assert seen["Ready"] == ("False", "DependenciesNotReady", "Pod does not exist; Service does not exist")
    assert seen["Suspended"] == ("False", "NotSuspended", "Sandbox is not suspended")


def test_edge_002_an_existing_service_is_named_beside_the_missing_pod(make: Any) -> None:
    seen = conditions(make.observed(service=make.service()))

    assert seen["Ready"][2] == "Pod does not exist; Service Exists"


def test_edge_003_a_pending_pod_without_scheduler_news_is_unknown(make: Any) -> None:
    seen = conditions(make.observed(owned_pods=(make.pod("Pending"),), service=make.service()))

    assert seen["PodScheduled"][:2] == ("Unknown", "PodSchedulingUnknown")
    assert seen["Ready"][2].startswith("Pod exists with phase: Pending; ")


def test_edge_004_a_running_pod_that_is_not_ready_says_so(make: Any) -> None:
    status = {"conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]}
    seen = conditions(make.observed(owned_pods=(make.pod(status=status),), service=make.service()))

    assert seen["Ready"][2] == "Pod is Running but not Ready; Service Exists"
    assert seen["PodScheduled"][:2] == ("True", "PodScheduled")


def test_edge_005_a_ready_pod_without_address_is_not_ready(make: Any) -> None:
    pod = make.pod(status={"conditions": [{"type": "Ready", "status": "True"}]})
    seen = conditions(make.observed(owned_pods=(pod,), service=make.service()))

    assert seen["Ready"] == ("False", "DependenciesNotReady", "Pod is Ready but has no podIPs yet; Service Exists")


def test_edge_006_a_suspending_sandbox_still_has_its_pod(make: Any) -> None:
    seen = conditions(make.observed(owned_pods=(make.ready_pod(),), replicas=0))

    assert seen["Suspended"][:2] == ("False", "PodTerminating")
    assert seen["Ready"] == ("False", "SandboxSuspended", "Sandbox is suspending")
    assert seen["PodScheduled"][0] == "True"


def test_edge_007_a_stranger_of_the_name_keeps_a_sandbox_from_being_suspended(make: Any) -> None:
    stranger = make.pod(owner=make.reference("ReplicaSet", "other"))
    seen = conditions(make.observed(named_pod=stranger, replicas=0))

    assert seen["Suspended"][:2] == ("False", "PodNotOwned")
    assert "PodScheduled" not in seen


def test_edge_008_a_failed_delete_while_suspending_is_terminating_and_an_error(make: Any) -> None:
    trouble = Trouble(Reason.RECONCILER_ERROR, "delete Pod: forbidden")
    seen = conditions(make.observed(owned_pods=(make.ready_pod(),), replicas=0), trouble)

    assert seen["Suspended"][:2] == ("False", "PodTerminating")
    assert seen["Ready"][1:] == ("ReconcilerError", "Error seen: delete Pod: forbidden")


def test_edge_009_a_suspended_sandbox_without_pod_is_suspended(make: Any) -> None:
    seen = conditions(make.observed(replicas=0))

    assert seen["Suspended"] == ("True", "PodTerminated", "Pod has been terminated. Sandbox is suspended")
    assert seen["Ready"] == (
        "False",
        "SandboxSuspended",
        "Sandbox is suspended: spec.replicas is 0; set it to 1 to resume",
    )


def test_edge_012_a_resumed_sandbox_keeps_the_condition_as_false(make: Any) -> None:
    was = {"type": "Suspended", "status": "True", "reason": "PodTerminated", "lastTransitionTime": make.stamp(-60)}
    listed = sandbox_conditions(make.observed(status={"conditions": [was]}), ())

    suspended = next(each for each in listed if each["type"] == "Suspended")
    assert (suspended["status"], suspended["reason"]) == ("False", "NotSuspended")
    assert suspended["lastTransitionTime"] == make.stamp()


def test_edge_013_a_pod_of_unknown_phase_is_named(make: Any) -> None:
    assert "phase: Unknown" in conditions(make.observed(owned_pods=(make.pod("Unknown"),)))["Ready"][2]


@pytest.mark.parametrize(
    ("number", "phase", "reason", "message"),
    [(14, "Failed", "PodFailed", "Pod failed"), (15, "Succeeded", "PodSucceeded", "Pod completed successfully")],
)
def test_edge_014_and_015_an_ended_pod_is_finished(
    make: Any, number: int, phase: str, reason: str, message: str
) -> None:
    seen = conditions(make.observed(owned_pods=(make.pod(phase),)))

    assert seen["Finished"] == ("True", reason, message)
    assert seen["Ready"] == ("False", reason, message)


def test_edge_016_a_stranger_that_ended_finishes_nobody(make: Any) -> None:
    stranger = make.pod("Succeeded", owner=make.reference("ReplicaSet", "other"))

    assert "Finished" not in conditions(make.observed(named_pod=stranger))


def test_edge_017_an_error_comes_before_everything(make: Any) -> None:
    observed = make.observed(owned_pods=(make.ready_pod(),), service=make.service())

    seen = conditions(observed, Trouble(Reason.RECONCILER_ERROR, "boom"))

    assert seen["Ready"] == ("False", "ReconcilerError", "Error seen: boom")


@pytest.mark.parametrize(
    ("number", "reason", "message", "shown"),
    [
        (18, "Unschedulable", "0/3 nodes are available", "Unschedulable"),
        (19, "SchedulingGated", "", "SchedulingGated"),
        (20, "", "", "PodSchedulingUnknown"),
    ],
)
def test_edge_018_to_020_the_schedulers_word_is_passed_on(
    make: Any, number: int, reason: str, message: str, shown: str
) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    seen = conditions(make.observed(owned_pods=(make.pod("Pending", status={"conditions": [scheduled]}),)))

    assert seen["PodScheduled"] == ("False", shown, message)


def test_edge_021_multiple_pods_silence_other_troubles(make: Any) -> None:
    many = Trouble(Reason.MULTIPLE_PODS, "multiple Pods (2) are controlled by this Sandbox")

    seen = conditions(make.observed(), Trouble(Reason.RECONCILER_ERROR, "boom"), many)

    assert seen["Ready"][1:] == ("MultiplePods", many.message)


def test_edge_022_conditions_do_not_accumulate(make: Any) -> None:
    observed = make.observed(owned_pods=(make.ready_pod(),), service=make.service())
    listed = sandbox_conditions(observed, ())
    for _ in range(20):
        status = {"conditions": listed}
        again = make.observed(owned_pods=(make.ready_pod(),), service=make.service(), status=status)
        listed = sandbox_conditions(again, ())

    assert [each["type"] for each in listed] == ["PodScheduled", "Ready", "Suspended"]


def test_edge_023_the_scheduling_condition_goes_with_the_pod(make: Any) -> None:
    was = [
        {"type": "PodScheduled", "status": "True", "reason": "PodScheduled", "lastTransitionTime": make.stamp()},
        {"type": "Suspended", "status": "False", "reason": "PodTerminating", "lastTransitionTime": make.stamp()},
    ]
    seen = conditions(make.observed(replicas=0, status={"conditions": was}))

    assert "PodScheduled" not in seen
    assert seen["Suspended"][0] == "True"


def test_defect_43_a_terminating_pod_is_not_ready(make: Any) -> None:
    going = make.ready_pod(metadata={"deletionTimestamp": make.stamp()})
    seen = conditions(make.observed(owned_pods=(going,), service=make.service()))

    assert seen["Ready"] == ("False", "DependenciesNotReady", "Pod is terminating; Service Exists")


def test_defect_41_a_changed_pod_spec_that_the_pod_does_not_have_is_told(make: Any) -> None:
    pod = make.ready_pod(metadata={"annotations": {"agents.x-k8s.io/pod-spec-hash": "of-something-else"}})
    seen = conditions(make.observed(owned_pods=(pod,), service=make.service()))

    assert seen["PodUpToDate"][:2] == ("False", "PodTemplateChanged")
    assert "replicas 0, then 1" in seen["PodUpToDate"][2]
    assert seen["Ready"][0] == "True"


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, "ErrImagePull", "no such image"),
        (
            {"waiting": {"reason": "CreateContainerError", "message": "no command"}},
            "CreateContainerError",
            "no command",
        ),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "CrashLoopBackOff", "CrashLoopBackOff"),
        ({"terminated": {"exitCode": 3, "reason": "Error"}}, "ContainerFailed", "exit code 3"),
        ({"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: x"}}, "StartError", "exec: x"),
    ],
)
def test_a_container_that_cannot_start_is_explained(make: Any, state: Any, reason: str, words: str) -> None:
    pod = make.pod("Pending", status={"containerStatuses": [{"name": "main", "state": state}]})
    seen = conditions(make.observed(owned_pods=(pod,)))

    assert seen["Ready"][1] == reason
    assert words in seen["Ready"][2]
    assert '"main"' in seen["Ready"][2]


def test_containers_that_are_just_being_made_are_no_problem(make: Any) -> None:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    pod = make.pod("Pending", status={"containerStatuses": [{"name": "main", "state": waiting}]})

    assert conditions(make.observed(owned_pods=(pod,)))["Ready"][1] == "DependenciesNotReady"


def test_conditions_of_others_are_kept(make: Any) -> None:
    theirs = {"type": "Audited", "status": "True", "reason": "Yes", "lastTransitionTime": make.stamp(-9), "message": ""}
    listed = sandbox_conditions(make.observed(status={"conditions": [theirs]}), ())

    assert next(each for each in listed if each["type"] == "Audited")["lastTransitionTime"] == make.stamp(-9)
