"""Drops what a schema does not know, and says which fields those were."""

from typing import Any

from agent_sandbox.local.apiserver.schema.node import Schema

_TYPE_META = ("apiVersion", "kind", "metadata")


def prune(value: dict[str, Any], schema: Schema) -> list[str]:
    """Remove unknown fields from a whole object, in place; returns their paths as strict decoding names them."""
    unknown: list[str] = []
    _prune_object(value, schema, "", unknown, is_resource=True)
    return unknown


def prune_part(value: dict[str, Any], schema: Schema, path: str) -> list[str]:
    """Remove unknown fields from a part of an object, in place; returns their paths."""
    unknown: list[str] = []
    _prune_object(value, schema, path, unknown, is_resource=False)
    return unknown


def _prune(value: Any, schema: Schema | None, path: str, unknown: list[str]) -> None:
    if schema is None:
        return
    if isinstance(value, dict):
        _prune_object(value, schema, path, unknown, is_resource=schema.embedded)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            _prune(item, schema.items, f"{path}[{index}]", unknown)


def _prune_object(value: dict[str, Any], schema: Schema, path: str, unknown: list[str], *, is_resource: bool) -> None:
    for name in list(value):
        if is_resource and name in _TYPE_META:
            continue
        here = f"{path}.{name}" if path else name
        child = schema.properties.get(name)
        if child is not None:
            _prune(value[name], child, here, unknown)
        elif isinstance(schema.additional, Schema):
            _prune(value[name], schema.additional, here, unknown)
        elif not schema.preserve_unknown and schema.additional is not True:
            unknown.append(here)
            del value[name]
