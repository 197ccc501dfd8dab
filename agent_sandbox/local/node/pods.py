"""Pods as this node reads them: the view of the Pod kind that keeps a whole PodSpec, as far as a kubelet needs it."""

from datetime import datetime
from typing import Any, Final

import msgspec

from agent_sandbox_api.core.kinds import ContainerState as ContainerStateView
from agent_sandbox_api.core.kinds import ContainerStateDetail, ContainerStatusView, PodStatusView
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView, raw_object

_Object = dict[str, Any]


class KeySelector(msgspec.Struct, frozen=True):
    """One key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class FieldSelector(msgspec.Struct, rename="camel", frozen=True):
    """A field of the Pod itself, such as ``metadata.name``."""

    field_path: str = ""


class ResourceSelector(msgspec.Struct, rename="camel", frozen=True):
    """A container's own limit or request."""

    resource: str = ""
    container_name: str = ""
    divisor: str = ""


class EnvSource(msgspec.Struct, rename="camel", frozen=True):
    """Where a variable's value comes from."""

    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(msgspec.Struct, rename="camel", frozen=True):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvSource | None = None


class EnvFromRef(msgspec.Struct, frozen=True):
    """A ConfigMap or Secret all of whose keys become variables."""

    name: str = ""
    optional: bool = False


class EnvFrom(msgspec.Struct, rename="camel", frozen=True):
    """Variables from all keys of an object."""

    prefix: str = ""
    config_map_ref: EnvFromRef | None = None
    secret_ref: EnvFromRef | None = None


class VolumeMount(msgspec.Struct, rename="camel", frozen=True):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


class HttpGet(msgspec.Struct, rename="camel", frozen=True):
    """A probe by HTTP: any status from 200 to 399 is success."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[_Object, ...] = ()


class TcpSocket(msgspec.Struct, frozen=True):
    """A probe by connecting."""

    port: int | str
    host: str = ""


class ExecAction(msgspec.Struct, frozen=True):
    """A probe or hook by running a command in the container: exit code 0 is success."""

    command: tuple[str, ...] = ()


class Probe(msgspec.Struct, rename="camel", frozen=True):
    """How a container is asked for its health. Times in seconds, with Kubernetes' defaults.

    ``termination_grace_period_seconds`` is the time that a container found unhealthy gets to end; None: the Pod's.
    """

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: ExecAction | None = None
    grpc: _Object | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class SleepAction(msgspec.Struct, frozen=True):
    """A hook that does nothing for so many seconds."""

    seconds: int = 0


class Handler(msgspec.Struct, rename="camel", frozen=True):
    """A lifecycle hook."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: ExecAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(msgspec.Struct, rename="camel", frozen=True):
    """Hooks at a container's start and before its stop."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None


class ContainerPort(msgspec.Struct, rename="camel", frozen=True):
    """A named port, so that probes can refer to it."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class ContainerSecurity(msgspec.Struct, rename="camel", frozen=True):
    """The parts of a security context that this node honours, or refuses."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    privileged: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities: _Object = {}


class ContainerResources(msgspec.Struct, frozen=True):
    """Limits and requests, as quantities."""

    limits: dict[str, str | int | float] = {}
    requests: dict[str, str | int | float] = {}


class Container(msgspec.Struct, rename="camel", frozen=True):
    """One container of a Pod."""

    name: str
    image: str = ""
    image_pull_policy: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: ContainerSecurity = ContainerSecurity()
    resources: ContainerResources = ContainerResources()
    restart_policy: str = ""
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class PodSecurity(msgspec.Struct, rename="camel", frozen=True):
    """Defaults of all containers of a Pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None


class HostAlias(msgspec.Struct, frozen=True):
    """One more line of ``/etc/hosts``."""

    ip: str = ""
    hostnames: tuple[str, ...] = ()


class ReadinessGate(msgspec.Struct, rename="camel", frozen=True):
    """A condition, set by somebody else, without which the Pod is not Ready."""

    condition_type: str = ""


class PodSpec(msgspec.Struct, rename="camel", frozen=True):
    """What is wanted of a Pod."""

    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[_Object, ...] = ()
    node_name: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    runtime_class_name: str = ""
    service_account_name: str = ""
    hostname: str = ""
    subdomain: str = ""
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    node_selector: dict[str, str] = {}
    share_process_namespace: bool = False
    host_aliases: tuple[HostAlias, ...] = ()
    readiness_gates: tuple[ReadinessGate, ...] = ()
    scheduling_gates: tuple[_Object, ...] = ()
    security_context: PodSecurity = PodSecurity()


class StateDetail(ContainerStateDetail, rename="camel", frozen=True):
    """Why a container waits or ended, and when it began and did."""

    started_at: datetime | None = None
    finished_at: datetime | None = None


class StateView(ContainerStateView, rename="camel", frozen=True):
    """Exactly one of these is set."""

    waiting: StateDetail | None = None
    running: StateDetail | None = None
    terminated: StateDetail | None = None


class StatusOfContainer(ContainerStatusView, rename="camel", frozen=True):
    """What this node wrote of a container, for the node that takes it over."""

    state: StateView = StateView()
    last_state: StateView = StateView()
    started: bool | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class StatusOfPod(PodStatusView, rename="camel", frozen=True):
    """What this node wrote of a Pod."""

    container_statuses: tuple[StatusOfContainer, ...] = ()
    init_container_statuses: tuple[StatusOfContainer, ...] = ()
    start_time: datetime | None = None


class Pod(msgspec.Struct, rename="camel", frozen=True):
    """A Pod with all that this node acts upon."""

    metadata: MetaView
    spec: PodSpec = PodSpec()
    status: StatusOfPod = StatusOfPod()

    @property
    def key(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def sidecars(self) -> frozenset[str]:
        """Names of the init containers that go on running beside the main ones."""
        return frozenset(entry.name for entry in self.spec.init_containers if entry.restart_policy == "Always")


class StoredPod(msgspec.Struct, frozen=True):
    """A Pod as the informer keeps it: its spec stays JSON, so that one odd Pod cannot stop the watch of all."""

    metadata: MetaView
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: StatusOfPod = StatusOfPod()

    def decode(self) -> Pod:
        """The whole Pod.

        Raises:
            msgspec.ValidationError: the spec has a field of a wrong type; the message names it.
        """
        spec = msgspec.convert(_without_nulls(raw_object(self.spec)), PodSpec)
        return Pod(self.metadata, spec, self.status)


def _without_nulls(value: Any) -> Any:
    """Null is the same as absent, as in every Kubernetes object."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value


NODE_PODS: Final[Resource[StoredPod]] = Resource("", "v1", "pods", "Pod", StoredPod)
