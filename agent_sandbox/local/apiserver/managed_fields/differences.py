"""Which fields an object has, and which fields differ between two objects. Equal parts are not looked into."""

from dataclasses import dataclass, field
from typing import Any

from agent_sandbox.local.apiserver.managed_fields.field_trie import Path, Trie, insert
from agent_sandbox.local.apiserver.managed_fields.structure import (
    child_schema,
    is_granular_list,
    is_granular_map,
    is_known_field,
    item_element,
)
from agent_sandbox.local.apiserver.schema.node import Schema


def fields_of(value: dict[str, Any], schema: Schema | None) -> Trie:
    """Every field of an object."""
    trie: Trie = {}
    for path in _paths(value, schema, ()):
        insert(trie, path)
    return trie


def _paths(value: Any, schema: Schema | None, path: Path) -> list[Path]:
    """The ownable paths at and below a value; the value's own path only if it is a field by itself."""
    if is_granular_map(value, schema):
        found: list[Path] = []
        for name, entry in value.items():
            found += _field_paths(entry, name, schema, (*path, f"f:{name}"))
        return found
    if schema is not None and is_granular_list(value, schema):
        found = []
        for item in value:
            here = (*path, item_element(item, schema))
            found.append(here)
            if isinstance(item, dict):
                found += _paths(item, schema.items, here)
        return found
    return [path] if path else []


def _field_paths(value: Any, name: str, schema: Schema | None, path: Path) -> list[Path]:
    """The paths of a field: those below it, and its own if it is empty or a key of a map."""
    below = _paths(value, child_schema(schema, name), path)
    owned = value is None or value == {} or not is_known_field(schema, name)
    return [path, *below] if owned and path not in below[:1] else below


@dataclass
class Differences:
    """How one object became another.

    Attributes:
        set: fields that were added or got another value.
        removed: fields that are gone.
    """

    set: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)


def differences(old: dict[str, Any], new: dict[str, Any], schema: Schema | None) -> Differences:
    """Compare two objects field by field."""
    found = Differences()
    _compare(old, new, schema, (), found)
    return found


def _compare(old: Any, new: Any, schema: Schema | None, path: Path, found: Differences) -> None:
    if old == new and type(old) is type(new):
        return
    if is_granular_map(old, schema) and is_granular_map(new, schema):
        _compare_maps(old, new, schema, path, found)
    elif schema is not None and is_granular_list(old, schema) and is_granular_list(new, schema):
        _compare_lists(old, new, schema, path, found)
    else:
        before, after = _paths(old, schema, path), _paths(new, schema, path)
        kept = set(after)
        found.removed += [entry for entry in before if entry not in kept]
        found.set += after


def _compare_maps(
    old: dict[str, Any], new: dict[str, Any], schema: Schema | None, path: Path, found: Differences
) -> None:
    for name in {**old, **new}:
        here = (*path, f"f:{name}")
        if name not in new:
            found.removed += _field_paths(old[name], name, schema, here)
        elif name not in old:
            found.set += _field_paths(new[name], name, schema, here)
        else:
            _compare(old[name], new[name], child_schema(schema, name), here, found)


def _compare_lists(old: list[Any], new: list[Any], schema: Schema, path: Path, found: Differences) -> None:
    before = {item_element(item, schema): item for item in old}
    after = {item_element(item, schema): item for item in new}
    for element in {**before, **after}:
        here = (*path, element)
        if element not in after:
            found.removed += [here, *_below(before[element], schema, here)]
        elif element not in before:
            found.set += [here, *_below(after[element], schema, here)]
        else:
            _compare(before[element], after[element], schema.items, here, found)


def _below(item: Any, schema: Schema, path: Path) -> list[Path]:
    return _paths(item, schema.items, path) if isinstance(item, dict) else []
