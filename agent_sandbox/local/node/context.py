"""What all parts of the node share, and the options by which they behave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient
from agent_sandbox.local.node.addresses import AddressPool
from agent_sandbox.local.node.cgroups import Cgroups
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.oci import ImageSource
from agent_sandbox.local.node.pods import Pod
from agent_sandbox.local.node.records import NodeDirectory
from agent_sandbox.local.node.runtime import Runtimes
from agent_sandbox.runtime.events import EventType

ReportEvent = Callable[[Pod, EventType, str, str], None]
"""Pod, ``Normal`` or ``Warning``, reason, message. Returns at once."""


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """How the node behaves.

    Attributes:
        name: the node's name, in ``spec.nodeName`` of its Pods.
        host_ip: what Pods show as ``status.hostIP``. Loopback, because no address of the machine leads to Pods.
        unisolated: run Pods as bare processes where (or although) isolation is possible. Off unless the user asks.
        restart_backoff: seconds before the second restart of a container that ends at once; doubles with each. The
            first restart is immediate. 10, as the kubelet.
        restart_backoff_max: upper bound of that, 300 as the kubelet.
        restart_backoff_reset: a run of this many seconds forgives all earlier ones, 600 as the kubelet.
        stop_grace: seconds that containers get to end when the node itself stops. Short: a user waits at a prompt.
        status_settle: seconds that the first status waits for readiness, so that a Pod that becomes ready at once
            costs one write instead of two.
        payload_period: seconds between looks at the ConfigMaps and Secrets that volumes show, 60 as the kubelet's
            syncFrequency.
        disk_period: seconds between looks at the disk space that Pods use, 10 as the kubelet's housekeeping.
        disk_reserve: bytes of disk that stay free: below, the node has DiskPressure, takes no Pods and evicts the
            largest. None: a twentieth of the disk, at most 1 GiB.
        max_processes: processes and threads of one container: many times what an agent needs, and the end of a fork
            bomb. The kubelet's podPidsLimit.
        reconsider_period: seconds between two looks at Pods that the node could not take.
        labels: labels that a Pod's nodeSelector may ask for.
        survival: seconds that Pods outlive a killed node, waiting for the next one.
    """

    name: str = "local"
    host_ip: str = "127.0.0.1"
    unisolated: bool = False
    restart_backoff: float = 10.0
    restart_backoff_max: float = 300.0
    restart_backoff_reset: float = 600.0
    stop_grace: float = 2.0
    status_settle: float = 1.0
    payload_period: float = 60.0
    disk_period: float = 10.0
    disk_reserve: int | None = None
    max_processes: int = 2048
    reconsider_period: float = 5.0
    survival: float = 300.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeContext:
    """The node as its Pods' workers see it."""

    client: KubeClient
    clock: Clock
    options: NodeOptions
    directory: NodeDirectory
    network: PodNetwork
    runtimes: Runtimes
    addresses: AddressPool
    base_environment: Mapping[str, str]
    cgroups: Cgroups | None
    """Where containers get their limits; None where this machine allows none."""
    images: ImageSource
    capacity: Mapping[str, Decimal]
    """What the machine has (``capacity``)."""
    labels: Mapping[str, str]
    """Labels of the Node object."""
    enforced: Callable[[], anyio.Event]
    """Gives an event that is set once the network policies of this moment are enforced."""
    report: ReportEvent
    root: bool
    """Whether Pods get host uids of their own."""
