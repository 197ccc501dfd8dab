"""Turns a core Kubernetes type into a structural schema, from the metadata of the installed kubernetes_asyncio."""

import re
from typing import Any

from kubernetes_asyncio.client import Configuration, models

from crdgen.core_rules import (
    ATOMIC_MAPS,
    EMBEDDED_METADATA_FIELDS,
    EXTRA,
    INT64,
    INT_OR_STRING,
    LIST_MAP_KEYS,
    QUANTITIES,
    QUANTITY_MAPS,
    int_or_string,
    quantity,
)

Schema = dict[str, Any]

_LIST = re.compile(r"list\[(.+)\]")
_MAP = re.compile(r"dict\(str, (.+)\)")
_SCALARS: dict[str, Schema] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
}


class UnknownTypeError(Exception):
    """The client's metadata has a type that the generator has no rule for; add one to ``core_rules``."""


def core_schema(type_name: str) -> Schema:
    """The schema of a core type, for example ``V1PodSpec``, with everything inside it spelled out.

    Raises:
        UnknownTypeError: a field has a type without a rule.
    """
    if type_name == "V1ObjectMeta":
        return _object(type_name, only=EMBEDDED_METADATA_FIELDS)
    return _object(type_name)


def _object(type_name: str, only: tuple[str, ...] | None = None) -> Schema:
    model = getattr(models, type_name)
    # An ephemeral container is a container with one field more; the rules name it once.
    rules_of = "V1Container" if type_name == "V1EphemeralContainer" else _rules_name(type_name)
    properties: Schema = {}
    required: list[str] = []
    for attribute, field_type in model.openapi_types.items():
        name = model.attribute_map[attribute]
        if only is not None and name not in only:
            continue
        schema = _field(rules_of, name, field_type)
        description = _first_sentence(getattr(model, attribute).__doc__ or "")
        properties[name] = {"description": description, **schema} if description else schema
        if _is_required(model, attribute):
            required.append(name)
    schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = sorted(required)
    if rules_of in ATOMIC_MAPS:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def _rules_name(type_name: str) -> str:
    return type_name.removeprefix("Core")


def _field(owner: str, name: str, field_type: str) -> Schema:
    key = (owner, name)
    if key in INT_OR_STRING:
        schema = int_or_string()
    elif key in QUANTITIES:
        schema = quantity()
    elif key in QUANTITY_MAPS:
        schema = {"type": "object", "additionalProperties": quantity()}
    else:
        schema = _type(owner, name, field_type)
    if schema.get("type") == "array":
        schema |= _list_type(key)
    return {**schema, **EXTRA.get(key, {})}


def _list_type(key: tuple[str, str]) -> Schema:
    keys = LIST_MAP_KEYS.get(key)
    if keys is None:
        return {"x-kubernetes-list-type": "atomic"}
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}


def _type(owner: str, name: str, field_type: str) -> Schema:
    if field_type == "int":
        return {"type": "integer", "format": "int64" if name in INT64 else "int32"}
    if field_type in _SCALARS:
        return dict(_SCALARS[field_type])
    if match := _LIST.fullmatch(field_type):
        return {"type": "array", "items": _type(owner, name, match[1])}
    if match := _MAP.fullmatch(field_type):
        return {"type": "object", "additionalProperties": _type(owner, name, match[1])}
    if hasattr(models, field_type):
        return core_schema(field_type)
    raise UnknownTypeError(f"{owner}.{name} has type {field_type!r}: say in core_rules what its schema is")


def _is_required(model: Any, attribute: str) -> bool:
    """True if the client refuses to set the field to None, which is how it remembers ``required``."""
    instance = object.__new__(model)
    instance.local_vars_configuration = Configuration()
    try:
        getattr(model, attribute).fset(instance, None)
    except ValueError:
        return True
    return False


def _first_sentence(docstring: str) -> str:
    """The first sentence of what Kubernetes says about a field; whole texts would not fit a client-side apply."""
    paragraphs = [part.replace("# noqa: E501", "").strip() for part in docstring.split("\n\n")]
    if len(paragraphs) < 3 or paragraphs[1].startswith(":return:"):
        return ""
    text = " ".join(paragraphs[1].split())
    sentence, dot, _ = text.partition(". ")
    return (sentence + dot).strip()
