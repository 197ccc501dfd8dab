"""How objects fall apart into fields that can be owned: by the schema's list types and map types.

Where the schema knows nothing, objects are granular and lists are one field.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec

from agent_sandbox.local.apiserver.resource_type import ResourceType
from agent_sandbox.local.apiserver.schema.builtin_types import metadata_schema
from agent_sandbox.local.apiserver.schema.node import Schema


@lru_cache(maxsize=256)
def _with_metadata(schema_id: int, holder: "_Holder") -> Schema:
    schema = holder.schema
    return replace(schema, properties={**schema.properties, "metadata": metadata_schema()})


class _Holder:
    """Lets a schema, which cannot be hashed, be part of a cache key."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Holder) and other.schema is self.schema


def root_schema(resource: ResourceType) -> Schema | None:
    """The schema of a whole object, metadata included."""
    schema = resource.schema
    return _with_metadata(id(schema), _Holder(schema)) if schema is not None else None


def child_schema(schema: Schema | None, name: str) -> Schema | None:
    """The schema of a field, if there is one."""
    return schema.child(name) if schema is not None else None


def is_known_field(schema: Schema | None, name: str) -> bool:
    """True for a field of a struct, False for a key of a map."""
    return schema is not None and name in schema.properties


def is_granular_map(value: Any, schema: Schema | None) -> bool:
    """True if the value's fields are owned one by one."""
    return isinstance(value, dict) and (schema is None or schema.map_type != "atomic")


def is_granular_list(value: Any, schema: Schema | None) -> bool:
    """True if the value's items are owned one by one."""
    if not isinstance(value, list) or schema is None:
        return False
    if schema.list_type == "map":
        return all(isinstance(item, dict) for item in value)
    return schema.list_type == "set"


def item_element(item: Any, schema: Schema) -> str:
    """The path element of an item of a granular list."""
    if schema.list_type == "set":
        return "v:" + msgspec.json.encode(item).decode()
    keys = {name: _key_value(item, name, schema) for name in sorted(schema.map_keys)}
    present = {name: value for name, value in keys.items() if value is not None}
    return "k:" + msgspec.json.encode(present).decode()


def _key_value(item: dict[str, Any], name: str, schema: Schema) -> Any:
    if name in item:
        return item[name]
    key = child_schema(schema.items, name)
    return key.default if key is not None and key.has_default else None
