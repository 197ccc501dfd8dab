"""Which Pods this node can run at all. What it cannot give it refuses by name; it never runs a Pod with less."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from agent_sandbox.local.node.eviction import storage_limit, volume_limits
from agent_sandbox.local.node.pods import Container, Pod, Probe
from agent_sandbox.local.quantities import parse_quantity


def requested(pod: Pod) -> dict[str, Decimal]:
    """What a Pod asks for: its containers together, or its hungriest init container if that is more."""
    total: dict[str, Decimal] = {}
    for container in pod.spec.containers:
        for name, value in container.resources.requests.items():
            total[name] = total.get(name, Decimal(0)) + parse_quantity(value)
    for container in pod.spec.init_containers:
        for name, value in container.resources.requests.items():
            total[name] = max(total.get(name, Decimal(0)), parse_quantity(value))
    return total


def probes_of(container: Container) -> tuple[Probe | None, ...]:
    """All probes of a container."""
    return container.startup_probe, container.readiness_probe, container.liveness_probe


def _asked_hosts(container: Container) -> Iterator[str]:
    """The hosts that its probes and hooks name: empty for the Pod's own address."""
    hooks = container.lifecycle
    handlers = (*probes_of(container), *((hooks.post_start, hooks.pre_stop) if hooks is not None else ()))
    for handler in handlers:
        for action in (handler.http_get, handler.tcp_socket) if handler is not None else ():
            if action is not None:
                yield action.host


@dataclass(frozen=True)
class Refusal:
    """Why a Pod stays Pending; ``message`` says what to change."""

    message: str


def refusal(
    pod: Pod, labels: Mapping[str, str], capacity: Mapping[str, Decimal] | None = None, *, pressure: bool = False
) -> Refusal | None:
    """Why this node cannot take the Pod, or None if it can.

    Args:
        pod: the Pod.
        labels: the node's labels.
        capacity: what the node has; a Pod that asks for more than all of it is refused. Sums over Pods are not
            counted: a laptop's sandboxes are idle most of the time.
        pressure: whether the node's disk is nearly full.
    """
    if pressure:
        return Refusal(
            "the node has DiskPressure: free disk space, for example by deleting sandboxes and their volumes"
        )
    try:
        asks = requested(pod)
        storage_limit(pod)
        volume_limits(pod)
    except ValueError as error:
        return Refusal(str(error))
    for name, asked in asks.items():
        if capacity and name in capacity and asked > capacity[name]:
            return Refusal(f"Insufficient {name}: the Pod asks for {asked}, the local node has {int(capacity[name])}")
    spec = pod.spec
    for shared, name in ((spec.host_network, "hostNetwork"), (spec.host_pid, "hostPID"), (spec.host_ipc, "hostIPC")):
        if shared:
            return Refusal(f"{name} is not allowed on the local node: a Pod never shares namespaces with this machine")
    for container in (*spec.init_containers, *spec.containers):
        if container.security_context.privileged:
            return Refusal(f"container {container.name!r} asks to be privileged, which the local node does not allow")
        if any(probe is not None and probe.grpc is not None for probe in probes_of(container)):
            return Refusal(f"container {container.name!r} has a gRPC probe, which the local node cannot ask; use exec")
        if host := next((host for host in _asked_hosts(container) if host), ""):
            return Refusal(
                f"container {container.name!r} has a probe or hook that asks host {host!r}: the node would get where "
                "the Pod itself may not; leave the host out, then the Pod is asked"
            )
    if spec.share_process_namespace:
        return Refusal("shareProcessNamespace is not available on the local node: each container has its own processes")
    for volume in spec.volumes:
        if "hostPath" in volume:
            return Refusal(f"volume {volume.get('name')!r} is a hostPath, which the local node does not allow")
    for key, value in spec.node_selector.items():
        if labels.get(key) != value:
            return Refusal(f"nodeSelector {key}={value} matches no label of the local node")
    return None
