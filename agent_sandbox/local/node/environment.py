"""The environment of a container, and ``$(NAME)`` in its command, by Kubernetes' rules."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Final

from agent_sandbox.local.node.errors import ContainerError
from agent_sandbox.local.node.pods import Container, EnvVar, Pod, ResourceSelector
from agent_sandbox.local.quantities import parse_quantity

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")
_KEYED: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


@dataclass(frozen=True)
class Facts:
    """What the environment may refer to.

    Attributes:
        pod: the Pod.
        pod_ip: its address.
        host_ip: the node's address.
        node_name: the node's name.
        config_maps: data of ConfigMaps by name, as far as the container refers to them.
        secrets: data of Secrets by name, decoded.
        capacity: what the node has, for limits that a container does not set.
    """

    pod: Pod
    pod_ip: str
    host_ip: str
    node_name: str
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    capacity: Mapping[str, Decimal] = field(default_factory=dict)


MAX_TEXT: Final = 128 * 1024
"""The longest variable or argument that Linux hands to a program (MAX_ARG_STRLEN)."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where NAME is known; ``$$`` is a dollar sign; unknown references stay as they are.

    >>> expand("$(A) $$(A) $(B)", {"A": "1"})
    '1 $(A) $(B)'

    Raises:
        ContainerError: it grows beyond what any program can be given. Each variable may name the one before it twice.
    """
    room = MAX_TEXT

    def value(match: re.Match[str]) -> str:
        nonlocal room
        name = match.group(1)
        found = "$" if name is None else variables.get(name, match.group(0))
        room -= len(found)
        if room < 0:
            text = f"a variable or argument grows beyond {MAX_TEXT} characters by the references in it"
            raise ContainerError("CreateContainerConfigError", text)
        return found

    return _REFERENCE.sub(value, text)


def pod_field(path: str, facts: Facts) -> str:
    """The value of a downward API field.

    Raises:
        ContainerError: there is no such field.
    """
    metadata = facts.pod.metadata
    keyed = _KEYED.fullmatch(path)
    if keyed:
        values = metadata.labels if keyed.group(1) == "labels" else metadata.annotations
        return values.get(keyed.group(2), "")
    known = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": facts.pod.spec.service_account_name or "default",
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path in known:
        return known[path]
    if path in {"metadata.labels", "metadata.annotations"}:
        mapping = metadata.labels if path.endswith("labels") else metadata.annotations
        return "\n".join(f'{key}="{value}"' for key, value in sorted(mapping.items()))
    raise ContainerError("CreateContainerConfigError", f"fieldRef {path!r} is not a field of a Pod known here")


def resource_value(selector: ResourceSelector, facts: Facts, container: str = "") -> str:
    """A container's own limit or request in units of the divisor, rounded up; for a missing limit the node's capacity.

    Args:
        selector: which one.
        facts: the Pod and the node.
        container: whose, unless the selector names another one.

    Raises:
        ContainerError: there is no such container or resource.
    """
    wanted = selector.container_name or container
    spec = facts.pod.spec
    found = next((entry for entry in (*spec.containers, *spec.init_containers) if entry.name == wanted), None)
    kind, _, name = selector.resource.partition(".")
    if found is None or kind not in {"limits", "requests"}:
        raise ContainerError(
            "CreateContainerConfigError",
            f"resourceFieldRef {selector.resource!r} of container {wanted!r}: no such resource or container",
        )
    limits, requests = found.resources.limits, found.resources.requests
    value = limits.get(name) if kind == "limits" else requests.get(name, limits.get(name))
    if value is None:
        amount = facts.capacity.get(name, Decimal(0)) if kind == "limits" else Decimal(0)
    else:
        amount = parse_quantity(value)
    divisor = parse_quantity(selector.divisor) if selector.divisor else Decimal(1)
    return str(int((amount / (divisor or Decimal(1))).to_integral_value(ROUND_CEILING)))


def _object_value(
    kind: str, objects: Mapping[str, Mapping[str, str]], name: str, key: str, *, optional: bool
) -> str | None:
    found = objects.get(name)
    if found is not None and key in found:
        return found[key]
    if optional:
        return None
    missing = f"{kind} {name!r} not found" if found is None else f"couldn't find key {key!r} in {kind} {name!r}"
    raise ContainerError("CreateContainerConfigError", missing)


def _value(variable: EnvVar, facts: Facts, so_far: Mapping[str, str], container: str) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value, so_far)
    if source.field_ref is not None:
        return pod_field(source.field_ref.field_path, facts)
    if source.resource_field_ref is not None:
        return resource_value(source.resource_field_ref, facts, container)
    if source.config_map_key_ref is not None:
        ref = source.config_map_key_ref
        return _object_value("configmap", facts.config_maps, ref.name, ref.key, optional=ref.optional)
    if source.secret_key_ref is not None:
        ref = source.secret_key_ref
        return _object_value("secret", facts.secrets, ref.name, ref.key, optional=ref.optional)
    raise ContainerError(
        "CreateContainerConfigError", f"the source of variable {variable.name!r} is not supported by the local node"
    )


def container_environment(container: Container, facts: Facts, base: Mapping[str, str]) -> dict[str, str]:
    """All variables of a container: the image's, then ``envFrom``, then ``env``; the later wins.

    Args:
        container: the container.
        facts: what its variables may refer to.
        base: the image's own variables.

    Raises:
        ContainerError: a reference leads nowhere.
    """
    result = dict(base)
    result["HOSTNAME"] = facts.pod.spec.hostname or facts.pod.metadata.name
    for many in container.env_from:
        for kind, ref, objects in (
            ("configmap", many.config_map_ref, facts.config_maps),
            ("secret", many.secret_ref, facts.secrets),
        ):
            if ref is None:
                continue
            if ref.name not in objects and not ref.optional:
                raise ContainerError("CreateContainerConfigError", f"{kind} {ref.name!r} not found")
            result |= {f"{many.prefix}{key}": value for key, value in objects.get(ref.name, {}).items()}
    for variable in container.env:
        value = _value(variable, facts, result, container.name)
        if value is not None:
            result[variable.name] = value
    return result


def container_command(container: Container, entrypoint: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """What a container runs, before ``$(NAME)`` is expanded: ``command`` replaces the image's entrypoint and, with it,
    its arguments; ``args`` replaces the arguments alone.

    Raises:
        ContainerError: neither the container nor the image names a command.
    """
    if container.command:
        whole = [*container.command, *container.args]
    else:
        whole = [*entrypoint, *(container.args or arguments)]
    if not whole:
        raise ContainerError(
            "CreateContainerError",
            f"no command specified: container {container.name!r} has none, nor has image {container.image!r}",
        )
    return whole
