"""A Pod's status from the states of its containers, as a kubelet computes it."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent_sandbox.local.node.container import Takeover
from agent_sandbox.local.node.pods import Pod
from agent_sandbox.local.node.status import (
    ContainerState,
    PodState,
    Running,
    Terminated,
    Waiting,
    phase,
    pod_status,
)
from agent_sandbox.local.node.worker import _first_state
from agent_sandbox_api.views import ConditionView

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CREATING = Waiting("ContainerCreating")
RUNNING = Running(NOW)
OK = Terminated(0, "Completed", "", NOW, NOW)
BAD = Terminated(3, "Error", "", NOW, NOW)


def container(state: Waiting | Running | Terminated, name: str = "main", **changes: object) -> ContainerState:
    return ContainerState(name, "image").with_state(state, **changes)


def pod(*containers: ContainerState, policy: str = "Always", init: tuple[ContainerState, ...] = ()) -> PodState:
    return PodState(policy, "127.0.0.1", containers, init, address="10.88.0.2", started_at=NOW)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (pod(container(CREATING)), "Pending"),
        (pod(container(RUNNING)), "Running"),
        (pod(container(RUNNING), container(CREATING, "b")), "Running"),
        (pod(container(OK)), "Running"),
        (pod(container(Waiting("CrashLoopBackOff"), last=BAD)), "Running"),
        (pod(container(OK), policy="Never"), "Succeeded"),
        (pod(container(BAD), policy="Never"), "Failed"),
        (pod(container(OK), container(BAD, "b"), policy="Never"), "Failed"),
        (pod(container(OK), container(RUNNING, "b"), policy="Never"), "Running"),
        (pod(container(OK), policy="OnFailure"), "Succeeded"),
        (pod(container(BAD), policy="OnFailure"), "Running"),
        (pod(container(CREATING), init=(container(RUNNING, "i"),)), "Pending"),
        (pod(container(RUNNING), init=(container(OK, "i"),)), "Running"),
        (pod(container(CREATING), policy="Never", init=(container(BAD, "i"),)), "Failed"),
    ],
)
def test_the_phase_follows_the_kubelets_rules(state: PodState, expected: str) -> None:
    assert phase(state) == expected


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    half = pod_status(pod(container(RUNNING, ready=True), container(RUNNING, "b")), (), NOW)
    whole = pod_status(pod(container(RUNNING, ready=True)), (), NOW)

    conditions = {entry["type"]: entry for entry in half["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["message"] == "containers with unready status: [b]"
    assert {entry["type"]: entry["status"] for entry in whole["conditions"]} == {
        "PodScheduled": "True",
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }


def test_a_conditions_time_moves_only_with_its_status() -> None:
    earlier = NOW - timedelta(hours=1)
    previous = [
        ConditionView("Ready", "True", last_transition_time=earlier),
        ConditionView("Initialized", "False", last_transition_time=earlier),
    ]

    status = pod_status(pod(container(RUNNING, ready=True)), previous, NOW)

    times = {entry["type"]: entry["lastTransitionTime"] for entry in status["conditions"]}
    assert times["Ready"] == "2026-01-01T11:00:00Z"
    assert times["Initialized"] == "2026-01-01T12:00:00Z"


def test_states_take_their_wire_form() -> None:
    status = pod_status(pod(container(Waiting("X", "why"), last=BAD, restart_count=2)), (), NOW)

    entry = status["containerStatuses"][0]
    assert entry["state"] == {"waiting": {"reason": "X", "message": "why"}}
    assert entry["lastState"]["terminated"]["exitCode"] == 3
    assert entry["restartCount"] == 2
    assert status["podIPs"] == [{"ip": "10.88.0.2"}]


def test_a_finished_pod_has_no_address() -> None:
    assert pod_status(pod(container(OK), policy="Never"), (), NOW)["podIP"] is None


def test_a_container_that_goes_on_is_shown_from_the_first_moment_as_the_killed_node_showed_it() -> None:
    name = "bubblewrap://uid/main/2"
    shown = container(RUNNING, last=BAD, restart_count=2, ready=True, started=True, container_id=name)
    spec = {"containers": [{"name": "main", "image": "image"}]}
    status = {"phase": "Running", "containerStatuses": [shown.to_json()]}
    found = msgspec.convert({"metadata": {"name": "one"}, "spec": spec, "status": status}, Pod)
    survivor: Any = SimpleNamespace()
    about: Any = SimpleNamespace(launch=SimpleNamespace(run=2))

    assert _first_state(found.spec.containers[0], found, Takeover(survivor, about, NOW)) == shown
