"""Owners and dependents. A real server needs its controller manager for these."""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import Api, config_map

JsonObject = dict[str, Any]


def _owned(name: str, *owners: JsonObject, block: bool = True) -> JsonObject:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    return config_map(name, ownerReferences=references)


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_dependents_go_with_their_owner(api: Api, policy: str) -> None:
    """Down to the last generation."""
    owner = await api.create(api.config_maps, config_map("owner"))
    child = await api.create(api.config_maps, _owned("child", owner))
    await api.create(api.config_maps, _owned("grandchild", child))
    await api.delete(f"{api.config_maps}/owner", {"propagationPolicy": policy})

    for name in ("grandchild", "child", "owner"):
        await api.wait_gone(api.config_maps, name)


async def test_background_is_the_default(api: Api) -> None:
    """The owner goes at once, its dependents follow."""
    owner = await api.create(api.config_maps, config_map("owner"))
    await api.create(api.config_maps, _owned("child", owner))
    await api.delete(f"{api.config_maps}/owner")

    assert (await api.get(f"{api.config_maps}/owner")).status == 404
    await api.wait_gone(api.config_maps, "child")


async def test_foreground_waits_for_blocking_dependents(api: Api) -> None:
    """The owner is marked and held by a finalizer until they are gone."""
    owner = await api.create(api.config_maps, config_map("owner"))
    held = _owned("child", owner)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(api.config_maps, held)
    marked = (await api.delete(f"{api.config_maps}/owner", {"propagationPolicy": "Foreground"})).json

    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.wait_for(api.config_maps, "child", lambda child: "deletionTimestamp" in child["metadata"])
    assert (await api.get(f"{api.config_maps}/owner")).status == 200
    await api.merge(f"{api.config_maps}/child", {"metadata": {"finalizers": None}})
    await api.wait_gone(api.config_maps, "owner")


async def test_foreground_does_not_wait_for_others(api: Api) -> None:
    """A dependent without blockOwnerDeletion holds nothing."""
    owner = await api.create(api.config_maps, config_map("owner"))
    held = _owned("child", owner, block=False)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(api.config_maps, held)
    await api.delete(f"{api.config_maps}/owner", {"propagationPolicy": "Foreground"})

    await api.wait_gone(api.config_maps, "owner")
    await api.wait_for(api.config_maps, "child", lambda child: "deletionTimestamp" in child["metadata"])
    await api.merge(f"{api.config_maps}/child", {"metadata": {"finalizers": None}})


async def test_orphans_lose_the_reference_and_stay(api: Api) -> None:
    """propagationPolicy Orphan."""
    owner = await api.create(api.config_maps, config_map("owner"))
    await api.create(api.config_maps, _owned("child", owner))
    await api.delete(f"{api.config_maps}/owner", {"propagationPolicy": "Orphan"})

    await api.wait_gone(api.config_maps, "owner")
    child = (await api.get(f"{api.config_maps}/child")).json
    assert "ownerReferences" not in child["metadata"]


async def test_one_living_owner_is_enough(api: Api) -> None:
    """The reference to the dead one is dropped."""
    first = await api.create(api.config_maps, config_map("first"))
    second = await api.create(api.config_maps, config_map("second"))
    await api.create(api.config_maps, _owned("child", first, second))
    await api.delete(f"{api.config_maps}/first", {"propagationPolicy": "Background"})

    child = await api.wait_for(api.config_maps, "child", lambda child: len(child["metadata"]["ownerReferences"]) == 1)
    assert child["metadata"]["ownerReferences"][0]["name"] == "second"


async def test_an_owner_that_never_was_takes_the_dependent_along(api: Api) -> None:
    """A reference to a UID that does not exist is a dead owner."""
    owner = await api.create(api.config_maps, config_map("owner"))
    body = _owned("child", owner)
    body["metadata"]["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000"
    await api.create(api.config_maps, body)

    await api.wait_gone(api.config_maps, "child")


async def test_a_namesake_is_no_owner(api: Api) -> None:
    """Owners are known by UID."""
    owner = await api.create(api.config_maps, config_map("owner"))
    await api.delete(f"{api.config_maps}/owner")
    await api.create(api.config_maps, config_map("owner"))
    await api.create(api.config_maps, _owned("child", owner))

    await api.wait_gone(api.config_maps, "child")
    assert (await api.get(f"{api.config_maps}/owner")).status == 200


async def test_two_controllers_are_refused(api: Api) -> None:
    """Only one owner may be the controller."""
    owner = await api.create(api.config_maps, config_map("owner"))
    body = _owned("child", owner, owner)
    for index, reference in enumerate(body["metadata"]["ownerReferences"]):
        reference |= {"controller": True, "name": f"owner{index}", "uid": f"{index}"}
    answer = await api.request("POST", api.config_maps, body)

    assert answer.status == 422
    assert "Only one reference can have Controller set to true" in answer.json["message"]


async def test_an_owner_reference_needs_all_its_parts(api: Api) -> None:
    """apiVersion, kind, name and uid."""
    body = config_map("child", ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": ""}])
    answer = await api.request("POST", api.config_maps, body)

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["field"] == "metadata.ownerReferences[0].uid" or (
        "ownerReferences" in answer.json["details"]["causes"][0]["field"]
    )
