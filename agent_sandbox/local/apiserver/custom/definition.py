"""The CustomResourceDefinition kind itself: defaults, checks, and the status that makes it established."""

from typing import Any, Final

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.resource_type import Column, JsonObject, ResourceType, Strategy, WriteContext
from agent_sandbox.local.apiserver.schema import rule_definition_causes

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def _default(value: JsonObject) -> None:
    spec = value.get("spec") or {}
    names = spec.get("names") or {}
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {"strategy": "None"})


def _establish(value: JsonObject, context: WriteContext) -> None:
    spec = value.get("spec") or {}
    storage = [version.get("name", "") for version in spec.get("versions") or [] if version.get("storage")]
    value["status"] = {
        "acceptedNames": spec.get("names") or {},
        "conditions": [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found", context.now),
            _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", context.now),
        ],
        "storedVersions": storage,
    }


def _hold_for_cleanup(value: JsonObject) -> None:
    """A definition waits until its objects are gone."""
    finalizers = value["metadata"].setdefault("finalizers", [])
    if CLEANUP_FINALIZER not in finalizers:
        finalizers.append(CLEANUP_FINALIZER)


def _condition(kind: str, reason: str, message: str, now: str) -> dict[str, Any]:
    return {"lastTransitionTime": now, "message": message, "reason": reason, "status": "True", "type": kind}


def _keep_established(value: JsonObject, old: JsonObject, _context: WriteContext) -> None:
    status = value.get("status") or {}
    spec = value.get("spec") or {}
    status["acceptedNames"] = spec.get("names") or {}
    stored = status.setdefault("storedVersions", [])
    for version in spec.get("versions") or []:
        if version.get("storage") and version.get("name", "") not in stored:
            stored.append(version.get("name", ""))
    value["status"] = status


def _causes(value: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = value.get("spec") or {}
    names = spec.get("names") or {}
    causes = [Cause.required(f"spec.{field}") for field in ("group", "scope") if not spec.get(field)]
    causes += [Cause.required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
    if spec.get("scope") and spec["scope"] not in {"Cluster", "Namespaced"}:
        causes.append(Cause.unsupported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
    expected = f"{names.get('plural')}.{spec.get('group')}"
    if names.get("plural") and spec.get("group") and value["metadata"].get("name") != expected:
        detail = 'must be spec.names.plural+"."+spec.group'
        causes.append(Cause.invalid("metadata.name", value["metadata"].get("name"), detail))
    causes += _version_causes(spec.get("versions") or [])
    if old is not None:
        causes += _immutable_causes(spec, old["spec"])
    return causes


def _version_causes(versions: list[JsonObject]) -> list[Cause]:
    causes = []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        causes.append(Cause.invalid("spec.versions", versions, detail))
    for index, version in enumerate(versions):
        causes += _missing_parts(version, f"spec.versions[{index}]")
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(Cause.required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
        else:
            path = f"spec.versions[{index}].schema.openAPIV3Schema"
            causes += rule_definition_causes(version["schema"]["openAPIV3Schema"], path)
    return causes


def _missing_parts(version: JsonObject, path: str) -> list[Cause]:
    """What the kind cannot be served without; a definition that lacks it would be in the way of all others."""
    causes = [] if version.get("name") else [Cause.required(f"{path}.name")]
    scale = (version.get("subresources") or {}).get("scale")
    if scale is not None:
        causes += _required(scale, f"{path}.subresources.scale", _SCALE_PARTS)
    for field, wanted in _LISTED_PARTS.items():
        for index, part in enumerate(version.get(field) or []):
            causes += _required(part, f"{path}.{field}[{index}]", wanted)
    return causes


# By their names, how Kubernetes writes them where they are missing.
_SCALE_PARTS: Final = {name: name for name in ("specReplicasPath", "statusReplicasPath")}
_LISTED_PARTS: Final = {
    "additionalPrinterColumns": {"name": "name", "type": "type", "jsonPath": "JSONPath"},
    "selectableFields": {"jsonPath": "jsonPath"},
}


def _required(part: JsonObject, path: str, wanted: dict[str, str]) -> list[Cause]:
    return [Cause.required(f"{path}.{written}") for name, written in wanted.items() if not part.get(name)]


def _immutable_causes(spec: JsonObject, old: JsonObject) -> list[Cause]:
    causes = []
    pairs = [("spec.group", spec.get("group"), old.get("group")), ("spec.scope", spec.get("scope"), old.get("scope"))]
    pairs += [
        (f"spec.names.{field}", spec.get("names", {}).get(field), old["names"].get(field))
        for field in ("plural", "kind")
    ]
    for field, new_value, old_value in pairs:
        if new_value != old_value:
            causes.append(Cause.invalid(field, new_value, "field is immutable"))
    return causes


CUSTOM_RESOURCE_DEFINITIONS = ResourceType(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    subresources=frozenset({"status"}),
    strategy=Strategy(
        default=_default,
        prepare_create=_establish,
        prepare_update=_keep_established,
        validate=_causes,
        prepare_delete=_hold_for_cleanup,
        unconditional_update=False,
        generation=True,
    ),
    columns=(
        Column("Name", lambda value: value["metadata"]["name"], format="name"),
        Column("Created At", lambda value: value["metadata"].get("creationTimestamp"), "date"),
    ),
)
