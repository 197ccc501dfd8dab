"""The status of a Pod, computed the way a kubelet computes it.

A pure room: states of containers go in, the JSON of ``status`` comes out. Who writes it, and when, is in ``worker.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from agent_sandbox_api.meta import format_time
from agent_sandbox_api.views import ConditionView, find_condition

_Json = dict[str, Any]


@dataclass(frozen=True)
class Waiting:
    """Not running, and why."""

    reason: str
    message: str = ""

    def to_json(self) -> _Json:
        """The wire form."""
        return {"waiting": _without_empty({"reason": self.reason, "message": self.message})}


@dataclass(frozen=True)
class Running:
    """Running since."""

    started_at: datetime

    def to_json(self) -> _Json:
        """The wire form."""
        return {"running": {"startedAt": format_time(self.started_at)}}


@dataclass(frozen=True)
class Terminated:
    """Ended, how and when."""

    exit_code: int
    reason: str
    message: str
    started_at: datetime | None
    finished_at: datetime

    def to_json(self) -> _Json:
        """The wire form."""
        body = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "message": self.message,
            "startedAt": format_time(self.started_at) if self.started_at else "",
            "finishedAt": format_time(self.finished_at),
        }
        return {"terminated": {key: value for key, value in body.items() if value != ""}}


@dataclass(frozen=True)
class ContainerState:
    """One container as far as its status shows it; replaced, never changed.

    Attributes:
        name: of the container.
        image: as the Pod names it.
        state: what it does now.
        last: how its previous run ended.
        restart_count: how often it was started again.
        ready: its readiness.
        started: False until its startup probe succeeded.
        container_id: of the present or last run.
    """

    name: str
    image: str
    state: Waiting | Running | Terminated = Waiting("ContainerCreating")
    last: Terminated | None = None
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    def with_state(self, state: Waiting | Running | Terminated, **changes: Any) -> "ContainerState":
        """The same container in another state."""
        return replace(self, state=state, **changes)

    def to_json(self) -> _Json:
        """The wire form: one entry of ``containerStatuses``."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "containerID": self.container_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
            "state": self.state.to_json(),
            "lastState": self.last.to_json() if self.last else {},
        }


@dataclass(frozen=True)
class PodState:
    """A Pod as far as its status shows it.

    Attributes:
        containers: the main containers, in the order of the spec.
        init_containers: likewise.
        address: the Pod's address, empty until it has one.
        host_ip: the node's.
        started_at: when this node took the Pod.
        restart_policy: of the Pod.
        sidecars: names of the init containers that go on running.
        readiness_gates: conditions of others without which the Pod is not Ready.
        failure: reason and message if the Pod as a whole failed (deadline, refused).
        warnings: conditions beyond Kubernetes' own: type to message.
    """

    restart_policy: str
    host_ip: str
    containers: tuple[ContainerState, ...]
    init_containers: tuple[ContainerState, ...] = ()
    sidecars: frozenset[str] = frozenset()
    address: str = ""
    started_at: datetime | None = None
    failure: tuple[str, str] | None = None
    warnings: Mapping[str, str] = field(default_factory=dict)
    readiness_gates: tuple[str, ...] = ()


_INITIALIZED: Final = "Initialized"


def _without_empty(values: _Json) -> _Json:
    return {key: value for key, value in values.items() if value not in ("", None)}


def is_initialized(pod: PodState) -> bool:
    """True once every init container has done its part: succeeded, or, for a sidecar, started.

    It stays true when a sidecar starts again, or ends with the Pod: then a main container has begun.
    """
    if any(not isinstance(entry.state, Waiting) or entry.last is not None for entry in pod.containers):
        return True
    return all((entry.started if entry.name in pod.sidecars else _succeeded(entry)) for entry in pod.init_containers)


def _succeeded(entry: ContainerState) -> bool:
    return isinstance(entry.state, Terminated) and entry.state.exit_code == 0


def will_restart(state: ContainerState, policy: str) -> bool:
    """Whether a container that ended is started again."""
    if not isinstance(state.state, Terminated):
        return True
    return policy == "Always" or (policy == "OnFailure" and state.state.exit_code != 0)


