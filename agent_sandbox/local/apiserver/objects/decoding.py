"""The shape of what a client sent: types are checked, unknown fields are found and dropped.

Built-in kinds are strict about types, as a decoder into Go structs is; custom kinds leave types to their schema, whose
answer names every wrong field at once. ``metadata`` is the same for all.
"""

from typing import Any

from agent_sandbox.local.apiserver.errors import BadRequestError, Cause
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.schema import Schema, prune, schema_causes
from agent_sandbox.local.apiserver.schema.builtin_types import metadata_schema
from agent_sandbox.local.apiserver.schema.node import QUANTITY
from agent_sandbox.local.apiserver.schema.pruning import prune_part

_QUANTITY_FORM = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_GO_TYPES = {"string": "string", "integer": "int32", "number": "float64", "boolean": "bool"}
_JSON_NAMES = {"integer": "number", "boolean": "bool"}


def normalize(resource: ResourceType, value: JsonObject) -> list[str]:
    """Bring an object into the kind's shape, in place; returns the paths of the dropped unknown fields.

    Raises:
        BadRequestError: a field of a built-in kind, or of metadata, has the wrong type.
    """
    metadata = value["metadata"]
    drop_nulls(metadata, metadata_schema())
    _check_types(resource, metadata, metadata_schema(), "metadata")
    unknown = prune_part(metadata, metadata_schema(), "metadata")
    schema = resource.schema
    if schema is None:
        return unknown
    if resource.custom:
        return unknown + prune(value, schema)
    drop_nulls(value, schema)
    _check_types(resource, value, schema, "")
    return unknown + prune(value, schema)


def drop_nulls(value: Any, schema: Schema | None) -> None:
    """Remove nulls, in place: to a Go struct a null is as good as nothing."""
    if schema is None or schema.preserve_unknown:
        return
    if isinstance(value, dict):
        for name in [name for name, entry in value.items() if entry is None]:
            del value[name]
        for name, entry in value.items():
            drop_nulls(entry, schema.child(name))
    elif isinstance(value, list):
        for item in value:
            drop_nulls(item, schema.items)


def _check_types(resource: ResourceType, value: JsonObject, schema: Schema, path: str) -> None:
    causes = [cause for cause in schema_causes(value, schema, path) if "must be of type" in cause.message]
    if causes:
        raise BadRequestError(f"{cannot_be_handled(resource)}: {_decode_error(resource, causes[0])}")


def cannot_be_handled(resource: ResourceType) -> str:
    """The beginning of what Kubernetes says about a body that it cannot decode."""
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


def _decode_error(resource: ResourceType, cause: Cause) -> str:
    found, _, wanted = cause.message.partition("must be of type ")
    if not wanted:
        return f"{cause.field}: {cause.message}"
    wanted, _, name = wanted.partition(": ")
    found = name.strip('"')
    if wanted == "date-time":
        return f'parsing time {name} as "2006-01-02T15:04:05Z07:00": cannot parse {name}'
    if wanted == QUANTITY:
        return f"quantities must match the regular expression '{_QUANTITY_FORM}'"
    go_type = _GO_TYPES.get(wanted, wanted)
    return (
        f"json: cannot unmarshal {_JSON_NAMES.get(found, found)} into Go struct field "
        f"{resource.kind}.{cause.field} of type {go_type}"
    )
