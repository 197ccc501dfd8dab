"""Turns one of our pydantic models into a structural schema, as apiextensions.k8s.io/v1 asks for it."""

from typing import Any

from agent_sandbox_api.meta import KubeModel
from crdgen.core_rules import int_or_string
from crdgen.core_types import Schema, core_schema

_INT64 = {"observedGeneration"}
_KEPT = (
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
)
_ROOT_PROPERTIES: Schema = {
    "apiVersion": {
        "description": "Version of the schema that this object is written in.",
        "type": "string",
    },
    "kind": {"description": "Kind of this object, in CamelCase.", "type": "string"},
    # Its schema belongs to the API server; the name is declared for rules to point at.
    "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
}


class UnknownShapeError(Exception):
    """A model has a field that cannot be said in a structural schema; change the field or teach the generator."""


def object_schema(model: type[KubeModel]) -> Schema:
    """The schema of a whole object. Metadata is left to the API server, as it must be."""
    source = model.model_json_schema(by_alias=True)
    definitions = source.get("$defs", {})
    ours = {name: _schema(name, source["properties"][name], definitions) for name in ("spec", "status")}
    root: Schema = {
        "description": source["description"],
        "type": "object",
        "properties": {**_ROOT_PROPERTIES, **ours},
        "required": ["spec"],
    }
    if "x-kubernetes-validations" in source:
        root["x-kubernetes-validations"] = source["x-kubernetes-validations"]
    return root


def _schema(name: str, node: Schema, definitions: Schema) -> Schema:
    """A structural schema of a node of pydantic's JSON schema; ``name`` is the field's."""
    node = _flatten(node, definitions)
    schema: Schema = {"description": node["description"]} if node.get("description") else {}
    schema |= _body(name, node, definitions)
    schema |= {key: node[key] for key in _KEPT if key in node}
    if node.get("default") is not None:
        schema["default"] = node["default"]
    return schema


def _body(name: str, node: Schema, definitions: Schema) -> Schema:
    if "x-core-type" in node:
        return core_schema(node["x-core-type"])
    if "anyOf" in node:
        return _int_or_string(name, node["anyOf"])
    values = [node["const"]] if "const" in node else node.get("enum")
    match node.get("type"):
        case "string" if values:
            return {"type": "string", "enum": values}
        case "string":
            return {"type": "string", **({"format": node["format"]} if "format" in node else {})}
        case "integer":
            return {"type": "integer", "format": "int64" if name in _INT64 else "int32"}
        case "boolean":
            return {"type": "boolean"}
        case "array":
            return {
                "type": "array",
                "items": _schema(name, node["items"], definitions),
                "x-kubernetes-list-type": "atomic",
            }
        case "object":
            return _object(name, node, definitions)
        case other:
            raise UnknownShapeError(f"field {name}: no structural schema for type {other!r}: {node}")


def _object(name: str, node: Schema, definitions: Schema) -> Schema:
    if "properties" not in node:
        return {"type": "object", "additionalProperties": _schema(name, node["additionalProperties"], definitions)}
    properties = {key: _schema(key, value, definitions) for key, value in node["properties"].items()}
    required = sorted(node.get("required", []))
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _int_or_string(name: str, choices: list[Schema]) -> Schema:
    """An IntOrString; the limits of either branch hold for values of its type only, so they can stand side by side."""
    if sorted(choice.get("type", "") for choice in choices) != ["integer", "string"]:
        raise UnknownShapeError(f"field {name}: a structural schema has no choice between {choices}")
    limits = {key: value for choice in choices for key, value in choice.items() if key in _KEPT}
    return {**int_or_string(), **limits}


def _flatten(node: Schema, definitions: Schema) -> Schema:
    """Follow references and drop ``null``; what stands beside a reference wins over what it refers to."""
    choices: list[Any] = [choice for choice in node.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        outer = {key: value for key, value in node.items() if key != "anyOf"}
        return _flatten({**choices[0], **outer}, definitions)
    if choices:
        return {**node, "anyOf": choices}
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        outer = {key: value for key, value in node.items() if key != "$ref"}
        return _flatten({**target, **outer}, definitions)
    return node
