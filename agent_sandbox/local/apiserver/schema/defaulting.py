"""Fills in the defaults of a schema."""

import copy
from typing import Any

from agent_sandbox.local.apiserver.schema.node import Schema


def apply_defaults(value: Any, schema: Schema) -> None:
    """Set absent fields to their defaults, in place; a null that the schema does not allow counts as absent."""
    if isinstance(value, dict):
        for name, child in schema.properties.items():
            if name in value and value[name] is None and not child.nullable:
                del value[name]
            if child.has_default and name not in value:
                value[name] = copy.deepcopy(child.default)
            if name in value:
                apply_defaults(value[name], child)
        if isinstance(schema.additional, Schema):
            for name, entry in value.items():
                if name not in schema.properties:
                    apply_defaults(entry, schema.additional)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            apply_defaults(item, schema.items)
