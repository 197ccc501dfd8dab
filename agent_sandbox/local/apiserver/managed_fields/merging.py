"""Merges what a client applies into the living object, and takes out what it no longer applies."""

import copy
from collections.abc import Iterable
from typing import Any

from agent_sandbox.local.apiserver.managed_fields.field_trie import Path
from agent_sandbox.local.apiserver.managed_fields.structure import (
    child_schema,
    is_granular_list,
    is_granular_map,
    item_element,
)
from agent_sandbox.local.apiserver.schema.node import Schema


def merged(live: Any, applied: Any, schema: Schema | None) -> Any:
    """The living value with the applied one merged in, by the schema's list and map types."""
    if is_granular_map(applied, schema) and is_granular_map(live, schema):
        result = dict(live)
        for name, value in applied.items():
            result[name] = merged(live.get(name), value, child_schema(schema, name))
        return result
    if schema is not None and is_granular_list(applied, schema) and is_granular_list(live, schema):
        return _merged_list(live, applied, schema)
    return copy.deepcopy(applied)


def _merged_list(live: list[Any], applied: list[Any], schema: Schema) -> list[Any]:
    """The applied items in their order; items of others keep their place among them."""
    living = {item_element(item, schema): item for item in live}
    wanted = {item_element(item, schema): item for item in applied}
    result: list[Any] = []
    placed: set[str] = set()
    rest = iter(list(living))
    upcoming = next(rest, None)
    for element, item in wanted.items():
        while upcoming is not None and (upcoming not in wanted or upcoming in placed):
            if upcoming not in placed:
                result.append(living[upcoming])
            upcoming = next(rest, None)
        result.append(merged(living.get(element), item, schema.items))
        placed.add(element)
        if upcoming == element:
            upcoming = next(rest, None)
    while upcoming is not None:
        if upcoming not in wanted:
            result.append(living[upcoming])
        upcoming = next(rest, None)
    return result


def without_paths(value: dict[str, Any], paths: Iterable[Path], schema: Schema | None) -> None:
    """Remove fields and items, in place; objects and lists that became empty by it go as well."""
    gone: set[Path] = set()
    for path in sorted(paths, key=len):
        # An item goes as a whole; without its keys it could not be found again.
        if any(path[:length] in gone for length in range(1, len(path))):
            continue
        gone.add(path)
        _remove(value, path, schema)


def _remove(value: Any, path: Path, schema: Schema | None) -> None:
    element, rest = path[0], path[1:]
    if isinstance(value, dict) and element.startswith("f:"):
        name = element[2:]
        if name not in value:
            return
        if rest:
            _remove(value[name], rest, child_schema(schema, name))
            if value[name] in ({}, []):
                del value[name]
        else:
            del value[name]
    elif isinstance(value, list) and schema is not None:
        for index, item in enumerate(value):
            if is_granular_list([item], schema) and item_element(item, schema) == element:
                if rest:
                    _remove(item, rest, schema.items)
                else:
                    del value[index]
                return
