"""Views of Pod, Service, PersistentVolumeClaim, NetworkPolicy, Lease, Event, Namespace and CRD.

Each keeps what our controllers, router and node read of that kind, and drops the rest while decoding.
"""

from datetime import datetime

import msgspec

from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, MetaView, is_condition_true


class MetaOnlyView(msgspec.Struct, rename="camel", frozen=True):
    """Any object of which only the metadata matters."""

    metadata: MetaView


class PodIP(msgspec.Struct, frozen=True):
    """One of a Pod's addresses."""

    ip: str = ""


class ContainerStateDetail(msgspec.Struct, rename="camel", frozen=True):
    """Why a container waits or ended."""

    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class ContainerState(msgspec.Struct, rename="camel", frozen=True):
    """Exactly one of these is set."""

    waiting: ContainerStateDetail | None = None
    terminated: ContainerStateDetail | None = None


class ContainerStatusView(msgspec.Struct, rename="camel", frozen=True):
    """The state of one container."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodSpecView(msgspec.Struct, rename="camel", frozen=True):
    """Where the Pod was bound."""

    node_name: str = ""


class PodStatusView(msgspec.Struct, rename="camel", frozen=True):
    """The parts of a Pod's status that decide readiness and explain its absence."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[ConditionView, ...] = ()
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    pod_ip: str = msgspec.field(default="", name="podIP")
    container_statuses: tuple[ContainerStatusView, ...] = ()
    init_container_statuses: tuple[ContainerStatusView, ...] = ()


class PodView(msgspec.Struct, rename="camel", frozen=True):
    """A cached Pod: metadata, node, and the status that decides readiness."""

    metadata: MetaView
    spec: PodSpecView = PodSpecView()
    status: PodStatusView = PodStatusView()

    @property
    def ips(self) -> tuple[str, ...]:
        """All addresses of the Pod, the primary first; empty until it has one."""
        many = tuple(entry.ip for entry in self.status.pod_ips if entry.ip)
        return many or ((self.status.pod_ip,) if self.status.pod_ip else ())

    @property
    def ready(self) -> bool:
        """True if the Pod serves now: running, Ready, addressed, and not on its way out."""
        return (
            self.status.phase == "Running"
            and is_condition_true(self.status.conditions, "Ready")
            and bool(self.ips)
            and not self.metadata.deleting
        )


class ServiceSpecView(msgspec.Struct, rename="camel", frozen=True):
    """What our controllers compare of a Service."""

    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    selector: dict[str, str] = {}
    ports: msgspec.Raw = msgspec.Raw(b"[]")


class ServiceView(msgspec.Struct, rename="camel", frozen=True):
    """A cached Service."""

    metadata: MetaView
    spec: ServiceSpecView = ServiceSpecView()


class PvcStatusView(msgspec.Struct, rename="camel", frozen=True):
    """Whether the claim is bound."""

    phase: str = ""


class PvcView(msgspec.Struct, rename="camel", frozen=True):
    """A cached PersistentVolumeClaim."""

    metadata: MetaView
    status: PvcStatusView = PvcStatusView()


class NetworkPolicyView(msgspec.Struct, rename="camel", frozen=True):
    """A cached NetworkPolicy; its spec stays JSON because we compare it as a whole."""

    metadata: MetaView
    spec: msgspec.Raw = msgspec.Raw(b"{}")


class LeaseSpecView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """Who leads, since when, and for how long."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    lease_transitions: int | None = None


class LeaseView(msgspec.Struct, rename="camel", frozen=True):
    """A coordination.k8s.io Lease."""

    metadata: MetaView
    spec: LeaseSpecView = LeaseSpecView()


PODS: Resource[PodView] = Resource("", "v1", "pods", "Pod", PodView)
SERVICES: Resource[ServiceView] = Resource("", "v1", "services", "Service", ServiceView)
PERSISTENT_VOLUME_CLAIMS: Resource[PvcView] = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", PvcView
)
NETWORK_POLICIES: Resource[NetworkPolicyView] = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", NetworkPolicyView
)
LEASES: Resource[LeaseView] = Resource("coordination.k8s.io", "v1", "leases", "Lease", LeaseView)
EVENTS: Resource[MetaOnlyView] = Resource("events.k8s.io", "v1", "events", "Event", MetaOnlyView)
NAMESPACES: Resource[MetaOnlyView] = Resource("", "v1", "namespaces", "Namespace", MetaOnlyView, namespaced=False)
CUSTOM_RESOURCE_DEFINITIONS: Resource[MetaOnlyView] = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    MetaOnlyView,
    namespaced=False,
)
