"""Discovery, OpenAPI, versions and health."""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import AGGREGATED_DISCOVERY, Api

GROUP = "conformance.agents.dev"


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
async def test_health_is_ok(api: Api, path: str) -> None:
    """Plain text."""
    answer = await api.get(path)

    assert (answer.status, answer.body) == (200, b"ok")


async def test_the_version_is_told(api: Api) -> None:
    """major, minor and gitVersion, as clients parse them."""
    version = (await api.get("/version")).json

    assert version["major"] == "1"
    assert int(version["minor"].rstrip("+")) >= 30
    assert version["gitVersion"].startswith("v1.")


async def test_the_core_group_has_versions(api: Api) -> None:
    """/api."""
    answer = (await api.get("/api")).json

    assert answer["kind"] == "APIVersions"
    assert answer["versions"] == ["v1"]


async def test_groups_are_listed(api: Api) -> None:
    """/apis, with the preferred version of each."""
    groups = {group["name"]: group for group in (await api.get("/apis")).json["groups"]}

    assert groups[GROUP]["preferredVersion"] == {"groupVersion": f"{GROUP}/v1", "version": "v1"}
    assert [version["version"] for version in groups[GROUP]["versions"]] == ["v1", "v1beta1"]
    assert {"apps", "coordination.k8s.io", "networking.k8s.io", "apiextensions.k8s.io"} <= set(groups)


async def test_one_group_can_be_read(api: Api) -> None:
    """/apis/<group>."""
    answer = (await api.get(f"/apis/{GROUP}")).json

    assert (answer["kind"], answer["name"]) == ("APIGroup", GROUP)


async def test_an_unknown_group_is_not_found(api: Api) -> None:
    """404."""
    assert (await api.get("/apis/nobody.example")).status == 404
    assert (await api.get("/apis/nobody.example/v1")).status == 404


def _resource(answer: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [resource for resource in answer["resources"] if resource["name"] == name]
    return dict(found)


async def test_the_resources_of_a_custom_group_are_listed(api: Api) -> None:
    """Names, short names, categories and verbs."""
    resource = _resource((await api.get(f"/apis/{GROUP}/v1")).json, "widgets")

    assert resource["kind"] == "Widget"
    assert resource["singularName"] == "widget"
    assert resource["namespaced"] is True
    assert resource["shortNames"] == ["wd"]
    assert resource["categories"] == ["conformance"]
    assert resource["verbs"] == [
        "delete", "deletecollection", "get", "list", "patch", "create", "update", "watch",
    ]  # fmt: skip


async def test_subresources_are_listed(api: Api) -> None:
    """status has the kind, scale is autoscaling/v1."""
    answer = (await api.get(f"/apis/{GROUP}/v1")).json
    scale = _resource(answer, "widgets/scale")

    assert _resource(answer, "widgets/status")["kind"] == "Widget"
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


@pytest.mark.parametrize(
    ("name", "kind", "namespaced", "short"),
    [
        ("pods", "Pod", True, "po"),
        ("services", "Service", True, "svc"),
        ("namespaces", "Namespace", False, "ns"),
        ("configmaps", "ConfigMap", True, "cm"),
        ("persistentvolumeclaims", "PersistentVolumeClaim", True, "pvc"),
        ("events", "Event", True, "ev"),
        ("nodes", "Node", False, "no"),
    ],
)
async def test_core_resources_are_listed(api: Api, name: str, kind: str, namespaced: bool, short: str) -> None:
    """/api/v1."""
    resource = _resource((await api.get("/api/v1")).json, name)

    assert (resource["kind"], resource["namespaced"]) == (kind, namespaced)
    assert short in resource["shortNames"]


@pytest.mark.parametrize("name", ["pods/log", "pods/exec", "pods/attach", "pods/portforward", "pods/status"])
async def test_subresources_of_pods_are_listed(api: Api, name: str) -> None:
    """What kubectl needs."""
    assert _resource((await api.get("/api/v1")).json, name)["namespaced"] is True


async def test_aggregated_discovery_has_everything_at_once(api: Api) -> None:
    """One answer for all groups, if the client accepts it."""
    answer = await api.request("GET", "/apis", accept=AGGREGATED_DISCOVERY)

    assert "as=APIGroupDiscoveryList" in answer.headers["Content-Type"]
    assert answer.json["apiVersion"] == "apidiscovery.k8s.io/v2"
    (group,) = [item for item in answer.json["items"] if item["metadata"]["name"] == GROUP]
    (resource,) = [entry for entry in group["versions"][0]["resources"] if entry["resource"] == "widgets"]
    assert resource["responseKind"] == {"group": GROUP, "version": "v1", "kind": "Widget"}
    assert resource["scope"] == "Namespaced"
    assert {entry["subresource"] for entry in resource["subresources"]} == {"status", "scale"}


async def test_aggregated_discovery_of_the_core_group(api: Api) -> None:
    """/api in the same form."""
    items = (await api.request("GET", "/api", accept=AGGREGATED_DISCOVERY)).json["items"]

    assert "pods" in {entry["resource"] for entry in items[0]["versions"][0]["resources"]}


async def test_openapi_lists_its_documents(api: Api) -> None:
    """/openapi/v3."""
    paths = (await api.get("/openapi/v3")).json["paths"]

    assert paths[f"apis/{GROUP}/v1"]["serverRelativeURL"].startswith(f"/openapi/v3/apis/{GROUP}/v1?hash=")
    assert "api/v1" in paths


async def test_openapi_describes_a_custom_kind(api: Api) -> None:
    """Under the reversed group, with its kind and descriptions."""
    document = (await api.get(f"/openapi/v3/apis/{GROUP}/v1")).json
    schema = document["components"]["schemas"]["dev.agents.conformance.v1.Widget"]

    assert schema["x-kubernetes-group-version-kind"] == [{"group": GROUP, "kind": "Widget", "version": "v1"}]
    assert schema["properties"]["spec"]["properties"]["size"]["description"] == "How big it is."


async def test_openapi_describes_operations(api: Api) -> None:
    """kubectl looks for fieldValidation in the patch operation."""
    document = (await api.get(f"/openapi/v3/apis/{GROUP}/v1")).json
    operation = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets/{{name}}"]["patch"]

    assert operation["x-kubernetes-group-version-kind"]["kind"] == "Widget"
    assert {"fieldValidation", "dryRun", "fieldManager", "force"} <= {
        parameter["name"] for parameter in operation["parameters"]
    }


async def test_openapi_describes_pods_with_merge_keys(api: Api) -> None:
    """kubectl apply computes strategic patches by them."""
    schemas = (await api.get("/openapi/v3/api/v1")).json["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]

    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert {"group": "", "kind": "Pod", "version": "v1"} in schemas["io.k8s.api.core.v1.Pod"][
        "x-kubernetes-group-version-kind"
    ]
