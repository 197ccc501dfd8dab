"""Every verb on a resource or one of its subresources.

One method per verb; each reads its options, calls ``Objects``, ``Lists`` or ``Watches``, and shapes the answer.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.builtin.reviews import REVIEWERS, Review
from agent_sandbox.local.apiserver.endpoints.bodies import read_object, read_value
from agent_sandbox.local.apiserver.endpoints.lists import Lists, selector_of
from agent_sandbox.local.apiserver.endpoints.options import apply_options, delete_options, write_options
from agent_sandbox.local.apiserver.endpoints.pods import bind, evict, read_log
from agent_sandbox.local.apiserver.endpoints.representation import Representation
from agent_sandbox.local.apiserver.endpoints.scale import scale_of, with_scale
from agent_sandbox.local.apiserver.endpoints.watches import Watches
from agent_sandbox.local.apiserver.errors import (
    BadRequestError,
    ConflictError,
    MethodNotAllowedError,
    NotFoundError,
    StatusError,
    UnknownPathError,
    UnsupportedMediaError,
)
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, UserInfo
from agent_sandbox.local.apiserver.objects import Objects
from agent_sandbox.local.apiserver.objects.writes import check_identity
from agent_sandbox.local.apiserver.patches import apply_json_patch, apply_merge_patch, apply_strategic_patch
from agent_sandbox.local.apiserver.paths import ResourcePath
from agent_sandbox.local.apiserver.protobuf import PROTOBUF
from agent_sandbox.local.apiserver.providers import PodProviders
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.storage import ObjectStore, Stored

_POD_SUBRESOURCES = frozenset({"binding", "eviction", "log", "exec", "attach", "portforward"})
_NO_UPGRADE = "Upgrade request required"
_SPDY = (
    "SPDY is not served here, WebSockets are: use kubectl 1.31 or newer, "
    "without KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false and KUBECTL_PORT_FORWARD_WEBSOCKETS=false"
)
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"


class ResourceEndpoints:
    """Answers requests on resources."""

    def __init__(
        self,
        store: ObjectStore,
        objects: Objects,
        clock: Clock,
        providers: PodProviders,
        authenticate: Callable[[str], UserInfo | None],
    ) -> None:
        self._objects = objects
        self._providers = providers
        self._authenticate = authenticate
        self._store = store
        self._lists = Lists(store, objects)
        self.watches = Watches(store, clock)

    async def answer(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        """Do what a request asks for.

        Raises:
            StatusError: the answer is no.
        """
        if path.subresource and path.subresource not in resource.subresources:
            raise UnknownPathError
        if resource.namespaced and not path.namespace and (path.name or request.method == "POST"):
            raise BadRequestError("an empty namespace may not be set when a resource name is provided")
        if not resource.namespaced and path.namespace:
            raise UnknownPathError
        reviewer = REVIEWERS.get(resource.bucket)
        if reviewer is not None:
            return self._review(resource, reviewer, path, request)
        if path.subresource in _POD_SUBRESOURCES:
            return await self._answer_pod(resource, path, request)
        if path.name:
            return await self._answer_object(resource, path, request)
        return await self._answer_collection(resource, path, request)

    async def _answer_collection(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        match request.method:
            case "GET" if request.flag("watch"):
                return self.watches.answer(resource, path.namespace, request)
            case "GET":
                return self._lists.answer(resource, path.namespace, request)
            case "POST":
                return await self._create(resource, path, request)
            case "DELETE" if "deletecollection" in resource.verbs:
                return await self._delete_collection(resource, path, request)
            case _:
                raise MethodNotAllowedError

    async def _answer_object(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        match request.method:
            case "GET":
                return self._get(resource, path, request)
            case "PUT":
                return await self._update(resource, path, request)
            case "PATCH":
                return await self._patch(resource, path, request)
            case "DELETE" if not path.subresource:
                return await self._delete(resource, path, request)
            case _:
                raise MethodNotAllowedError

    async def _answer_pod(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        match path.subresource, request.method:
            case "binding", "POST":
                return await bind(self._objects, resource, path, request)
            case "eviction", "POST":
                return await evict(self._objects, resource, path, request)
            case "log", "GET":
                return await read_log(self._objects, self._providers, resource, path, request)
            case "exec" | "attach" | "portforward", "GET" | "POST":
                raise BadRequestError(_SPDY if "spdy" in request.headers.get("upgrade", "").lower() else _NO_UPGRADE)
            case _:
                raise MethodNotAllowedError

    def _review(self, resource: ResourceType, review: Review, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        if request.method != "POST" or path.name:
            raise MethodNotAllowedError
        # kubectl auth asks in protobuf; the answer depends on the asker alone, so the question need not be read.
        opaque = request.content_type == PROTOBUF and resource.plural != "tokenreviews"
        value: JsonObject = {} if opaque else read_object(request)
        check_identity(resource, value, path.namespace, "")
        value["status"] = review(value, request.user or UserInfo(), self._authenticate)
        return ApiResponse.json(value, 201)

    def _get(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        representation = Representation.of(request)
        stored = self._objects.get(resource, path.namespace, path.name)
        value = self._objects.served(resource, stored)
        if path.subresource == "scale":
            return ApiResponse.json(scale_of(resource, value))
        return representation.answer(resource, value, self._objects.now())

    async def _create(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        representation = Representation.of(request)
        options = write_options(request)
        value = read_object(request)
        created = await self._objects.create(resource, path.namespace, value, options)
        return _with_warnings(representation.answer(resource, created, self._objects.now(), 201), options.warnings)

    async def _update(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        value = read_object(request)

        def replace(old: JsonObject) -> JsonObject:
            _check_same_object(resource, value, old)
            return value

        return await self._change(resource, path, request, replace)

    async def _patch(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        if request.content_type == _APPLY_PATCH:
            return await self._apply(resource, path, request)
        patch = self._patcher(resource, request)
        return await self._change(resource, path, request, patch)

    async def _apply(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        representation = Representation.of(request)
        configuration = read_object(request)
        options = apply_options(request, path.subresource)
        if configuration["metadata"].get("managedFields"):
            raise BadRequestError("metadata.managedFields must be nil")
        if not configuration.get("apiVersion") or not configuration.get("kind"):
            raise BadRequestError("the applied configuration must state apiVersion and kind")
        value, created = await self._objects.apply(
            resource, path.namespace, path.name, configuration, options, force=request.flag("force")
        )
        answer = representation.answer(resource, value, self._objects.now(), 201 if created else 200)
        return _with_warnings(answer, options.warnings)

    def _patcher(self, resource: ResourceType, request: ApiRequest) -> Callable[[JsonObject], JsonObject]:
        kind = request.content_type
        if kind == _JSON_PATCH:
            operations = read_value(request)
            return lambda old: _as_object(apply_json_patch(old, operations))
        if kind == _MERGE_PATCH:
            body = _patch_object(request)
            return lambda old: _as_object(apply_merge_patch(old, body))
        if kind == _STRATEGIC_PATCH and not resource.custom:
            strategic = _patch_object(request)
            return lambda old: apply_strategic_patch(old, strategic)
        accepted = [_JSON_PATCH, _MERGE_PATCH, _APPLY_PATCH]
        if not resource.custom:
            accepted.insert(2, _STRATEGIC_PATCH)
        raise UnsupportedMediaError(accepted)

    async def _change(
        self,
        resource: ResourceType,
        path: ResourcePath,
        request: ApiRequest,
        transform: Callable[[JsonObject], JsonObject],
    ) -> ApiResponse:
        representation = Representation.of(request)
        options = write_options(request, path.subresource)
        if path.subresource == "scale":
            changed = await self._objects.update(
                resource, path.namespace, path.name, lambda old: with_scale(resource, old, transform), options
            )
            return ApiResponse.json(scale_of(resource, changed))
        changed = await self._objects.update(resource, path.namespace, path.name, transform, options)
        return _with_warnings(representation.answer(resource, changed, self._objects.now()), options.warnings)

    async def _delete(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        representation = Representation.of(request)
        options = delete_options(request)
        value, gone = await self._objects.delete(resource, path.namespace, path.name, options)
        if gone and not resource.strategy.returns_deleted:
            return ApiResponse.json(_deleted_status(resource, value))
        return representation.answer(resource, value, self._objects.now())

    async def _delete_collection(self, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
        options = delete_options(request)
        selects = selector_of(request, resource)
        rows = self._store.objects(resource.bucket, path.namespace or None)
        chosen = [row for row in rows if selects is None or selects(row.value)]
        metadata = {"resourceVersion": str(self._store.revision)}
        answer = Representation.of(request).many(resource, chosen, metadata, self._objects.now())
        for stored in chosen:
            uid = options.preconditions.uid or stored.uid
            same = replace(options, preconditions=replace(options.preconditions, uid=uid))
            try:
                await self._objects.delete(resource, stored.key.namespace, stored.key.name, same)
            except NotFoundError:
                # Somebody else was faster: gone is what was asked for.
                continue
            except ConflictError:
                if self._is_still(stored):
                    raise
        return answer

    def _is_still(self, stored: Stored) -> bool:
        present = self._store.latest(stored.key)
        return present is not None and present.uid == stored.uid


def _check_same_object(resource: ResourceType, value: JsonObject, old: JsonObject) -> None:
    """A UID in an update is a precondition; in a patch it is a change, which is refused.

    Raises:
        ConflictError: the object of that name is another one.
    """
    wanted, present = (value.get("metadata") or {}).get("uid"), old["metadata"].get("uid")
    if wanted and wanted != present:
        detail = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {present}"
        raise ConflictError(resource, old["metadata"]["name"], detail)


def _with_warnings(response: ApiResponse, warnings: list[str]) -> ApiResponse:
    response.warnings = warnings
    return response


def _deleted_status(resource: ResourceType, value: JsonObject) -> JsonObject:
    details: dict[str, Any] = {"name": value["metadata"]["name"]}
    if resource.group:
        details["group"] = resource.group
    details |= {"kind": resource.plural, "uid": value["metadata"].get("uid", "")}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _patch_object(request: ApiRequest) -> dict[str, Any]:
    body = read_value(request)
    if not isinstance(body, dict):
        raise BadRequestError(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        )
    return body


def _as_object(value: Any) -> JsonObject:
    if not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        raise StatusError(422, "Invalid", "the patch leaves no object with metadata", {})
    return value
