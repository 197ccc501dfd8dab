"""The generated CustomResourceDefinitions: current, structural, and saying what the models say."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_sandbox_api.agents.v1alpha1 import Sandbox
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import (
    SandboxClaim,
    SandboxTemplate,
    SandboxWarmPool,
)
from agent_sandbox_api.meta import KubeModel

ROOT = Path(__file__).resolve().parents[3]
CRDS = {crd["spec"]["names"]["kind"]: crd for crd in load_crds()}
POD = {"spec": {"containers": [{"name": "main"}]}}
TEMPLATE_REF = {"name": "a-template"}

SMALLEST: dict[type[KubeModel], dict[str, Any]] = {
    Sandbox: {"podTemplate": POD},
    SandboxTemplate: {"podTemplate": POD},
    SandboxClaim: {"sandboxTemplateRef": TEMPLATE_REF, "lifecycle": {}},
    SandboxWarmPool: {
        "replicas": 1,
        "sandboxTemplateRef": TEMPLATE_REF,
        "updateStrategy": {"rollingUpdate": {}},
    },
}


def schema_of(kind: str) -> dict[str, Any]:
    (version,) = CRDS[kind]["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def field_of(kind: str, *path: str) -> dict[str, Any]:
    """The schema of a field; a list is passed through to its items."""
    schema = schema_of(kind)
    for name in path:
        schema = schema["properties"][name]
        if "items" in schema and name != path[-1]:
            schema = schema["items"]
    return schema


def nodes_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes_of(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes_of(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes_of(schema["additionalProperties"], f"{path}.*")


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """What an API server's defaulting makes of a value."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        filled = {name: child["default"] for name, child in properties.items() if "default" in child} | value
        return {name: with_defaults(child, properties.get(name, {})) for name, child in filled.items()}
    if isinstance(value, list):
        return [with_defaults(child, schema.get("items", {})) for child in value]
    return value


def test_the_committed_files_are_what_the_models_say() -> None:
    command = [sys.executable, str(ROOT / "hack" / "generate_crds.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_yaml_for_people_and_the_json_in_the_package_are_the_same_objects() -> None:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    folder = ROOT / "config" / "crd"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    from_yaml = [yaml.load((folder / name).read_text(), Loader=loader) for name in names]
    assert {crd["spec"]["names"]["kind"]: crd for crd in from_yaml} == CRDS


def test_callers_may_change_what_they_loaded() -> None:
    load_crds()[0]["metadata"]["name"] = "changed"
    assert load_crds()[0]["metadata"]["name"] != "changed"


@pytest.mark.parametrize(
    ("kind", "short_name", "scales"),
    [
        ("Sandbox", "sandbox", True),
        ("SandboxTemplate", "sandboxtemplate", False),
        ("SandboxClaim", "sandboxclaim", False),
        ("SandboxWarmPool", "swp", True),
    ],
)
def test_each_kind_has_its_short_name_and_subresources(kind: str, short_name: str, scales: bool) -> None:
    spec = CRDS[kind]["spec"]
    (version,) = spec["versions"]
    assert spec["names"]["shortNames"] == [short_name]
    assert spec["names"]["categories"] == ["agent-sandbox"]
    assert "status" in version["subresources"]
    assert ("scale" in version["subresources"]) is scales


def test_the_columns_are_those_of_the_original_and_more_when_wide() -> None:
    def columns(kind: str) -> list[str]:
        (version,) = CRDS[kind]["spec"]["versions"]
        return [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]

    assert columns("Sandbox") == ["Ready", "Reason", "Age"]
    assert columns("SandboxClaim") == ["Ready", "Sandbox", "Reason", "Age"]
    assert columns("SandboxWarmPool") == ["Ready", "Desired", "Age"]


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_every_node_has_a_type_and_nothing_is_left_unchecked(kind: str) -> None:
    for path, node in nodes_of(schema_of(kind)):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "allOf", "oneOf", "nullable", "x-kubernetes-preserve-unknown-fields"} & node.keys(), path
        if node.get("type") == "object" and path != ".metadata":
            assert "properties" in node or "additionalProperties" in node, path


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_every_list_says_how_it_merges_and_every_key_has_a_value(kind: str) -> None:
    for path, node in nodes_of(schema_of(kind)):
        if node.get("type") != "array":
            continue
        assert node["x-kubernetes-list-type"] in {"atomic", "map", "set"}, path
        for key in node.get("x-kubernetes-list-map-keys", []):
            item = node["items"]
            assert key in item.get("required", []) or "default" in item["properties"][key], f"{path} by {key}"


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_all_our_own_fields_are_described(kind: str) -> None:
    for part in ("spec", "status"):
        for path, node in nodes_of(field_of(kind, part)):
            ours = ".podTemplate.spec" not in path and ".spec." not in path and "gress[]" not in path
            if ours and not path.endswith((".*", "[]")):
                assert node.get("description"), f"{kind}.{part}{path}"


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_each_definition_fits_into_the_annotation_of_a_client_side_apply(kind: str) -> None:
    assert len(json.dumps(CRDS[kind], separators=(",", ":")).encode()) < 262_144


@pytest.mark.parametrize("model", SMALLEST)
def test_the_schema_fills_in_what_the_model_fills_in(model: type[KubeModel]) -> None:
    kind = model.__name__
    smallest = SMALLEST[model]
    by_server = with_defaults(smallest, field_of(kind, "spec"))
    by_model = model.model_validate({"metadata": {}, "spec": smallest}).to_json()["spec"]
    assert by_server == by_model


def test_kubernetes_types_are_spelled_out() -> None:
    pod = field_of("Sandbox", "spec", "podTemplate", "spec")
    container = pod["properties"]["containers"]["items"]["properties"]
    assert pod["properties"]["containers"]["x-kubernetes-list-map-keys"] == ["name"]
    assert container["ports"]["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    assert container["env"]["x-kubernetes-list-map-keys"] == ["name"]
    assert container["readinessProbe"]["properties"]["httpGet"]["properties"]["port"]["x-kubernetes-int-or-string"]
    assert container["resources"]["properties"]["limits"]["additionalProperties"]["x-kubernetes-int-or-string"]
    assert container["livenessProbe"]["properties"]["exec"]["properties"]["command"]["type"] == "array"
    assert pod["properties"]["terminationGracePeriodSeconds"]["format"] == "int64"
    assert pod["properties"]["volumes"]["items"]["required"] == ["name"]


def test_network_policy_rules_are_spelled_out() -> None:
    rule = field_of("SandboxTemplate", "spec", "networkPolicy", "egress")["items"]["properties"]
    assert rule["ports"]["items"]["properties"]["port"]["x-kubernetes-int-or-string"]
    assert rule["to"]["items"]["properties"]["ipBlock"]["required"] == ["cidr"]


def test_edge_265_and_defect_16_changed_volume_claim_templates_are_refused_by_a_rule_that_names_them() -> None:
    rules = field_of("Sandbox", "spec")["x-kubernetes-validations"]
    (immutable,) = [rule for rule in rules if "oldSelf" in rule["rule"]]
    assert immutable["fieldPath"] == ".volumeClaimTemplates"
    assert "immutable" in immutable["message"]
