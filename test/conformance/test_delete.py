"""DELETE: preconditions, finalizers, collections."""

from agent_sandbox.testing.conformance import Api, config_map, widget


async def test_a_delete_of_a_plain_object_answers_success(api: Api) -> None:
    """A Status that names what went."""
    created = await api.create(api.config_maps, config_map("a"))
    answer = await api.delete(f"{api.config_maps}/a")

    assert answer.status == 200
    assert answer.json["kind"] == "Status"
    assert answer.json["status"] == "Success"
    assert answer.json["details"] == {"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]}
    assert (await api.get(f"{api.config_maps}/a")).status == 404


async def test_a_missing_object_cannot_be_deleted(api: Api) -> None:
    """404."""
    assert (await api.delete(f"{api.config_maps}/a")).status == 404


async def test_another_uid_keeps_the_object(api: Api) -> None:
    """409 names both UIDs."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.delete(f"{api.config_maps}/a", {"preconditions": {"uid": "other"}})

    assert answer.status == 409
    assert "the UID in the precondition (other) does not match" in answer.json["message"]
    assert (await api.get(f"{api.config_maps}/a")).status == 200


async def test_the_right_uid_deletes(api: Api) -> None:
    """The precondition holds."""
    created = await api.create(api.config_maps, config_map("a"))
    answer = await api.delete(f"{api.config_maps}/a", {"preconditions": {"uid": created["metadata"]["uid"]}})

    assert answer.status == 200


async def test_an_old_version_keeps_the_object(api: Api) -> None:
    """409 names both versions."""
    created = await api.create(api.config_maps, config_map("a"))
    await api.merge(f"{api.config_maps}/a", {"data": {"x": "1"}})
    version = created["metadata"]["resourceVersion"]
    answer = await api.delete(f"{api.config_maps}/a", {"preconditions": {"resourceVersion": version}})

    assert answer.status == 409
    assert f"the ResourceVersion in the precondition ({version}) does not match" in answer.json["message"]


async def test_a_finalizer_holds_the_object(api: Api) -> None:
    """It is marked, and answers with itself."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/hold"]))
    answer = await api.delete(f"{api.config_maps}/a")

    assert answer.json["kind"] == "ConfigMap"
    assert answer.json["metadata"]["deletionTimestamp"]
    assert answer.json["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await api.get(f"{api.config_maps}/a")).status == 200
    await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})


async def test_the_last_finalizer_lets_it_go(api: Api) -> None:
    """Removing it ends the object at once."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/hold"]))
    await api.delete(f"{api.config_maps}/a")
    answer = await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": []}})

    assert answer.status == 200
    assert (await api.get(f"{api.config_maps}/a")).status == 404


async def test_a_deleting_object_gains_no_finalizer(api: Api) -> None:
    """422 says why."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/hold"]))
    await api.delete(f"{api.config_maps}/a")
    patch = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    answer = await api.merge(f"{api.config_maps}/a", patch)

    assert answer.status == 422
    assert "no new finalizers can be added if the object is being deleted" in answer.json["message"]
    await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})


async def test_a_second_delete_of_a_held_object_changes_nothing(api: Api) -> None:
    """The first mark stays."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/hold"]))
    first = await api.delete(f"{api.config_maps}/a")
    second = await api.delete(f"{api.config_maps}/a")

    assert second.json["metadata"]["deletionTimestamp"] == first.json["metadata"]["deletionTimestamp"]
    assert second.json["metadata"]["resourceVersion"] == first.json["metadata"]["resourceVersion"]
    await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})


async def test_a_held_object_can_still_be_changed(api: Api) -> None:
    """Deleting is not read-only."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/hold"]))
    await api.delete(f"{api.config_maps}/a")
    answer = await api.merge(f"{api.config_maps}/a", {"data": {"x": "1"}})

    assert answer.status == 200
    await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})


async def test_marking_counts_as_a_generation(api: Api) -> None:
    """A kind that counts generations counts the mark."""
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(api.widgets, body)
    marked = (await api.delete(f"{api.widgets}/a")).json

    assert marked["metadata"]["generation"] == 2
    await api.merge(f"{api.widgets}/a", {"metadata": {"finalizers": None}})


async def test_a_dry_run_delete_keeps_the_object(api: Api) -> None:
    """Nothing happens."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.delete(f"{api.config_maps}/a", dryRun="All")

    assert answer.status == 200
    assert (await api.get(f"{api.config_maps}/a")).status == 200


async def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    """Only what matches goes."""
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        body = widget(name)
        body["metadata"]["labels"] = {"colour": colour}
        await api.create(api.widgets, body)
    answer = await api.delete(api.widgets, labelSelector="colour=red")

    assert answer.status == 200
    assert (await api.get(api.widgets)).names == ["b"]


async def test_a_name_can_be_used_again(api: Api) -> None:
    """The new object is another one."""
    first = await api.create(api.config_maps, config_map("a"))
    await api.delete(f"{api.config_maps}/a")
    second = await api.create(api.config_maps, config_map("a"))

    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_an_unknown_propagation_policy_is_refused(api: Api) -> None:
    """There are three."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.delete(f"{api.config_maps}/a", {"propagationPolicy": "Sideways"})

    assert answer.status in {400, 422}


async def test_options_may_come_by_query(api: Api) -> None:
    """propagationPolicy in the URL works like in the body."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.delete(f"{api.config_maps}/a", propagationPolicy="Orphan")

    assert answer.status == 200
