"""Server-side apply and managedFields."""

from typing import Any

from agent_sandbox.testing.conformance import Api, config_map, widget

JsonObject = dict[str, Any]


def _full(name: str, **data: str) -> JsonObject:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _widget(name: str, **spec: Any) -> JsonObject:
    return {
        "apiVersion": "conformance.agents.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": spec,
    }


def _entry(value: JsonObject, manager: str, operation: str = "Apply") -> JsonObject:
    (entry,) = [
        entry
        for entry in value["metadata"]["managedFields"]
        if (entry["manager"], entry["operation"]) == (manager, operation)
    ]
    found: JsonObject = entry
    return found


async def test_apply_creates_what_is_not_there(api: Api) -> None:
    """201, and the applier owns what it stated."""
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")

    assert answer.status == 201
    entry = _entry(answer.json, "one")
    assert entry["fieldsV1"] == {"f:data": {"f:x": {}}}
    assert (entry["apiVersion"], entry["fieldsType"]) == ("v1", "FieldsV1")


async def test_apply_again_changes_nothing(api: Api) -> None:
    """The same configuration is no write."""
    first = await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")
    second = await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")

    assert second.status == 200
    assert second.json["metadata"]["resourceVersion"] == first.json["metadata"]["resourceVersion"]


async def test_apply_needs_a_manager(api: Api) -> None:
    """fieldManager is required."""
    kind = "application/apply-patch+yaml"
    answer = await api.request("PATCH", f"{api.config_maps}/a", _full("a"), content_type=kind)

    assert answer.status == 422
    assert "fieldManager: Required value: is required for apply patch" in answer.json["message"]


async def test_apply_refuses_managed_fields(api: Api) -> None:
    """managedFields must be nil in what is applied."""
    body = _full("a", x="1")
    body["metadata"]["managedFields"] = [{"manager": "x"}]
    answer = await api.apply(f"{api.config_maps}/a", body, "one")

    assert answer.status == 400
    assert answer.json["message"] == "metadata.managedFields must be nil"


async def test_what_is_no_longer_applied_goes(api: Api) -> None:
    """A field that only the applier owned is removed."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1", y="2"), "one")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")

    assert answer.json["data"] == {"x": "1"}


async def test_what_another_owns_as_well_stays(api: Api) -> None:
    """A shared field loses an owner, not its value."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1", y="2"), "one")
    await api.apply(f"{api.config_maps}/a", _full("a", y="2"), "two")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")

    assert answer.json["data"] == {"x": "1", "y": "2"}


async def test_another_owners_value_conflicts(api: Api) -> None:
    """409 names the manager and the field."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="2"), "two")

    assert answer.status == 409
    assert answer.json["reason"] == "Conflict"
    assert answer.json["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.x'
    assert answer.json["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.x"}
    ]


async def test_several_conflicts_are_listed(api: Api) -> None:
    """All of them at once."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1", y="1"), "one")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="2", y="2"), "two")

    assert answer.json["message"] == ('Apply failed with 2 conflicts: conflicts with "one":\n- .data.x\n- .data.y')


async def test_the_same_value_is_shared_without_conflict(api: Api) -> None:
    """Both own it then."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "two")

    assert answer.status == 200
    assert _entry(answer.json, "one")["fieldsV1"] == _entry(answer.json, "two")["fieldsV1"]


async def test_force_takes_a_field_over(api: Api) -> None:
    """The former owner loses it."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1", y="1"), "one")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="2"), "two", force=True)

    assert answer.json["data"] == {"x": "2", "y": "1"}
    assert _entry(answer.json, "one")["fieldsV1"] == {"f:data": {"f:y": {}}}


