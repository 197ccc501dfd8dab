"""Checks an object against a schema: types, bounds, enums, lists as sets and maps.

Messages are those of Kubernetes. Rules in CEL are checked by ``schema.rules`` once the shape is right.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.schema.node import QUANTITY, Schema
from agent_sandbox.local.quantities import is_quantity

ABSENT: Final = object()
"""Stands for a value that is not there, where null could be one."""


def schema_causes(value: Any, schema: Schema, path: str = "", old: Any = ABSENT) -> list[Cause]:
    """Everything in which a value breaks its schema; CEL rules aside.

    What did not change since ``old`` is not held against the value: a stricter schema must not lock old objects.
    """
    return list(_causes(value, schema, path, old))


def correlated(items: list[Any], old: Any, schema: Schema) -> list[Any]:
    """For each item the old item with the same keys; ``ABSENT`` where there is none or items have no keys."""
    if schema.list_type != "map" or not isinstance(old, list):
        return [ABSENT] * len(items)
    before = {_encoded_key(item, schema): item for item in old if isinstance(item, dict)}
    return [before.get(_encoded_key(item, schema), ABSENT) if isinstance(item, dict) else ABSENT for item in items]


def _encoded_key(item: dict[str, Any], schema: Schema) -> bytes:
    return msgspec.json.encode(_map_key(item, schema))


def _causes(value: Any, schema: Schema, path: str, old: Any = ABSENT) -> Iterator[Cause]:
    if old is not ABSENT and value == old:
        return
    if value is None:
        if not schema.nullable and schema.type:
            yield Cause.wrong_type(path, "null", f'{path} in body must be of type {schema.type}: "null"')
        return
    if not _type_fits(value, schema):
        yield _wrong_type(value, schema, path)
        return
    if schema.enum is not None and value not in schema.enum:
        yield Cause.unsupported(path, value, schema.enum)
    if schema.bounds or schema.pattern is not None or schema.format:
        yield from _bound_causes(value, schema, path)
    if isinstance(value, dict):
        yield from _object_causes(value, schema, path, old)
    elif isinstance(value, list):
        yield from _list_causes(value, schema, path, old)
    yield from _combination_causes(value, schema, path)


def _type_fits(value: Any, schema: Schema) -> bool:
    if schema.int_or_string:
        return isinstance(value, int | str) and not isinstance(value, bool)
    match schema.type:
        case "string":
            return isinstance(value, str)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case _:
            return True


def type_name(value: Any) -> str:
    """The JSON type of a value as Kubernetes names it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for python_type, name in ((str, "string"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array")):
        if isinstance(value, python_type):
            return name
    return "unknown"


def _wrong_type(value: Any, schema: Schema, path: str) -> Cause:
    wanted = "integer,string" if schema.int_or_string else schema.type
    found = type_name(value)
    where = path or "<nil>"
    return Cause.wrong_type(where, found, f'{path} in body must be of type {wanted}: "{found}"')


def _object_causes(value: dict[str, Any], schema: Schema, path: str, old: Any) -> Iterator[Cause]:
    for name in schema.required:
        if name not in value:
            yield Cause.required(_join(path, name))
    for name, entry in value.items():
        child = schema.child(name)
        if child is not None:
            before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
            yield from _causes(entry, child, _join(path, name), before)


def _list_causes(value: list[Any], schema: Schema, path: str, old: Any) -> Iterator[Cause]:
    if schema.items is not None:
        befores = correlated(value, old, schema)
        for index, (item, before) in enumerate(zip(value, befores, strict=True)):
            yield from _causes(item, schema.items, f"{path}[{index}]", before)
    if schema.list_type == "set":
        yield from _duplicate_causes(value, value, path)
    elif schema.list_type == "map":
        keys = [_map_key(item, schema) for item in value if isinstance(item, dict)]
        yield from _duplicate_causes(keys, keys, path)


def _map_key(item: dict[str, Any], schema: Schema) -> dict[str, Any]:
    return {key: item[key] for key in schema.map_keys if key in item}


def _duplicate_causes(values: list[Any], shown: list[Any], path: str) -> Iterator[Cause]:
    seen: set[bytes] = set()
    for index, entry in enumerate(values):
        encoded = msgspec.json.encode(entry)
        if encoded in seen:
            yield Cause.duplicate(f"{path}[{index}]", shown[index])
        seen.add(encoded)


def _bound_causes(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if isinstance(value, str):
        yield from _string_causes(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_causes(value, schema, path)
    elif isinstance(value, list):
        yield from _size_causes(len(value), schema, path, "Items", "items")
        if schema.bounds.get("uniqueItems"):
            encoded = [msgspec.json.encode(entry) for entry in value]
            if len(set(encoded)) != len(encoded):
                yield Cause.invalid(path, value, f"{path} in body shouldn't contain duplicates")
    elif isinstance(value, dict):
        yield from _size_causes(len(value), schema, path, "Properties", "properties")


def _string_causes(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    shortest, longest = schema.bounds.get("minLength"), schema.bounds.get("maxLength")
    if shortest is not None and len(value) < shortest:
        yield Cause.invalid(path, value, f"{path} in body should be at least {shortest} chars long")
    if longest is not None and len(value) > longest:
        yield Cause("FieldValueTooLong", path, f"Too long: may not be more than {longest} bytes")
    if schema.pattern is not None and not schema.pattern.search(value):
        yield Cause.invalid(path, value, f"{path} in body should match '{schema.source['pattern']}'")
    if schema.format and not _format_fits(value, schema.format):
        detail = f"{path} in body must be of type {schema.format}: {_quoted(value)}"
        yield Cause("FieldValueTypeInvalid", path, f"Invalid value: {_quoted(value)}: {detail}")


def _quoted(value: str) -> str:
    return msgspec.json.encode(value).decode()


def _format_fits(value: str, form: str) -> bool:
    if form == "date-time":
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return False
        return moment.tzinfo is not None and "T" in value.upper()
    if form == QUANTITY:
        return is_quantity(value)
    if form == "date":
        return re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None
    if form == "uuid":
        return re.fullmatch(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", value) is not None
    return True


_INTEGER_RANGES = {"int32": 31, "int64": 63}


def _number_causes(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    bounds = schema.bounds
    low, high = bounds.get("minimum"), bounds.get("maximum")
    if low is not None and (value < low or (bounds.get("exclusiveMinimum") and value == low)):
        word = "greater than" if bounds.get("exclusiveMinimum") else "greater than or equal to"
        yield Cause.invalid(path, value, f"{path} in body should be {word} {low}")
    if high is not None and (value > high or (bounds.get("exclusiveMaximum") and value == high)):
        word = "less than" if bounds.get("exclusiveMaximum") else "less than or equal to"
        yield Cause.invalid(path, value, f"{path} in body should be {word} {high}")
    step = bounds.get("multipleOf")
    if step and value % step:
        yield Cause.invalid(path, value, f"{path} in body should be a multiple of {step}")
    bits = _INTEGER_RANGES.get(schema.format)
    if bits is not None and not -(2**bits) <= value < 2**bits:
        yield Cause.invalid(path, value, f"{path} in body must be of type {schema.format}: {value}")


def _size_causes(size: int, schema: Schema, path: str, keyword: str, word: str) -> Iterator[Cause]:
    least, most = schema.bounds.get(f"min{keyword}"), schema.bounds.get(f"max{keyword}")
    if least is not None and size < least:
        yield Cause.invalid(path, size, f"{path} in body should have at least {least} {word}")
    if most is not None and size > most:
        yield Cause.too_many(path, size, most)


def _combination_causes(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    for part in schema.all_of:
        yield from _causes(value, part, path)
    if schema.any_of and not any(_fits(value, part) for part in schema.any_of):
        yield Cause.invalid(path, value, f"{path} in body must validate at least one schema (anyOf)")
    if schema.one_of and sum(_fits(value, part) for part in schema.one_of) != 1:
        yield Cause.invalid(path, value, f"{path} in body must validate one and only one schema (oneOf)")
    if schema.not_ is not None and _fits(value, schema.not_):
        yield Cause.invalid(path, value, f"{path} in body must not validate the schema (not)")


def _fits(value: Any, schema: Schema) -> bool:
    return next(_causes(value, schema, ""), None) is None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
