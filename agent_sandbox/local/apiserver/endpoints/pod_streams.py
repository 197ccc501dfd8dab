"""exec, attach and portforward: finds the Pod and the provider for a connection that a front wants to upgrade."""

from dataclasses import dataclass

from agent_sandbox.local.apiserver.errors import BadRequestError, InternalError
from agent_sandbox.local.apiserver.http import ApiRequest
from agent_sandbox.local.apiserver.objects import Objects
from agent_sandbox.local.apiserver.paths import ResourcePath
from agent_sandbox.local.apiserver.providers import ExecCall, ExecProvider, PodProviders, PortProvider, exec_call
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

STREAMING_SUBRESOURCES = frozenset({"exec", "attach", "portforward"})


@dataclass(frozen=True)
class ExecStream:
    """A command to run, or a process to attach to, once the connection stands."""

    call: ExecCall
    provider: ExecProvider


@dataclass(frozen=True)
class PortForwardStream:
    """Ports to connect to, once the connection stands."""

    pod: JsonObject
    ports: tuple[int, ...]
    provider: PortProvider


PodStream = ExecStream | PortForwardStream


def prepare_stream(
    objects: Objects, providers: PodProviders, resource: ResourceType, path: ResourcePath, request: ApiRequest
) -> PodStream:
    """Check a request for a stream before the connection is upgraded.

    Raises:
        StatusError: there is no such Pod or container, it runs nowhere, or an option is wrong.
    """
    pod = objects.served(resource, objects.get(resource, path.namespace, path.name))
    node = pod["spec"].get("nodeName")
    if not node:
        raise BadRequestError(f"pod {path.name} does not have a host assigned")
    if path.subresource == "portforward":
        if providers.port_forward is None:
            raise _not_connected(node, path.name)
        return PortForwardStream(pod, _ports(request), providers.port_forward)
    provider = providers.exec if path.subresource == "exec" else providers.attach
    if provider is None:
        raise _not_connected(node, path.name)
    call = exec_call(pod, request)
    if path.subresource == "exec" and not call.command:
        raise BadRequestError("you must specify at least 1 command for the container")
    if not (call.stdin or call.stdout or call.stderr):
        raise BadRequestError("you must specify at least one of stdin, stdout, stderr")
    return ExecStream(call, provider)


def _not_connected(node: str, pod: str) -> InternalError:
    return InternalError(f"the node {node} of pod {pod} is not connected: start it, then try again")


def _ports(request: ApiRequest) -> tuple[int, ...]:
    ports = []
    for value in request.parameters("ports"):
        for text in value.split(","):
            if not text.isdecimal() or not 0 < int(text) < 65536:
                raise BadRequestError(f'invalid port "{text}": must be between 1 and 65535')
            ports.append(int(text))
    return tuple(ports)