async def test_an_update_takes_fields_without_asking(api: Api) -> None:
    """A plain update owns what it changed."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")
    answer = await api.merge(f"{api.config_maps}/a", {"data": {"x": "2"}}, fieldManager="editor")

    assert _entry(answer.json, "editor", "Update")["fieldsV1"] == {"f:data": {"f:x": {}}}
    assert [entry["manager"] for entry in answer.json["metadata"]["managedFields"]] == ["editor"]


async def test_applying_over_an_update_conflicts_with_its_version(api: Api) -> None:
    """The message says in which version the other wrote."""
    await api.create(api.config_maps, {**config_map("a"), "data": {"x": "1"}}, fieldManager="editor")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", x="2"), "one")

    assert answer.status == 409
    assert answer.json["message"].endswith('conflict with "editor" using v1: .data.x')


async def test_appliers_come_first_among_the_managers(api: Api) -> None:
    """Whoever wrote first."""
    await api.create(api.config_maps, {**config_map("a"), "data": {"x": "1"}}, fieldManager="editor")
    answer = await api.apply(f"{api.config_maps}/a", _full("a", y="2"), "zoe")

    assert [entry["manager"] for entry in answer.json["metadata"]["managedFields"]] == ["zoe", "editor"]


async def test_a_create_records_its_manager(api: Api) -> None:
    """The fields of the body belong to it."""
    created = await api.create(api.config_maps, config_map("a", labels={"l": "1"}), fieldManager="maker")
    entry = _entry(created, "maker", "Update")

    assert "f:key" in entry["fieldsV1"]["f:data"]
    assert "f:l" in entry["fieldsV1"]["f:metadata"]["f:labels"]
    assert "f:name" not in entry["fieldsV1"]["f:metadata"]


async def test_the_manager_defaults_to_the_user_agent(api: Api) -> None:
    """Its first word."""
    created = await api.create(api.config_maps, config_map("a"))

    assert [entry["manager"] for entry in created["metadata"]["managedFields"]] == ["conformance"]


async def test_status_has_entries_of_its_own(api: Api) -> None:
    """The subresource is part of the entry."""
    await api.create(api.widgets, widget("a"))
    changed = (await api.merge(f"{api.widgets}/a/status", {"status": {"replicas": 2}}, fieldManager="one")).json
    (entry,) = [entry for entry in changed["metadata"]["managedFields"] if entry["manager"] == "one"]

    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {"f:status": {"f:replicas": {}}} or "f:replicas" in entry["fieldsV1"]["f:status"]


async def test_a_map_list_merges_by_key(api: Api) -> None:
    """Two appliers own different items."""
    await api.apply(f"{api.widgets}/a", _widget("a", size=1, rules=[{"name": "x", "note": "1"}]), "one")
    answer = await api.apply(f"{api.widgets}/a", _widget("a", rules=[{"name": "y", "note": "2"}]), "two")

    assert answer.status == 200
    assert [rule["name"] for rule in answer.json["spec"]["rules"]] == ["x", "y"]
    fields = _entry(answer.json, "two")["fieldsV1"]
    assert fields == {"f:spec": {"f:rules": {'k:{"name":"y"}': {".": {}, "f:name": {}, "f:note": {}}}}}


async def test_an_item_that_is_no_longer_applied_goes(api: Api) -> None:
    """The other's item stays."""
    await api.apply(f"{api.widgets}/a", _widget("a", size=1, rules=[{"name": "x"}, {"name": "y"}]), "one")
    await api.apply(f"{api.widgets}/a", _widget("a", rules=[{"name": "z"}]), "two")
    answer = await api.apply(f"{api.widgets}/a", _widget("a", size=1, rules=[{"name": "y"}]), "one")

    assert sorted(rule["name"] for rule in answer.json["spec"]["rules"]) == ["y", "z"]


async def test_a_set_merges_by_value(api: Api) -> None:
    """Each applier owns its own entries."""
    await api.apply(f"{api.widgets}/a", _widget("a", size=1, tags=["x"]), "one")
    answer = await api.apply(f"{api.widgets}/a", _widget("a", tags=["y"]), "two")

    assert sorted(answer.json["spec"]["tags"]) == ["x", "y"]
    assert _entry(answer.json, "two")["fieldsV1"] == {"f:spec": {"f:tags": {'v:"y"': {}}}}


async def test_an_atomic_list_has_one_owner(api: Api) -> None:
    """A list without a type is one field."""
    await api.apply(f"{api.widgets}/a", _widget("a", size=1, plain=["x"]), "one")
    answer = await api.apply(f"{api.widgets}/a", _widget("a", plain=["y"]), "two")

    assert answer.status == 409
    assert answer.json["details"]["causes"][0]["field"] == ".spec.plain"


async def test_apply_to_status_owns_status_only(api: Api) -> None:
    """The subresource takes nothing else."""
    await api.create(api.widgets, widget("a"))
    body = {**_widget("a"), "status": {"replicas": 4}}
    answer = await api.apply(f"{api.widgets}/a/status", body, "one")

    assert answer.status == 200
    assert answer.json["status"]["replicas"] == 4
    assert _entry(answer.json, "one")["fieldsV1"] == {"f:status": {"f:replicas": {}}}


async def test_apply_checks_like_any_write(api: Api) -> None:
    """The schema holds."""
    answer = await api.apply(f"{api.widgets}/a", _widget("a", size=1000), "one")

    assert answer.status == 422


async def test_a_dry_run_apply_keeps_nothing(api: Api) -> None:
    """The answer shows what would be."""
    kind = "application/apply-patch+yaml"
    answer = await api.request(
        "PATCH", f"{api.config_maps}/a", _full("a", x="1"), content_type=kind, fieldManager="one", dryRun="All"
    )

    assert answer.status == 201
    assert (await api.get(f"{api.config_maps}/a")).status == 404


async def test_apply_reads_yaml(api: Api) -> None:
    """The media type says so."""
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: 'yes'\n"
    kind = "application/apply-patch+yaml"
    answer = await api.request("PATCH", f"{api.config_maps}/a", body, content_type=kind, fieldManager="one")

    assert answer.json["data"] == {"x": "yes"}


async def test_managed_fields_can_be_cleared(api: Api) -> None:
    """A list of one empty entry forgets all owners."""
    await api.apply(f"{api.config_maps}/a", _full("a", x="1"), "one")
    answer = await api.merge(f"{api.config_maps}/a", {"metadata": {"managedFields": [{}]}})

    assert "managedFields" not in answer.json["metadata"]
