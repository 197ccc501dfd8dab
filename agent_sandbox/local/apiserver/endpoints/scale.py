"""The scale subresource: one small object for the replicas of any kind."""

from collections.abc import Callable

from agent_sandbox.local.apiserver.errors import BadRequestError, Cause, ConflictError, InvalidError
from agent_sandbox.local.apiserver.jsonpath import first_at, set_at
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(resource: ResourceType, value: JsonObject) -> JsonObject:
    """An object's ``autoscaling/v1`` Scale."""
    assert resource.scale is not None
    metadata = value["metadata"]
    status: JsonObject = {"replicas": first_at(value, resource.scale.status) or 0}
    selector = first_at(value, resource.scale.selector) if resource.scale.selector else None
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in _META if name in metadata},
        "spec": {"replicas": first_at(value, resource.scale.spec) or 0},
        "status": status,
    }


def with_scale(resource: ResourceType, old: JsonObject, transform: Callable[[JsonObject], JsonObject]) -> JsonObject:
    """The object with the replicas of its changed Scale.

    Raises:
        BadRequestError: the Scale is about another object.
        ConflictError: the Scale names an older resourceVersion.
        InvalidError: the replicas are negative.
    """
    assert resource.scale is not None
    scale = transform(scale_of(resource, old))
    metadata, spec = scale.get("metadata") or {}, scale.get("spec") or {}
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise BadRequestError("the body is no Scale: its metadata and its spec are objects")
    name = old["metadata"]["name"]
    if metadata.get("name", name) != name:
        raise BadRequestError(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    version = metadata.get("resourceVersion")
    if version and version != old["metadata"]["resourceVersion"]:
        raise ConflictError(resource, name)
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        cause = Cause.invalid("spec.replicas", replicas, "should be a non-negative integer")
        raise InvalidError(resource, name, [cause])
    set_at(old, resource.scale.spec, replicas)
    return old
