"""The OpenAPI documents: v3 per group and version, and v2 for clients that know nothing newer.

They follow the registry: a new definition shows up in the next answer.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from agent_sandbox.local.apiserver.discovery import VERSION
from agent_sandbox.local.apiserver.errors import NotAcceptableError, UnknownPathError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, parse_accept
from agent_sandbox.local.apiserver.openapi.operations import paths_of
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.schema.builtin_types import builtin_definition, builtin_definitions

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_ALWAYS = tuple(f"{_META}.{name}" for name in ("Status", "DeleteOptions", "ListMeta", "ObjectMeta"))
_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_REFERENCE = "#/components/schemas/"
_POD = "io.k8s.api.core.v1.Pod"
"""Every kind describes its apiVersion and kind alike; this one is always there."""
_CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"


_PROTOBUF = "application/com.github.proto-openapi.spec.v2"
_PROTOBUF_ANSWER = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def _protobuf_text(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


# kubectl asks for v2 only about kinds that v3 does not have, and only in protobuf. A document without definitions is
# the true answer to that: swagger (1), info (2) with title (1) and version (2), no paths (8), no definitions (9).
_EMPTY_V2 = (
    _protobuf_text(1, b"2.0")
    + _protobuf_text(2, _protobuf_text(1, b"Kubernetes") + _protobuf_text(2, VERSION["gitVersion"].encode()))
    + _protobuf_text(8, b"")
    + _protobuf_text(9, b"")
)


class OpenApi:
    """Answers /openapi/v2 and /openapi/v3."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._cache: dict[str, bytes] = {}

    def answer(self, request: ApiRequest) -> ApiResponse | None:
        """The document at a path; None if the path is none of ours.

        Raises:
            UnknownPathError: no such group and version.
            NotAcceptableError: the client wants protobuf only.
        """
        if not request.path.startswith("/openapi/"):
            return None
        if request.path == "/openapi/v2" and _PROTOBUF in request.headers.get("accept", ""):
            return ApiResponse(200, {"Content-Type": _PROTOBUF_ANSWER}, _EMPTY_V2)
        _require_json(request)
        if request.path == "/openapi/v2":
            return self._cached("v2", self._document_v2)
        if request.path in {"/openapi/v3", "/openapi/v3/"}:
            return self._cached("v3", self._index)
        name = request.path.removeprefix("/openapi/v3/")
        if name not in self._group_versions():
            raise UnknownPathError
        return self._cached(name, lambda: self._document(name))

    def _cached(self, name: str, make: Any) -> ApiResponse:
        self._registry.all()
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._cache.clear()
        if name not in self._cache:
            self._cache[name] = msgspec.json.encode(make())
        body = self._cache[name]
        response = ApiResponse.raw(body)
        response.headers["Etag"] = f'"{_digest(body)}"'
        return response

    def _group_versions(self) -> dict[str, list[ResourceType]]:
        found: dict[str, list[ResourceType]] = {}
        for kind in self._registry.all():
            root = "apis" if kind.group else "api"
            found.setdefault(f"{root}/{kind.api_version}", []).append(kind)
        return found

    def _index(self) -> JsonObject:
        paths = {}
        for name in self._group_versions():
            digest = _digest(self._cached(name, lambda name=name: self._document(name)).body)
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
        return {"paths": paths}

    def _document(self, name: str) -> JsonObject:
        kinds = self._group_versions()[name]
        schemas = _schemas(kinds)
        paths = {path: item for kind in kinds for path, item in paths_of(kind, definition_name(kind))}
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
            },
        }

    def _document_v2(self) -> JsonObject:
        kinds = self._registry.all()
        definitions = _with_v2_references(_schemas(kinds))
        paths = {path: _item_v2(item) for kind in kinds for path, item in paths_of(kind, definition_name(kind))}
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": _with_v2_references(paths),
            "definitions": definitions,
        }


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest().upper()[:32]


def _require_json(request: ApiRequest) -> None:
    accepted = parse_accept(request.headers.get("accept", ""))
    if accepted and not any(media in {"application/json", "application/*", "*/*"} for media, _ in accepted):
        raise NotAcceptableError(("application/json",))


