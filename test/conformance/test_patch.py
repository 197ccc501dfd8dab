"""PATCH in its four kinds."""

import pytest

from agent_sandbox.testing.conformance import Api, config_map, pod, widget


async def test_a_merge_patch_merges_objects(api: Api) -> None:
    """Other keys stay."""
    await api.create(api.config_maps, {**config_map("a"), "data": {"x": "1", "y": "2"}})
    changed = (await api.merge(f"{api.config_maps}/a", {"data": {"x": "3"}})).json

    assert changed["data"] == {"x": "3", "y": "2"}


async def test_a_merge_patch_removes_by_null(api: Api) -> None:
    """RFC 7386."""
    await api.create(api.config_maps, {**config_map("a"), "data": {"x": "1", "y": "2"}})
    changed = (await api.merge(f"{api.config_maps}/a", {"data": {"x": None}})).json

    assert changed["data"] == {"y": "2"}


async def test_a_merge_patch_replaces_lists(api: Api) -> None:
    """Lists are values."""
    await api.create(api.widgets, widget("a", plain=["x", "y"]))
    changed = (await api.merge(f"{api.widgets}/a", {"spec": {"plain": ["z"]}})).json

    assert changed["spec"]["plain"] == ["z"]


async def test_a_merge_patch_with_an_old_version_conflicts(api: Api) -> None:
    """A resourceVersion in a patch is a precondition."""
    created = await api.create(api.widgets, widget("a"))
    await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})
    version = created["metadata"]["resourceVersion"]
    answer = await api.merge(f"{api.widgets}/a", {"metadata": {"resourceVersion": version}, "spec": {"size": 3}})

    assert answer.status == 409


async def test_a_merge_patch_with_another_uid_is_refused(api: Api) -> None:
    """A UID cannot change."""
    await api.create(api.widgets, widget("a"))
    answer = await api.merge(f"{api.widgets}/a", {"metadata": {"uid": "other"}, "spec": {"size": 3}})

    assert answer.status == 422
    assert "metadata.uid" in answer.json["message"]


async def test_a_merge_patch_of_a_built_in_kind_with_another_uid_is_refused_alike(api: Api) -> None:
    """Not a conflict, as an update would be: 422 with a cause that names the field."""
    await api.create(api.config_maps, config_map("a"))
    answer = await api.merge(f"{api.config_maps}/a", {"metadata": {"uid": "other"}, "data": {"x": "1"}})

    assert answer.status == 422
    assert "metadata.uid" in [cause["field"] for cause in answer.json["details"]["causes"]]


async def test_a_patch_of_a_missing_object_is_not_found(api: Api) -> None:
    """404."""
    assert (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})).status == 404


async def test_a_patch_cannot_rename(api: Api) -> None:
    """metadata.name is fixed."""
    await api.create(api.widgets, widget("a"))
    answer = await api.merge(f"{api.widgets}/a", {"metadata": {"name": "b"}})

    assert answer.status in {400, 422}


async def test_a_merge_patch_must_be_an_object(api: Api) -> None:
    """400 for a list."""
    await api.create(api.widgets, widget("a"))

    assert (await api.merge(f"{api.widgets}/a", [1])).status == 400


