"""The paths of a kind as OpenAPI describes them: what clients look up is the verb, the kind and the options."""

from collections.abc import Iterator

from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

_REFERENCE = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"


def _option(name: str, kind: str, description: str) -> JsonObject:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": kind, "uniqueItems": True},
    }


_PRETTY = _option("pretty", "string", "Accepted for compatibility; the answer is compact.")
_WRITE = [
    _option("dryRun", "string", "All: do everything but keep nothing."),
    _option("fieldManager", "string", "Who is recorded as the owner of the written fields."),
    _option("fieldValidation", "string", "What happens to unknown fields: Ignore, Warn or Strict."),
]
_FORCE = _option("force", "boolean", "Take over fields that others own; for apply patches only.")
_SELECT = [
    _option("labelSelector", "string", "Chooses objects by their labels."),
    _option("fieldSelector", "string", "Chooses objects by their fields."),
]
_LIST = [
    *_SELECT,
    _option("limit", "integer", "The most objects in one answer."),
    _option("continue", "string", "Goes on where the last answer ended."),
    _option("resourceVersion", "string", "The version that the answer must show."),
    _option("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    _option("watch", "boolean", "Stream changes instead of listing."),
    _option("allowWatchBookmarks", "boolean", "Send bookmarks into the stream."),
    _option("sendInitialEvents", "boolean", "Begin the stream with all objects."),
    _option("timeoutSeconds", "integer", "When the stream ends."),
]
_DELETE = [
    _WRITE[0],
    _option("gracePeriodSeconds", "integer", "Seconds until the object goes."),
    _option("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    _option("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
]
_PATCHES = ("application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"


def paths_of(kind: ResourceType, definition: str) -> Iterator[tuple[str, JsonObject]]:
    """Each path of a kind with its operations."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    inside = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    yield inside, _with_namespace(kind, _collection(kind, definition))
    if kind.namespaced and "list" in kind.verbs:
        yield f"{root}/{kind.plural}", {"get": _read(kind, definition + "List", "list", _LIST)}
    if "get" not in kind.verbs:
        return
    yield f"{inside}/{{name}}", _with_name(kind, _object(kind, definition))
    if kind.has_status:
        yield f"{inside}/{{name}}/status", _with_name(kind, _changes(kind, definition))
    if "scale" in kind.subresources:
        yield f"{inside}/{{name}}/scale", _with_name(kind, _changes(kind, "io.k8s.api.autoscaling.v1.Scale"))


def _collection(kind: ResourceType, definition: str) -> JsonObject:
    item: JsonObject = {}
    if "list" in kind.verbs:
        item["get"] = _read(kind, definition + "List", "list", _LIST)
    item["post"] = _write(kind, definition, "post", ("application/json", "application/yaml"), _WRITE, 201)
    if "deletecollection" in kind.verbs:
        item["delete"] = _remove(kind, "deletecollection", [*_DELETE, *_SELECT])
    return item


def _object(kind: ResourceType, definition: str) -> JsonObject:
    return {**_changes(kind, definition), "delete": _remove(kind, "delete", _DELETE)}


def _changes(kind: ResourceType, definition: str) -> JsonObject:
    patches = (*_PATCHES, *(() if kind.custom else (_STRATEGIC,)), _APPLY)
    patch = _write(kind, f"{_META}.Patch", "patch", patches, [*_WRITE, _FORCE], 200)
    for content in patch["requestBody"]["content"].values():
        content["schema"] = {"type": "object", "description": "A patch."}
    patch["responses"] = _answers(definition, 200)
    return {
        "get": _read(kind, definition, "get", []),
        "put": _write(kind, definition, "put", ("application/json", "application/yaml"), _WRITE, 200),
        "patch": patch,
    }


def _operation(kind: ResourceType, action: str, options: list[JsonObject]) -> JsonObject:
    return {
        "parameters": [_PRETTY, *options],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": kind.version},
    }


def _answers(definition: str, status: int) -> JsonObject:
    content = {"application/json": {"schema": {"$ref": _REFERENCE + definition}}}
    return {str(status): {"description": "OK" if status == 200 else "Created", "content": content}}


def _read(kind: ResourceType, definition: str, action: str, options: list[JsonObject]) -> JsonObject:
    return {**_operation(kind, action, options), "responses": _answers(definition, 200)}


def _write(
    kind: ResourceType, definition: str, action: str, types: tuple[str, ...], options: list[JsonObject], status: int
) -> JsonObject:
    content: JsonObject = {media: {"schema": {"$ref": _REFERENCE + definition}} for media in types}
    return {
        **_operation(kind, action, options),
        "requestBody": {"required": True, "content": content},
        "responses": _answers(definition, status),
    }


def _remove(kind: ResourceType, action: str, options: list[JsonObject]) -> JsonObject:
    content: JsonObject = {"application/json": {"schema": {"$ref": f"{_REFERENCE}{_META}.DeleteOptions"}}}
    return {
        **_operation(kind, action, options),
        "requestBody": {"content": content},
        "responses": _answers(f"{_META}.Status", 200),
    }


def _place(name: str, description: str) -> JsonObject:
    schema = {"type": "string", "uniqueItems": True}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _with_namespace(kind: ResourceType, item: JsonObject) -> JsonObject:
    if kind.namespaced:
        item["parameters"] = [_place("namespace", "The namespace.")]
    return item


def _with_name(kind: ResourceType, item: JsonObject) -> JsonObject:
    places = [_place("name", f"Name of the {kind.kind}.")]
    if kind.namespaced:
        places.append(_place("namespace", "The namespace."))
    item["parameters"] = places
    return item