def definition_name(kind: ResourceType) -> str:
    """The OpenAPI name of a kind: Kubernetes' own, or the reversed group for custom kinds."""
    builtin = None if kind.custom else builtin_definition(kind.group, kind.version, kind.kind)
    if builtin is not None:
        return builtin
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def _schemas(kinds: Iterable[ResourceType]) -> dict[str, JsonObject]:
    builtin = builtin_definitions()
    schemas: dict[str, JsonObject] = {}
    wanted = list(_ALWAYS)
    for kind in kinds:
        name = definition_name(kind)
        if kind.custom:
            schemas[name] = _custom_schema(kind)
        else:
            wanted.append(name)
        schemas[name + "List"] = _list_schema(kind, name)
        if "scale" in kind.subresources:
            wanted.append(_SCALE)
    while wanted:
        name = wanted.pop()
        if name in schemas or name not in builtin:
            continue
        schemas[name] = builtin[name]
        wanted += list(_references(builtin[name]))
    return dict(sorted(schemas.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(_REFERENCE)
        for child in value.values():
            yield from _references(child)
    elif isinstance(value, list):
        for child in value:
            yield from _references(child)


def _kind_extension(kind: ResourceType, name: str) -> JsonObject:
    return {"x-kubernetes-group-version-kind": [{"group": kind.group, "kind": name, "version": kind.version}]}


def _custom_schema(kind: ResourceType) -> JsonObject:
    source: JsonObject = kind.schema.source if kind.schema is not None else {"type": "object"}
    properties = dict(source.get("properties") or {})
    properties |= {name: builtin_definitions()[_POD]["properties"][name] for name in ("apiVersion", "kind")}
    properties["metadata"] = {
        "description": f"Standard object's metadata. More info: {_CONVENTIONS}#metadata",
        "allOf": [{"$ref": f"{_REFERENCE}{_META}.ObjectMeta"}],
    }
    return {**source, "properties": properties, **_kind_extension(kind, kind.kind)}


def _list_schema(kind: ResourceType, name: str) -> JsonObject:
    return {
        "type": "object",
        "description": f"{kind.list_kind} is a list of {kind.kind}",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": _REFERENCE + name}},
            "metadata": {"$ref": f"{_REFERENCE}{_META}.ListMeta"},
        },
        **_kind_extension(kind, kind.list_kind),
    }


def _with_v2_references(value: Any) -> Any:
    """The same document as OpenAPI v2 writes it: other references, no combinations."""
    if isinstance(value, dict):
        if len(value.get("allOf") or ()) == 1 and "$ref" in value["allOf"][0]:
            rest = {key: child for key, child in value.items() if key != "allOf"}
            return _with_v2_references({**rest, **value["allOf"][0]})
        dropped = {"oneOf", "anyOf", "nullable"}
        return {
            key: child.replace(_REFERENCE, "#/definitions/")
            if key == "$ref" and isinstance(child, str)
            else _with_v2_references(child)
            for key, child in value.items()
            if key not in dropped or not isinstance(child, list | bool)
        }
    if isinstance(value, list):
        return [_with_v2_references(child) for child in value]
    return value


def _item_v2(item: JsonObject) -> JsonObject:
    converted: JsonObject = {}
    for method, operation in item.items():
        if method == "parameters":
            converted[method] = [_parameter_v2(parameter) for parameter in operation]
            continue
        operation = dict(operation)
        body = operation.pop("requestBody", None)
        parameters = [_parameter_v2(parameter) for parameter in operation.get("parameters", ())]
        if body is not None:
            schema = next(iter(body["content"].values()))["schema"]
            parameters.append({"name": "body", "in": "body", "required": True, "schema": schema})
            operation["consumes"] = list(body["content"])
        operation["parameters"] = parameters
        operation["responses"] = {
            code: {
                "description": answer["description"],
                **({"schema": answer["content"]["application/json"]["schema"]} if "content" in answer else {}),
            }
            for code, answer in operation["responses"].items()
        }
        converted[method] = operation
    return converted


def _parameter_v2(parameter: JsonObject) -> JsonObject:
    flat: JsonObject = {key: value for key, value in parameter.items() if key != "schema"}
    schema: JsonObject = parameter.get("schema", {})
    return flat | schema