def phase(pod: PodState) -> str:
    """Pending, Running, Succeeded or Failed, by the kubelet's rules."""
    if pod.failure is not None:
        return "Failed"
    if pod.restart_policy == "Never" and any(
        isinstance(entry.state, Terminated) and entry.state.exit_code != 0 and entry.name not in pod.sidecars
        for entry in pod.init_containers
    ):
        return "Failed"
    if not is_initialized(pod):
        return "Pending"
    ended = [entry for entry in pod.containers if not will_restart(entry, pod.restart_policy)]
    lasting = [entry for entry in pod.init_containers if entry.name in pod.sidecars]
    if len(ended) == len(pod.containers) and not any(isinstance(entry.state, Running) for entry in lasting):
        return "Succeeded" if all(_succeeded(entry) for entry in ended) else "Failed"
    never_ran = [entry for entry in pod.containers if isinstance(entry.state, Waiting) and entry.last is None]
    if never_ran and not any(isinstance(entry.state, Running) for entry in pod.containers):
        return "Pending"
    return "Running"


def _containers_readiness(pod: PodState, current: str) -> tuple[bool, str, str]:
    if current in {"Succeeded", "Failed"}:
        return False, "PodCompleted" if current == "Succeeded" else "PodFailed", ""
    lasting = [entry for entry in pod.init_containers if entry.name in pod.sidecars]
    unready = [entry.name for entry in (*lasting, *pod.containers) if not entry.ready]
    if not unready:
        return True, "", ""
    return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def _readiness(
    pod: PodState, containers: tuple[bool, str, str], previous: Sequence[ConditionView]
) -> tuple[bool, str, str]:
    if not containers[0]:
        return containers
    for gate in pod.readiness_gates:
        found = find_condition(tuple(previous), gate)
        if found is None or found.status != "True":
            is_now = found.status if found is not None else ""
            return False, "ReadinessGatesNotReady", f'pod readiness gate "{gate}" is not "True", but "{is_now}"'
    return True, "", ""


def _initialization(pod: PodState) -> tuple[bool, str, str]:
    if is_initialized(pod):
        return True, "", ""
    waiting = [entry.name for entry in pod.init_containers if not _succeeded(entry)]
    return False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting)}]"


def pod_status(pod: PodState, previous: Sequence[ConditionView], now: datetime) -> _Json:
    """What a kubelet writes of ``status``.

    A condition's time moves only when its status does; conditions that are not a kubelet's stay as they are.
    """
    current = phase(pod)
    containers_ready = _containers_readiness(pod, current)
    wanted = [
        ("PodScheduled", (True, "", "")),
        ("PodReadyToStartContainers", (bool(pod.address), "", "")),
        (_INITIALIZED, _initialization(pod)),
        ("ContainersReady", containers_ready),
        ("Ready", _readiness(pod, containers_ready, previous)),
        *((kind, (True, kind, message)) for kind, message in pod.warnings.items()),
    ]
    ours = {kind for kind, _ in wanted}
    conditions = [_condition(kind, verdict, previous, now) for kind, verdict in wanted]
    conditions += [_kept(entry) for entry in previous if entry.type not in ours]
    status: _Json = {
        "phase": current,
        "conditions": conditions,
        "hostIP": pod.host_ip,
        "hostIPs": [{"ip": pod.host_ip}],
        "containerStatuses": [entry.to_json() for entry in pod.containers],
    }
    if pod.init_containers:
        status["initContainerStatuses"] = [entry.to_json() for entry in pod.init_containers]
    if pod.started_at is not None:
        status["startTime"] = format_time(pod.started_at)
    # Null removes: the address of an ended Pod may be another one's soon.
    shown = pod.address if current not in {"Succeeded", "Failed"} else ""
    status |= {"podIP": shown or None, "podIPs": [{"ip": shown}] if shown else None}
    if pod.failure is not None:
        status |= {"reason": pod.failure[0], "message": pod.failure[1]}
    return status


def _kept(entry: ConditionView) -> _Json:
    since = format_time(entry.last_transition_time) if entry.last_transition_time is not None else ""
    body = {"type": entry.type, "status": entry.status, "reason": entry.reason, "message": entry.message}
    return _without_empty({**body, "lastTransitionTime": since})


def _condition(kind: str, verdict: tuple[bool, str, str], previous: Sequence[ConditionView], now: datetime) -> _Json:
    holds, reason, message = verdict
    word = "True" if holds else "False"
    old = find_condition(tuple(previous), kind)
    since = now
    if old is not None and old.status == word and old.last_transition_time is not None:
        since = old.last_transition_time
    body = {
        "type": kind,
        "status": word,
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(since),
    }
    return _without_empty(body)
