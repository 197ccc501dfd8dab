"""Custom kinds: pruning, defaults, validation, rules, status and scale."""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import Api, widget


async def test_unknown_fields_are_pruned(api: Api) -> None:
    """At every depth."""
    body = widget("a", nonsense=1, rules=[{"name": "x", "nonsense": 2}])
    created = await api.create(api.widgets, body, fieldValidation="Ignore")

    assert "nonsense" not in created["spec"]
    assert "nonsense" not in created["spec"]["rules"][0]


async def test_fields_are_kept_where_the_schema_says_so(api: Api) -> None:
    """x-kubernetes-preserve-unknown-fields."""
    created = await api.create(api.widgets, widget("a", free={"any": {"thing": [1, "x", None]}}))

    assert created["spec"]["free"] == {"any": {"thing": [1, "x", None]}}


async def test_strict_validation_names_the_unknown_field(api: Api) -> None:
    """400 with its path."""
    answer = await api.request("POST", api.widgets, widget("a", nonsense=1), fieldValidation="Strict")

    assert answer.status == 400
    assert 'unknown field "spec.nonsense"' in answer.json["message"]


async def test_defaults_are_filled_in(api: Api) -> None:
    """Also inside lists."""
    created = await api.create(api.widgets, widget("a", rules=[{"name": "x"}]))

    assert created["spec"]["colour"] == "red"
    assert created["spec"]["replicas"] == 1
    assert created["spec"]["rules"] == [{"name": "x", "weight": 5}]


async def test_a_null_becomes_the_default(api: Api) -> None:
    """Where null is not allowed."""
    created = await api.create(api.widgets, widget("a", colour=None))

    assert created["spec"]["colour"] == "red"


async def test_a_null_stays_where_it_is_allowed(api: Api) -> None:
    """nullable."""
    created = await api.create(api.widgets, widget("a", maybe=None))

    assert created["spec"]["maybe"] is None


@pytest.mark.parametrize(
    ("spec", "field", "reason", "text"),
    [
        ({"size": "x"}, "spec.size", "FieldValueTypeInvalid", "must be of type integer"),
        ({"size": 0}, "spec.size", "FieldValueInvalid", "should be greater than or equal to 1"),
        ({"size": 101}, "spec.size", "FieldValueInvalid", "should be less than or equal to 100"),
        ({"colour": "pink"}, "spec.colour", "FieldValueNotSupported", 'supported values: "red", "green", "blue"'),
        ({"code": "ABC"}, "spec.code", "FieldValueInvalid", "should match '^[a-z]{2,4}$'"),
        ({"text": "x"}, "spec.text", "FieldValueInvalid", "should be at least 2 chars long"),
        ({"text": "xxxxxx"}, "spec.text", "FieldValueTooLong", "may not be more than 5"),
        ({"tags": ["a", "b", "c", "d"]}, "spec.tags", "FieldValueTooMany", "must have at most 3 items"),
        ({"tags": ["a", "a"]}, "spec.tags[1]", "FieldValueDuplicate", 'Duplicate value: "a"'),
        ({"rules": [{"note": "x"}]}, "spec.rules[0].name", "FieldValueRequired", "Required value"),
        ({"port": True}, "spec.port", "FieldValueTypeInvalid", "must be of type integer,string"),
        ({"moment": "yesterday"}, "spec.moment", "FieldValueTypeInvalid", "must be of type date-time"),
        ({"labels": {"x": 1}}, "spec.labels.x", "FieldValueTypeInvalid", "must be of type string"),
    ],
)
async def test_the_schema_names_what_is_wrong(
    api: Api, spec: dict[str, Any], field: str, reason: str, text: str
) -> None:
    """422 with field, reason and message."""
    answer = await api.request("POST", api.widgets, widget("a", **spec))

    assert answer.status == 422
    cause = answer.json["details"]["causes"][0]
    assert cause["field"] == field
    assert cause["reason"] == reason
    assert text in cause["message"]


async def test_a_required_field_is_required(api: Api) -> None:
    """The message begins with the kind and the name."""
    body = widget("a")
    del body["spec"]["size"]
    answer = await api.request("POST", api.widgets, body)

    assert answer.status == 422
    assert answer.json["message"].startswith('Widget.conformance.agents.dev "a" is invalid: [spec.size: Required value')
    assert "some validation rules were not checked" in answer.json["message"]
    assert answer.json["details"]["kind"] == "Widget"


async def test_all_mistakes_are_told_at_once(api: Api) -> None:
    """One cause per field."""
    answer = await api.request("POST", api.widgets, widget("a", size=0, colour="pink"))

    assert {"spec.size", "spec.colour"} <= {cause["field"] for cause in answer.json["details"]["causes"]}
    assert "is invalid: [" in answer.json["message"]


async def test_two_items_with_the_same_key_are_refused(api: Api) -> None:
    """A list of type map has keys."""
    answer = await api.request("POST", api.widgets, widget("a", rules=[{"name": "x"}, {"name": "x"}]))

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["reason"] == "FieldValueDuplicate"