async def test_a_patch_that_changes_nothing_keeps_the_version(api: Api) -> None:
    """No write, no event."""
    created = await api.create(api.widgets, widget("a"))
    changed = (await api.merge(f"{api.widgets}/a", {"spec": {"size": 1}})).json

    assert changed["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_a_json_patch_adds_replaces_and_removes(api: Api) -> None:
    """RFC 6902, in order."""
    await api.create(api.widgets, widget("a", plain=["x"], text="abc"))
    operations = [
        {"op": "add", "path": "/spec/plain/-", "value": "y"},
        {"op": "replace", "path": "/spec/size", "value": 7},
        {"op": "remove", "path": "/spec/text"},
    ]
    changed = (await api.json_patch(f"{api.widgets}/a", operations)).json

    assert changed["spec"]["plain"] == ["x", "y"]
    assert changed["spec"]["size"] == 7
    assert "text" not in changed["spec"]


async def test_a_failed_test_operation_changes_nothing(api: Api) -> None:
    """422, and the operations before it have no effect."""
    await api.create(api.widgets, widget("a"))
    operations = [
        {"op": "replace", "path": "/spec/size", "value": 7},
        {"op": "test", "path": "/spec/colour", "value": "blue"},
    ]
    answer = await api.json_patch(f"{api.widgets}/a", operations)

    assert answer.status == 422
    assert (await api.get(f"{api.widgets}/a")).json["spec"]["size"] == 1


async def test_a_json_patch_of_a_missing_path_is_refused(api: Api) -> None:
    """422."""
    await api.create(api.widgets, widget("a"))

    assert (await api.json_patch(f"{api.widgets}/a", [{"op": "remove", "path": "/spec/nothing"}])).status == 422


async def test_a_json_patch_must_be_a_list(api: Api) -> None:
    """400 for an object."""
    await api.create(api.widgets, widget("a"))

    assert (await api.json_patch(f"{api.widgets}/a", {"op": "remove"})).status == 400


async def test_a_json_patch_escapes_slashes(api: Api) -> None:
    """~1 is a slash."""
    await api.create(api.widgets, {**widget("a"), "metadata": {"name": "a", "labels": {"a.b/c": "1"}}})
    operations = [{"op": "replace", "path": "/metadata/labels/a.b~1c", "value": "2"}]
    changed = (await api.json_patch(f"{api.widgets}/a", operations)).json

    assert changed["metadata"]["labels"] == {"a.b/c": "2"}


async def test_a_strategic_patch_merges_containers_by_name(api: Api) -> None:
    """The other fields of the container stay."""
    await api.create(api.pods, pod("a"))
    patch = {"spec": {"containers": [{"name": "main", "image": "registry.example/app:2"}]}}
    changed = (await api.strategic(f"{api.pods}/a", patch)).json

    (container,) = changed["spec"]["containers"]
    assert container["image"] == "registry.example/app:2"
    assert container["imagePullPolicy"] == "IfNotPresent"


async def test_a_strategic_patch_merges_finalizers(api: Api) -> None:
    """A set of strings grows."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/one"]))
    changed = (await api.strategic(f"{api.config_maps}/a", {"metadata": {"finalizers": ["example.com/two"]}})).json

    assert set(changed["metadata"]["finalizers"]) == {"example.com/one", "example.com/two"}
    await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})


async def test_a_strategic_patch_deletes_from_a_primitive_list(api: Api) -> None:
    """$deleteFromPrimitiveList takes entries out."""
    await api.create(api.config_maps, config_map("a", finalizers=["example.com/one", "example.com/two"]))
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/one"]}}
    changed = (await api.strategic(f"{api.config_maps}/a", patch)).json

    assert changed["metadata"]["finalizers"] == ["example.com/two"]
    await api.merge(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})


async def test_a_strategic_patch_deletes_an_item(api: Api) -> None:
    """$patch: delete takes the item with that key out."""
    service = {
        "metadata": {"name": "a"},
        "spec": {"ports": [{"name": "x", "port": 1}, {"name": "y", "port": 2}], "selector": {"a": "b"}},
    }
    await api.create(f"{api.core}/services", service)
    patch = {"spec": {"ports": [{"port": 1, "$patch": "delete"}]}}
    changed = (await api.strategic(f"{api.core}/services/a", patch)).json

    assert [port["name"] for port in changed["spec"]["ports"]] == ["y"]


async def test_a_strategic_patch_replaces_a_map(api: Api) -> None:
    """$patch: replace drops what was there."""
    await api.create(api.config_maps, {**config_map("a"), "data": {"x": "1"}})
    changed = (await api.strategic(f"{api.config_maps}/a", {"data": {"$patch": "replace", "y": "2"}})).json

    assert changed["data"] == {"y": "2"}


async def test_a_strategic_patch_sets_the_order(api: Api) -> None:
    """$setElementOrder arranges the merged list."""
    body = pod("a")
    body["spec"]["containers"] = [{"name": "x", "image": "i:1"}, {"name": "y", "image": "i:1"}]
    await api.create(api.pods, body)
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "x"}, {"name": "y"}],
            "containers": [{"name": "y", "image": "i:2"}],
        }
    }
    changed = (await api.strategic(f"{api.pods}/a", patch)).json

    assert [(entry["name"], entry["image"]) for entry in changed["spec"]["containers"]] == [("x", "i:1"), ("y", "i:2")]


async def test_custom_kinds_have_no_strategic_patch(api: Api) -> None:
    """415 lists what is accepted."""
    await api.create(api.widgets, widget("a"))
    answer = await api.strategic(f"{api.widgets}/a", {"spec": {"size": 2}})

    assert answer.status == 415
    assert "application/merge-patch+json" in answer.json["message"]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
async def test_a_patch_needs_a_patch_type(api: Api, content_type: str) -> None:
    """415 for anything else."""
    await api.create(api.widgets, widget("a"))
    answer = await api.request("PATCH", f"{api.widgets}/a", {"spec": {"size": 2}}, content_type=content_type)

    assert answer.status == 415


async def test_a_dry_run_patch_keeps_nothing(api: Api) -> None:
    """The answer shows what would be."""
    await api.create(api.widgets, widget("a"))
    answer = await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}}, dryRun="All")

    assert answer.json["spec"]["size"] == 2
    assert (await api.get(f"{api.widgets}/a")).json["spec"]["size"] == 1


async def test_a_json_patch_cannot_replace_the_object_by_something_else(api: Api) -> None:
    """An object stays an object."""
    await api.create(api.widgets, widget("a"))
    answer = await api.json_patch(f"{api.widgets}/a", [{"op": "replace", "path": "", "value": 5}])

    assert 400 <= answer.status < 500
