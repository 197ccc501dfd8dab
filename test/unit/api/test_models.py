"""The pydantic models: what they read, what they write, and what they refuse by the field's name."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, Sandbox
from agent_sandbox_api.conditions import next_condition
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim, SandboxTemplate, SandboxWarmPool
from agent_sandbox_api.meta import KubeModel, format_time
from agent_sandbox_api.names import name_hash
from agent_sandbox_api.views import ConditionView

POD = {"spec": {"containers": [{"name": "main", "image": "python:3.13"}]}}


def sandbox(**spec: Any) -> Sandbox:
    return Sandbox.model_validate({"metadata": {"name": "box"}, "spec": {"podTemplate": POD, **spec}})


def test_unknown_fields_survive_a_read_and_a_write() -> None:
    wire = {
        "apiVersion": "agents.x-k8s.io/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": "box", "managedFields": [{"manager": "kubectl"}], "newMeta": {"a": 1}},
        "spec": {
            "podTemplate": {**POD, "futureField": True},
            "shutdownPolicy": "Retain",
            "replicas": 1,
            "newSpec": [1],
        },
        "status": {"newStatus": "x"},
    }
    assert Sandbox.model_validate(wire).to_json() == wire


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=9)))
    assert sandbox(shutdownTime=moment).to_json()["spec"]["shutdownTime"] == "2026-01-01T18:04:05Z"


def test_years_have_four_digits() -> None:
    assert format_time(datetime(999, 1, 2, tzinfo=UTC)) == "0999-01-02T00:00:00Z"


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs a zone"):
        sandbox(shutdownTime="2026-01-02T03:04:05")


def test_unset_fields_are_not_written() -> None:
    assert sandbox().to_json() == {
        "apiVersion": "agents.x-k8s.io/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": "box"},
        "spec": {"podTemplate": POD, "shutdownPolicy": "Retain", "replicas": 1},
    }


CLAIM = {"sandboxTemplateRef": {"name": "t"}}


@pytest.mark.parametrize(
    ("model", "spec", "field"),
    [
        (Sandbox, {"podTemplate": POD, "replicas": 2}, "spec.replicas"),
        (Sandbox, {}, "spec.podTemplate"),
        (Sandbox, {"podTemplate": {}}, "spec.podTemplate.spec"),
        (Sandbox, {"podTemplate": POD, "shutdownPolicy": "Burn"}, "spec.shutdownPolicy"),
        (
            Sandbox,
            {"podTemplate": POD, "volumeClaimTemplates": [{"metadata": {"name": "Bad_Name"}, "spec": {}}]},
            "spec.volumeClaimTemplates.0.metadata.name",
        ),
        (SandboxClaim, {"sandboxTemplateRef": {}}, "spec.sandboxTemplateRef.name"),
        (SandboxClaim, {"sandboxTemplateRef": {"name": ""}}, "spec.sandboxTemplateRef.name"),
        (
            SandboxClaim,
            {**CLAIM, "lifecycle": {"ttlSecondsAfterFinished": -1}},
            "spec.lifecycle.ttlSecondsAfterFinished",
        ),
        (SandboxClaim, {**CLAIM, "env": [{"name": "A"}]}, "spec.env.0.value"),
        (SandboxTemplate, {"podTemplate": POD, "networkPolicyManagement": "No"}, "spec.networkPolicyManagement"),
        (SandboxWarmPool, {**CLAIM, "replicas": -1}, "spec.replicas"),
        (SandboxWarmPool, CLAIM, "spec.replicas"),
        (SandboxWarmPool, {**CLAIM, "replicas": 1, "updateStrategy": {"type": "Never"}}, "spec.updateStrategy.type"),
    ],
)
def test_wrong_input_is_refused_by_the_name_of_the_field(
    model: type[KubeModel], spec: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        model.model_validate({"metadata": {"name": "x"}, "spec": spec})
    places = {".".join(str(part) for part in error["loc"]) for error in refusal.value.errors()}
    assert field in places


def test_an_object_of_another_kind_is_refused() -> None:
    wire = {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Pod", "metadata": {}, "spec": {"podTemplate": POD}}
    with pytest.raises(ValidationError, match="kind"):
        Sandbox.model_validate(wire)


def test_a_view_becomes_the_model_of_the_same_object() -> None:
    model = sandbox(volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}])
    view = SANDBOXES.decode(model.model_dump_json(by_alias=True, exclude_none=True).encode())
    assert view.metadata.name == "box"
    assert view.model().to_json()["spec"] == model.to_json()["spec"]


NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=1)


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    old = ConditionView(type="Ready", status="False", reason="Starting", last_transition_time=EARLIER)
    new = next_condition([old], type="Ready", status="False", reason="Slow", message="m", generation=3, now=NOW)
    assert (new.last_transition_time, new.reason, new.observed_generation) == (EARLIER, "Slow", 3)


def test_a_condition_takes_the_present_when_its_status_changes() -> None:
    old = ConditionView(type="Ready", status="False", reason="Starting", last_transition_time=EARLIER)
    new = next_condition([old], type="Ready", status="True", reason="Up", message="m", generation=3, now=NOW)
    assert new.last_transition_time == NOW


@pytest.mark.parametrize(
    ("name", "digest"),
    [("", "811c9dc5"), ("my-sandbox", "374de8f5"), ("test-template", "69155462"), ("pool", "91dd7983")],
)
def test_names_hash_as_in_the_original(name: str, digest: str) -> None:
    assert name_hash(name) == digest
