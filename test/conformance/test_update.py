"""PUT and optimistic locking."""

from agent_sandbox.testing.conformance import Api, config_map, widget


async def test_an_update_replaces_the_object(api: Api) -> None:
    """What the body does not have is gone."""
    created = await api.create(api.config_maps, {**config_map("a"), "data": {"x": "1", "y": "2"}})
    created["data"] = {"x": "3"}
    answer = await api.put(f"{api.config_maps}/a", created)

    assert answer.status == 200
    assert answer.json["data"] == {"x": "3"}
    assert int(answer.json["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


async def test_an_update_that_changes_nothing_keeps_the_version(api: Api) -> None:
    """No write, no event."""
    created = await api.create(api.config_maps, config_map("a"))
    answer = await api.put(f"{api.config_maps}/a", created)

    assert answer.json["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_an_old_version_conflicts(api: Api) -> None:
    """409 asks to read again."""
    created = await api.create(api.config_maps, config_map("a"))
    await api.merge(f"{api.config_maps}/a", {"data": {"x": "1"}})
    created["data"] = {"x": "2"}
    answer = await api.put(f"{api.config_maps}/a", created)

    assert answer.status == 409
    assert answer.json["reason"] == "Conflict"
    assert answer.json["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
        "the latest version and try again"
    )


async def test_built_in_kinds_may_be_updated_without_a_version(api: Api) -> None:
    """The last writer wins if it wants to."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.put(f"{api.config_maps}/a", {**config_map("a"), "data": {"x": "1"}})

    assert answer.status == 200


async def test_custom_kinds_need_a_version(api: Api) -> None:
    """422 names metadata.resourceVersion."""
    await api.create(api.widgets, widget("a"))
    answer = await api.put(f"{api.widgets}/a", widget("a", size=2))

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["field"] == "metadata.resourceVersion"
    assert "must be specified for an update" in answer.json["message"]


async def test_a_missing_object_cannot_be_updated(api: Api) -> None:
    """404: PUT does not create."""
    assert (await api.put(f"{api.config_maps}/a", config_map("a"))).status == 404


async def test_the_bodys_name_must_be_the_paths(api: Api) -> None:
    """400 names both."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.put(f"{api.config_maps}/a", config_map("b"))

    assert answer.status == 400
    assert answer.json["message"] == "the name of the object (b) does not match the name on the URL (a)"


async def test_another_uid_conflicts(api: Api) -> None:
    """An update with a UID is about that very object."""
    created = await api.create(api.config_maps, config_map("a"))
    created["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    answer = await api.put(f"{api.config_maps}/a", created)

    assert answer.status == 409
    assert "UID in precondition" in answer.json["message"]


async def test_another_uid_of_a_custom_resource_conflicts_too(api: Api) -> None:
    """The precondition comes before validation."""
    created = await api.create(api.widgets, widget("a"))
    created["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    answer = await api.put(f"{api.widgets}/a", created)

    assert answer.status == 409


async def test_server_owned_metadata_stays(api: Api) -> None:
    """creationTimestamp and deletionTimestamp are not the client's."""
    created = await api.create(api.config_maps, config_map("a"))
    body = {**config_map("a"), "data": {"x": "1"}}
    body["metadata"] = {"name": "a", "creationTimestamp": "2000-01-01T00:00:00Z"}
    answer = await api.put(f"{api.config_maps}/a", body)

    assert answer.json["metadata"]["creationTimestamp"] == created["metadata"]["creationTimestamp"]
    assert answer.json["metadata"]["uid"] == created["metadata"]["uid"]


async def test_generation_counts_changes_of_the_spec(api: Api) -> None:
    """It starts at 1 and grows by one."""
    created = await api.create(api.widgets, widget("a"))
    changed = (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})).json

    assert created["metadata"]["generation"] == 1
    assert changed["metadata"]["generation"] == 2


async def test_generation_ignores_metadata(api: Api) -> None:
    """Labels are not the spec."""
    await api.create(api.widgets, widget("a"))
    changed = (await api.merge(f"{api.widgets}/a", {"metadata": {"labels": {"x": "y"}}})).json

    assert changed["metadata"]["generation"] == 1


async def test_generation_ignores_status(api: Api) -> None:
    """The status subresource does not count."""
    await api.create(api.widgets, widget("a"))
    changed = (await api.merge(f"{api.widgets}/a/status", {"status": {"replicas": 1}})).json

    assert changed["metadata"]["generation"] == 1


async def test_config_maps_have_no_generation(api: Api) -> None:
    """Kinds without a spec do not count."""
    created = await api.create(api.config_maps, config_map("a"))

    assert "generation" not in created["metadata"]


async def test_dry_run_update_keeps_nothing(api: Api) -> None:
    """The answer shows what would be."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.put(f"{api.config_maps}/a", {**config_map("a"), "data": {"x": "1"}}, dryRun="All")

    assert answer.json["data"] == {"x": "1"}
    assert (await api.get(f"{api.config_maps}/a")).json["data"] == {"key": "value"}


async def test_the_status_subresource_changes_the_status_only(api: Api) -> None:
    """The spec and the labels of the body are ignored."""
    created = await api.create(api.widgets, widget("a"))
    created["spec"]["size"] = 50
    created["metadata"]["labels"] = {"x": "y"}
    created["status"] = {"replicas": 3}
    changed = (await api.put(f"{api.widgets}/a/status", created)).json

    assert changed["status"] == {"replicas": 3}
    assert changed["spec"]["size"] == 1
    assert "labels" not in changed["metadata"]


async def test_the_main_resource_does_not_change_the_status(api: Api) -> None:
    """Neither at creation nor later."""
    created = await api.create(api.widgets, {**widget("a"), "status": {"replicas": 9}})
    assert "status" not in created
    await api.merge(f"{api.widgets}/a/status", {"status": {"replicas": 3}})
    changed = (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}, "status": {"replicas": 9}})).json

    assert changed["status"] == {"replicas": 3}


async def test_the_status_is_checked_by_the_schema(api: Api) -> None:
    """422 for a wrong type."""
    await api.create(api.widgets, widget("a"))
    answer = await api.merge(f"{api.widgets}/a/status", {"status": {"replicas": "many"}})

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["field"] == "status.replicas"
