"""Which Pods this node can run at all. What it cannot give it refuses by name; it never runs a Pod with less."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent_sandbox.local.node.pods import Pod


@dataclass(frozen=True)
class Refusal:
    """Why a Pod stays Pending; ``message`` says what to change."""

    message: str


def refusal(pod: Pod, labels: Mapping[str, str]) -> Refusal | None:
    """Why this node cannot take the Pod, or None if it can.

    Args:
        pod: the Pod.
        labels: the node's labels.
    """
    spec = pod.spec
    for asked, name in ((spec.host_network, "hostNetwork"), (spec.host_pid, "hostPID"), (spec.host_ipc, "hostIPC")):
        if asked:
            return Refusal(f"{name} is not allowed on the local node: a Pod never shares namespaces with this machine")
    for container in (*spec.init_containers, *spec.containers):
        if container.security_context.privileged:
            return Refusal(f"container {container.name!r} asks to be privileged, which the local node does not allow")
    for volume in spec.volumes:
        if "hostPath" in volume:
            return Refusal(f"volume {volume.get('name')!r} is a hostPath, which the local node does not allow")
    for key, value in spec.node_selector.items():
        if labels.get(key) != value:
            return Refusal(f"nodeSelector {key}={value} matches no label of the local node")
    return None
