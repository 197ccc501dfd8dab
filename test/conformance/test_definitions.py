"""CustomResourceDefinitions."""

from typing import Any
from uuid import uuid4

import pytest

from agent_sandbox.testing.conformance import Api, is_established

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _definition() -> dict[str, Any]:
    group = f"g{uuid4().hex[:8]}.agents.dev"
    return {
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
                }
            ],
        },
    }


async def _create(api: Api) -> dict[str, Any]:
    created = await api.create(_PATH, _definition())
    api.cluster_objects.append(f"{_PATH}/{created['metadata']['name']}")
    return await api.wait_for(_PATH, created["metadata"]["name"], is_established)


async def test_a_definition_is_established(api: Api) -> None:
    """Names are accepted and completed, the version is stored."""
    definition = await _create(api)

    assert definition["status"]["storedVersions"] == ["v1"]
    assert definition["status"]["acceptedNames"]["singular"] == "thing"
    assert definition["status"]["acceptedNames"]["listKind"] == "ThingList"
    assert definition["spec"]["conversion"] == {"strategy": "None"}


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"additionalPrinterColumns": [{"type": "string", "jsonPath": ".spec.a"}]}, "additionalPrinterColumns[0].name"),
        ({"additionalPrinterColumns": [{"name": "A", "jsonPath": ".a"}]}, "additionalPrinterColumns[0].type"),
        ({"additionalPrinterColumns": [{"name": "A", "type": "string"}]}, "additionalPrinterColumns[0].JSONPath"),
        (
            {"subresources": {"scale": {"specReplicasPath": ".spec.a"}}},
            "subresources.scale.statusReplicasPath",
        ),
    ],
)
async def test_a_definition_that_lacks_a_part_is_refused(api: Api, part: dict[str, Any], field: str) -> None:
    definition = _definition()
    definition["spec"]["versions"][0] |= part
    answer = await api.request("POST", _PATH, definition)

    assert answer.status == 422
    assert any(cause["field"].endswith(field) for cause in answer.json["details"]["causes"])


async def test_a_deleted_definition_takes_its_objects_along(api: Api) -> None:
    """And its paths."""
    definition = await _create(api)
    name, group = definition["metadata"]["name"], definition["spec"]["group"]
    path = f"/apis/{group}/v1/namespaces/{api.namespace}/things"
    # Kubernetes lists the objects of a kind that goes; of one that nobody has read yet it cannot for some minutes.
    await api.wait_served(definition)
    await api.delete(f"{_PATH}/{name}")
    await api.wait_gone(_PATH, name)

    assert (await api.get(path)).status in {200, 404}


def _without_schema(definition: dict[str, Any]) -> None:
    del definition["spec"]["versions"][0]["schema"]


def _wrong_name(definition: dict[str, Any]) -> None:
    definition["metadata"]["name"] = "others.example.com"


def _two_storages(definition: dict[str, Any]) -> None:
    definition["spec"]["versions"].append({**definition["spec"]["versions"][0], "name": "v2"})


def _broken_rule(definition: dict[str, Any]) -> None:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["x-kubernetes-validations"] = [{"rule": "self.a ==", "message": "x"}]


def _wrong_scope(definition: dict[str, Any]) -> None:
    definition["spec"]["scope"] = "Galaxy"


@pytest.mark.parametrize("spoil", [_without_schema, _wrong_name, _two_storages, _broken_rule, _wrong_scope])
async def test_a_broken_definition_is_refused(api: Api, spoil: Any) -> None:
    """422."""
    body = _definition()
    spoil(body)

    assert (await api.request("POST", _PATH, body)).status == 422


async def test_the_group_of_a_definition_cannot_change(api: Api) -> None:
    """422."""
    definition = await _create(api)
    answer = await api.merge(f"{_PATH}/{definition['metadata']['name']}", {"spec": {"scope": "Cluster"}})

    assert answer.status == 422
    assert answer.json["details"]["causes"][0]["field"] == "spec.scope"