@pytest.mark.parametrize("port", [80, "http"])
async def test_int_or_string_takes_both(api: Api, port: int | str) -> None:
    """And keeps which it was."""
    created = await api.create(api.widgets, widget("a", port=port))

    assert created["spec"]["port"] == port


async def test_a_rule_is_checked(api: Api) -> None:
    """CEL, with its message."""
    answer = await api.request("POST", api.widgets, widget("a", low=5, high=3))

    assert answer.status == 422
    (cause,) = answer.json["details"]["causes"]
    assert cause["field"] == "spec"
    assert "low must not be above high" in cause["message"]


async def test_a_rule_may_compute_its_message(api: Api) -> None:
    """messageExpression."""
    answer = await api.request("POST", api.widgets, widget("a", low=13))

    assert "low is unlucky" in answer.json["message"]


async def test_a_rule_of_the_whole_object_sees_its_name(api: Api) -> None:
    """metadata.name is there at the root."""
    answer = await api.request("POST", api.widgets, widget("forbidden"))

    assert answer.status == 422
    assert "this name is not allowed" in answer.json["message"]


async def test_a_transition_rule_does_not_hinder_a_create(api: Api) -> None:
    """There is no old value."""
    created = await api.create(api.widgets, widget("a", fixed="x"))

    assert created["spec"]["fixed"] == "x"


async def test_a_transition_rule_forbids_a_change(api: Api) -> None:
    """oldSelf; the refusal names fieldPath."""
    await api.create(api.widgets, widget("a", fixed="x"))
    answer = await api.merge(f"{api.widgets}/a", {"spec": {"fixed": "y"}})

    assert answer.status == 422
    (cause,) = answer.json["details"]["causes"]
    assert cause["field"] == "spec.fixed"
    assert "fixed cannot change" in cause["message"]


async def test_a_transition_rule_allows_what_it_does_not_mean(api: Api) -> None:
    """Other fields may change."""
    await api.create(api.widgets, widget("a", fixed="x"))

    assert (await api.merge(f"{api.widgets}/a", {"spec": {"size": 9}})).status == 200


async def test_a_whole_number_may_be_written_with_a_point(api: Api) -> None:
    """1.0 is an integer in JSON schema."""
    answer = await api.request("POST", api.widgets, widget("a", size=2.0))

    assert answer.status == 201


async def test_scale_shows_the_replicas(api: Api) -> None:
    """autoscaling/v1 over the paths of the definition."""
    await api.create(api.widgets, widget("a", replicas=3))
    status = {"status": {"replicas": 2, "selector": "app=x"}}
    await api.merge(f"{api.widgets}/a/status", status)
    scale = (await api.get(f"{api.widgets}/a/scale")).json

    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "app=x"}


async def test_scale_changes_the_replicas(api: Api) -> None:
    """PUT of a Scale."""
    await api.create(api.widgets, widget("a"))
    scale = (await api.get(f"{api.widgets}/a/scale")).json
    scale["spec"]["replicas"] = 5
    answer = await api.put(f"{api.widgets}/a/scale", scale)

    assert answer.status == 200
    assert (await api.get(f"{api.widgets}/a")).json["spec"]["replicas"] == 5


async def test_scale_can_be_patched(api: Api) -> None:
    """As kubectl scale does."""
    await api.create(api.widgets, widget("a"))
    answer = await api.merge(f"{api.widgets}/a/scale", {"spec": {"replicas": 4}})

    assert answer.json["spec"]["replicas"] == 4


async def test_replicas_behind_a_scale_are_never_negative(api: Api) -> None:
    """Whatever the schema says of the field: status.replicas has no minimum there."""
    await api.create(api.widgets, widget("a"))
    spec = await api.merge(f"{api.widgets}/a", {"spec": {"replicas": -1}})
    status = await api.merge(f"{api.widgets}/a/status", {"status": {"replicas": -1}})

    assert (spec.status, status.status) == (422, 422)
    assert [cause["field"] for cause in spec.json["details"]["causes"]] == ["spec.replicas", ".spec.replicas"]
    assert "status.replicas: Invalid value: -1: should be a non-negative integer" in status.json["message"]


async def test_scale_with_an_old_version_conflicts(api: Api) -> None:
    """Optimistic locking holds here as well."""
    await api.create(api.widgets, widget("a"))
    scale = (await api.get(f"{api.widgets}/a/scale")).json
    await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})
    scale["spec"]["replicas"] = 5

    assert (await api.put(f"{api.widgets}/a/scale", scale)).status == 409


async def test_a_custom_object_must_say_its_kind(api: Api) -> None:
    """400 shows what came."""
    body = widget("a")
    del body["kind"]
    answer = await api.request("POST", api.widgets, body)

    assert answer.status == 400
    assert "Object 'Kind' is missing in" in answer.json["message"]


async def test_a_null_that_is_not_allowed_is_dropped(api: Api) -> None:
    """As if it had not been said."""
    created = await api.create(api.widgets, widget("a", text=None))

    assert "text" not in created["spec"]
