"""What can be done to a Pod beside changing it: bind, evict, read its log."""

from collections.abc import AsyncIterator

from agent_sandbox.local.apiserver.endpoints.bodies import read_object
from agent_sandbox.local.apiserver.endpoints.options import write_options
from agent_sandbox.local.apiserver.errors import BadRequestError, ConflictError, InternalError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse
from agent_sandbox.local.apiserver.objects import DeleteOptions, Objects
from agent_sandbox.local.apiserver.paths import ResourcePath
from agent_sandbox.local.apiserver.providers import PodProviders, log_call
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox_api.meta import format_time

_CREATED = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def bind(objects: Objects, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
    """Give the Pod to a node, as a scheduler does.

    Raises:
        StatusError: there is no such Pod, it is bound already, or it is on its way out.
    """
    node = (read_object(request).get("target") or {}).get("name")
    if not node:
        raise BadRequestError("target.name: Required value")
    now = format_time(objects.now())

    def bound(pod: JsonObject) -> JsonObject:
        present = pod["spec"].get("nodeName")
        if present:
            raise ConflictError(resource, path.name, f'pod {path.name} is already assigned to node "{present}"')
        if pod["metadata"].get("deletionTimestamp"):
            raise ConflictError(resource, path.name, f"pod {path.name} is being deleted, cannot be assigned to a host")
        pod["spec"]["nodeName"] = node
        conditions = [entry for entry in pod["status"].get("conditions") or [] if entry["type"] != "PodScheduled"]
        conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})
        pod["status"]["conditions"] = conditions
        return pod

    await objects.update(resource, path.namespace, path.name, bound, write_options(request, "binding"))
    return ApiResponse.json(_CREATED, 201)


async def evict(objects: Objects, resource: ResourceType, path: ResourcePath, request: ApiRequest) -> ApiResponse:
    """Delete the Pod on behalf of whoever drains its node; there are no disruption budgets here."""
    options = DeleteOptions.parse(read_object(request).get("deleteOptions") or {})
    await objects.delete(resource, path.namespace, path.name, options)
    return ApiResponse.json(_CREATED, 201)


async def read_log(
    objects: Objects, providers: PodProviders, resource: ResourceType, path: ResourcePath, request: ApiRequest
) -> ApiResponse:
    """Stream a container's output.

    Raises:
        StatusError: there is no such Pod or container, or its log cannot be read now.
    """
    pod = objects.served(resource, objects.get(resource, path.namespace, path.name))
    call = log_call(pod, request, objects.now())
    if not pod["spec"].get("nodeName"):
        # A Pod that never ran has said nothing.
        return ApiResponse(204, {})
    if providers.log is None:
        raise InternalError(f"the node {pod['spec']['nodeName']} of pod {path.name} is not connected")
    chunks = providers.log(call)
    if call.follow:
        # A silent container must not hold back the answer's head.
        return ApiResponse(200, {"Content-Type": "text/plain"}, stream=chunks)
    # The first chunk is waited for here, so that a refusal becomes a status and not a broken stream.
    first = await anext(chunks, b"")
    return ApiResponse(200, {"Content-Type": "text/plain"}, stream=_continued(first, chunks))


async def _continued(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
