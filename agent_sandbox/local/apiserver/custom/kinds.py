"""Turns a CustomResourceDefinition into the kinds that it defines."""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import msgspec

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.jsonpath import compile_path, first_at
from agent_sandbox.local.apiserver.resource_type import (
    Column,
    Conversion,
    JsonObject,
    ResourceType,
    ScalePaths,
    Strategy,
)
from agent_sandbox.local.apiserver.schema import Schema, compile_schema

_AGE = Column(
    "Age",
    lambda value: value["metadata"].get("creationTimestamp"),
    "date",
    relative=True,
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)
_NAME = Column(
    "Name",
    lambda value: value["metadata"]["name"],
    format="name",
    description="Name must be unique within a namespace.",
)

_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""In the order in which Kubernetes lists them for custom kinds."""


def kinds_of(definition: JsonObject) -> list[ResourceType]:
    """One kind per served version; none until the definition is established."""
    conditions = (definition.get("status") or {}).get("conditions") or []
    if not any(entry.get("type") == "Established" and entry.get("status") == "True" for entry in conditions):
        return []
    spec = definition["spec"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    return [_kind(spec, version, storage) for version in spec["versions"] if version.get("served")]


def _kind(spec: JsonObject, version: JsonObject, storage: str) -> ResourceType:
    names = spec["names"]
    subresources = version.get("subresources") or {}
    scale = _scale(subresources["scale"]) if subresources.get("scale") else None
    source = (version.get("schema") or {}).get("openAPIV3Schema")
    return ResourceType(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names.get("singular", ""),
        list_kind=names.get("listKind", ""),
        short_names=tuple(names.get("shortNames") or ()),
        verbs=_VERBS,
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(name for name in ("status", "scale") if subresources.get(name) is not None),
        strategy=Strategy(
            unconditional_update=False,
            generation=True,
            validate=partial(_replica_causes, scale) if scale else _no_causes,
        ),
        columns=_columns(version.get("additionalPrinterColumns")),
        field_selectors=_field_selectors(version),
        storage_api_version=f"{spec['group']}/{storage}",
        conversion=_rename_version(spec["group"], version["name"], storage),
        load_schema=cache(partial(_schema, source)) if source else _no_schema,
        scale=scale,
        custom=True,
    )


def _no_schema() -> None:
    return None


def _schema(source: JsonObject) -> Schema:
    return _compiled(msgspec.json.encode(source))


@lru_cache(maxsize=64)
def _compiled(source: bytes) -> Schema:
    """Compiling a Pod template takes 25 ms; processes with many servers, as tests are, do it once per content."""
    return compile_schema(msgspec.json.decode(source))


def _scale(source: JsonObject) -> ScalePaths:
    return ScalePaths(source["specReplicasPath"], source["statusReplicasPath"], source.get("labelSelectorPath", ""))


_MAX_REPLICAS = 2**31 - 1


def _replica_causes(paths: ScalePaths, value: JsonObject, _old: JsonObject | None) -> list[Cause]:
    """What the scale subresource asks of the fields behind it, whatever the schema says of them."""
    causes = []
    for path in (paths.spec, paths.status):
        replicas = first_at(value, path)
        if not isinstance(replicas, int):
            continue
        if replicas < 0:
            causes.append(Cause.invalid(path, replicas, "should be a non-negative integer"))
        elif replicas > _MAX_REPLICAS:
            causes.append(Cause.invalid(path, replicas, f"should be less than or equal to {_MAX_REPLICAS}"))
    return causes


def _no_causes(_value: JsonObject, _old: JsonObject | None) -> list[Cause]:
    return []


def _rename_version(group: str, served: str, storage: str) -> Conversion | None:
    """Conversion strategy None: only apiVersion differs between versions."""
    if served == storage:
        return None

    def renamed(version: str, value: JsonObject) -> JsonObject:
        return value | {"apiVersion": f"{group}/{version}"}

    return Conversion(partial(renamed, storage), partial(renamed, served))


def _columns(sources: list[JsonObject] | None) -> tuple[Column, ...]:
    if not sources:
        return (_NAME, _AGE)
    return (_NAME, *(_column(source) for source in sources))


def _column(source: JsonObject) -> Column:
    kind = source["type"]
    return Column(
        source["name"],
        partial(_cell, source["jsonPath"], kind),
        kind,
        source.get("format", ""),
        source.get("description") or f"Custom resource definition column (in JSONPath format): {source['jsonPath']}",
        source.get("priority", 0),
        relative=kind == "date",
    )


def _cell(path: str, kind: str, value: JsonObject) -> Any:
    found = compile_path(path)(value)
    if not found:
        return None
    first = found[0]
    if kind in {"integer", "number", "boolean"}:
        return first
    if kind == "date":
        return first
    return first if isinstance(first, str) else _compact(first)


def _compact(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def _field_selectors(version: JsonObject) -> dict[str, Callable[[JsonObject], str]]:
    selectable = version.get("selectableFields") or []
    return {entry["jsonPath"].removeprefix("."): partial(_selected, entry["jsonPath"]) for entry in selectable}


def _selected(path: str, value: JsonObject) -> str:
    found = first_at(value, path)
    if isinstance(found, bool):
        return "true" if found else "false"
    return "" if found is None else str(found)
