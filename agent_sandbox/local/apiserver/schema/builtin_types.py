"""Kubernetes' own types, from the generated file: as OpenAPI definitions, and compiled for checking objects."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from agent_sandbox.local.apiserver.schema.node import QUANTITY, Schema, compile_schema

JsonObject = dict[str, Any]

_FILE: Final = Path(__file__).with_name("builtin_types.json")
_REFERENCE: Final = "#/components/schemas/"
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
_ANY: Final[JsonObject] = {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
# Types whose inside is not looked at here: they refer to themselves, or are checked by other rules.
_OPAQUE: Final = frozenset(
    {"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps", f"{_META}.FieldsV1"}
)
_INT_OR_STRING: Final[JsonObject] = {"x-kubernetes-int-or-string": True}
_LEAVES: Final[dict[str, JsonObject]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _INT_OR_STRING,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {**_INT_OR_STRING, "format": QUANTITY},
}


@cache
def builtin_definitions() -> dict[str, JsonObject]:
    """Every definition by its OpenAPI name. Reads a packaged file of some 400 kB on first use."""
    definitions: dict[str, JsonObject] = msgspec.json.decode(_FILE.read_bytes())
    return definitions


@cache
def builtin_definition(group: str, version: str, kind: str) -> str | None:
    """The OpenAPI name of a built-in kind's definition."""
    wanted = {"group": group, "kind": kind, "version": version}
    for name, definition in builtin_definitions().items():
        if wanted in definition.get("x-kubernetes-group-version-kind", ()):
            return name
    return None


@cache
def builtin_schema(group: str, version: str, kind: str) -> Schema | None:
    """A built-in kind's schema for pruning, type checks and server-side apply; None if there is no such kind.

    Fields that must be given are the business of each kind's own checks, as in Kubernetes.
    """
    name = builtin_definition(group, version, kind)
    return compile_schema(_resolved({"$ref": _REFERENCE + name})) if name else None


@cache
def metadata_schema() -> Schema:
    """The schema of ``metadata``, which objects of all kinds share."""
    return compile_schema(_resolved({"$ref": f"{_REFERENCE}{_META}.ObjectMeta"}))


def _resolved(source: JsonObject) -> JsonObject:
    """A definition with its references replaced by what they mean."""
    if "allOf" in source:
        (only,) = source["allOf"]
        return _resolved(only)
    reference = source.get("$ref")
    if reference is not None:
        name = reference.removeprefix(_REFERENCE)
        if name in _OPAQUE:
            return _ANY
        if name in _LEAVES:
            return _LEAVES[name]
        return _resolved(builtin_definitions()[name])
    if not source.get("type"):
        return _ANY
    resolved = {key: value for key, value in source.items() if key not in {"required", "description"}}
    if "properties" in source:
        resolved["properties"] = {name: _resolved(child) for name, child in source["properties"].items()}
    for part in ("items", "additionalProperties"):
        if isinstance(source.get(part), dict):
            resolved[part] = _resolved(source[part])
    return resolved
