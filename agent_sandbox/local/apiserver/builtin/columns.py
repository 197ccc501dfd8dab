"""What ``kubectl get`` shows of built-in kinds."""

from collections.abc import Callable
from typing import Any

from agent_sandbox.local.apiserver.jsonpath import first_at
from agent_sandbox.local.apiserver.resource_type import Column, JsonObject

NAME = Column("Name", lambda value: value["metadata"]["name"], format="name")
AGE = Column("Age", lambda value: value["metadata"].get("creationTimestamp"), relative=True)
_NONE = "<none>"
_UNSET = "<unset>"


def _at(path: str, absent: Any = _NONE) -> Callable[[JsonObject], Any]:
    def read(value: JsonObject) -> Any:
        found = first_at(value, path)
        return absent if found in (None, "", [], {}) else found

    return read


def selector_text(selector: JsonObject | None) -> str:
    """A selector as ``kubectl get -o wide`` prints it."""
    if not selector:
        return _NONE
    labels = (
        selector.get("matchLabels", {}) if "matchLabels" in selector or "matchExpressions" in selector else selector
    )
    parts = [f"{key}={entry}" for key, entry in sorted(labels.items())]
    for entry in selector.get("matchExpressions") or () if isinstance(selector.get("matchExpressions"), list) else ():
        operator = {"In": "in", "NotIn": "notin"}.get(entry["operator"])
        if operator:
            parts.append(f"{entry['key']} {operator} ({','.join(sorted(entry.get('values') or []))})")
        else:
            parts.append(entry["key"] if entry["operator"] == "Exists" else f"!{entry['key']}")
    return ",".join(parts) or _NONE


def _container_statuses(value: JsonObject) -> list[JsonObject]:
    return (value.get("status") or {}).get("containerStatuses") or []


def _pod_ready(value: JsonObject) -> str:
    ready = sum(bool(entry.get("ready")) for entry in _container_statuses(value))
    return f"{ready}/{len(value['spec'].get('containers') or [])}"


def pod_status_word(value: JsonObject) -> str:
    """The STATUS column of ``kubectl get pods``: the most telling reason there is."""
    status = value.get("status") or {}
    word = status.get("reason") or status.get("phase") or "Unknown"
    word = _init_word(value, status) or _container_word(status, word)
    if value["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return str(word)


def _init_word(value: JsonObject, status: JsonObject) -> str:
    total = len(value["spec"].get("initContainers") or [])
    for index, entry in enumerate(status.get("initContainerStatuses") or []):
        state = entry.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and terminated.get("exitCode") == 0:
            continue
        if terminated is not None:
            return "Init:" + (terminated.get("reason") or _exit_word(terminated))
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return "Init:" + str(waiting["reason"])
        return f"Init:{index}/{total}"
    return ""


def _container_word(status: JsonObject, word: str) -> str:
    running_and_ready = False
    for entry in reversed(status.get("containerStatuses") or []):
        state = entry.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting is not None and waiting.get("reason"):
            word = waiting["reason"]
        elif terminated is not None:
            word = terminated.get("reason") or _exit_word(terminated)
        elif entry.get("ready") and state.get("running") is not None:
            running_and_ready = True
    if word == "Completed" and running_and_ready:
        ready = first_at(status, ".conditions[?(@.type=='Ready')].status") == "True"
        return "Running" if ready else "NotReady"
    return word


def _exit_word(terminated: JsonObject) -> str:
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _pod_restarts(value: JsonObject) -> str:
    return str(sum(entry.get("restartCount", 0) for entry in _container_statuses(value)))


def _readiness_gates(value: JsonObject) -> str:
    gates = value["spec"].get("readinessGates") or []
    if not gates:
        return _NONE
    conditions = (value.get("status") or {}).get("conditions") or []
    true = {entry["type"] for entry in conditions if entry.get("status") == "True"}
    return f"{sum(gate['conditionType'] in true for gate in gates)}/{len(gates)}"


POD = (
    NAME,
    Column("Ready", _pod_ready),
    Column("Status", pod_status_word),
    Column("Restarts", _pod_restarts),
    AGE,
    Column("IP", _at(".status.podIP"), priority=1),
    Column("Node", _at(".spec.nodeName"), priority=1),
    Column("Nominated Node", _at(".status.nominatedNodeName"), priority=1),
    Column("Readiness Gates", _readiness_gates, priority=1),
)
NAMESPACE = (NAME, Column("Status", _at(".status.phase", "")), AGE)
SERVICE_ACCOUNT = (NAME, Column("Secrets", lambda value: str(len(value.get("secrets") or ())), "string"), AGE)
CONFIG_MAP = (
    NAME,
    Column("Data", lambda value: str(len(value.get("data") or {}) + len(value.get("binaryData") or {}))),
    AGE,
)
SECRET = (
    NAME,
    Column("Type", _at(".type", "Opaque")),
    Column("Data", lambda value: str(len(value.get("data") or {}))),
    AGE,
)


def _external_ip(value: JsonObject) -> str:
    spec = value["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", _NONE))
    ingress = first_at(value, ".status.loadBalancer.ingress") or []
    addresses = [entry.get("ip") or entry.get("hostname") for entry in ingress] + list(spec.get("externalIPs") or [])
    if addresses:
        return ",".join(addresses)
    return "<pending>" if spec.get("type") == "LoadBalancer" else _NONE


def _ports(value: JsonObject) -> str:
    ports = value["spec"].get("ports") or []
    texts = [
        f"{port['port']}:{port['nodePort']}/{port.get('protocol', 'TCP')}"
        if port.get("nodePort")
        else f"{port['port']}/{port.get('protocol', 'TCP')}"
        for port in ports
    ]
    return ",".join(texts) or _NONE


SERVICE = (
    NAME,
    Column("Type", _at(".spec.type")),
    Column("Cluster-IP", _at(".spec.clusterIP")),
    Column("External-IP", _external_ip),
    Column("Port(s)", _ports),
    AGE,
    Column("Selector", lambda value: selector_text(value["spec"].get("selector")), priority=1),
)
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(path: str) -> Callable[[JsonObject], str]:
    return lambda value: ",".join(_MODES.get(mode, mode) for mode in first_at(value, path) or ())


def _claim_phase(value: JsonObject) -> str:
    if value["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(first_at(value, ".status.phase") or "")


PVC = (
    NAME,
    Column("Status", _claim_phase),
    Column("Volume", _at(".spec.volumeName", "")),
    Column("Capacity", _at(".status.capacity.storage", "")),
    Column("Access Modes", _modes(".status.accessModes")),
    Column("StorageClass", _at(".spec.storageClassName", "")),
    Column("VolumeAttributesClass", _at(".spec.volumeAttributesClassName", _UNSET)),
    AGE,
    Column("VolumeMode", _at(".spec.volumeMode", _UNSET), priority=1),
)


def _bound_claim(value: JsonObject) -> str:
    claim = value["spec"].get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


PV = (
    NAME,
    Column("Capacity", _at(".spec.capacity.storage", "")),
    Column("Access Modes", _modes(".spec.accessModes")),
    Column("Reclaim Policy", _at(".spec.persistentVolumeReclaimPolicy", "")),
    Column("Status", _claim_phase),
    Column("Claim", _bound_claim),
    Column("StorageClass", _at(".spec.storageClassName", "")),
    Column("VolumeAttributesClass", _at(".spec.volumeAttributesClassName", _UNSET)),
    Column("Reason", _at(".status.reason", "")),
    AGE,
    Column("VolumeMode", _at(".spec.volumeMode", _UNSET), priority=1),
)


def _event_object(value: JsonObject) -> str:
    about = value.get("involvedObject") or {}
    kind, name = str(about.get("kind", "")).lower(), about.get("name")
    return f"{kind}/{name}" if name else kind


def _event_last(value: JsonObject) -> Any:
    series = (value.get("series") or {}).get("lastObservedTime")
    return series or value.get("lastTimestamp") or value.get("eventTime") or value["metadata"].get("creationTimestamp")


def _event_first(value: JsonObject) -> Any:
    return value.get("firstTimestamp") or value.get("eventTime") or value["metadata"].get("creationTimestamp")


def _event_source(value: JsonObject) -> str:
    source = value.get("source") or {}
    parts = [source.get("component") or value.get("reportingComponent"), source.get("host")]
    return ", ".join(str(part) for part in parts if part)


def _event_count(value: JsonObject) -> int:
    return int((value.get("series") or {}).get("count") or value.get("count") or 1)


EVENT = (
    Column("Last Seen", _event_last, relative=True),
    Column("Type", _at(".type", "")),
    Column("Reason", _at(".reason", "")),
    Column("Object", _event_object),
    Column("Subobject", _at(".involvedObject.fieldPath", ""), priority=1),
    Column("Source", _event_source, priority=1),
    Column("Message", lambda value: str(value.get("message", "")).strip()),
    Column("First Seen", _event_first, priority=1, relative=True),
    Column("Count", _event_count, "string", priority=1),
    Column("Name", lambda value: value["metadata"]["name"], format="name", priority=1),
)


def _node_status(value: JsonObject) -> str:
    ready = first_at(value, ".status.conditions[?(@.type=='Ready')].status")
    words = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if value.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(value: JsonObject) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = value["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or _NONE


def _node_address(kind: str) -> Callable[[JsonObject], Any]:
    return _at(f".status.addresses[?(@.type=='{kind}')].address")


NODE = (
    NAME,
    Column("Status", _node_status),
    Column("Roles", _node_roles),
    AGE,
    Column("Version", _at(".status.nodeInfo.kubeletVersion", "")),
    Column("Internal-IP", _node_address("InternalIP"), priority=1),
    Column("External-IP", _node_address("ExternalIP"), priority=1),
    Column("OS-Image", _at(".status.nodeInfo.osImage", "<unknown>"), priority=1),
    Column("Kernel-Version", _at(".status.nodeInfo.kernelVersion", "<unknown>"), priority=1),
    Column("Container-Runtime", _at(".status.nodeInfo.containerRuntimeVersion", "<unknown>"), priority=1),
)


def _endpoint_text(value: JsonObject) -> str:
    texts: list[str] = []
    for subset in value.get("subsets") or []:
        addresses = [entry["ip"] for entry in subset.get("addresses") or []]
        ports = [port["port"] for port in subset.get("ports") or []]
        texts += [f"{address}:{port}" for port in ports for address in addresses] or addresses
    shown = ",".join(texts[:3])
    return (f"{shown} + {len(texts) - 3} more..." if len(texts) > 3 else shown) or _NONE


ENDPOINTS = (NAME, Column("Endpoints", _endpoint_text), AGE)


def _workload_ready(value: JsonObject) -> str:
    return f"{first_at(value, '.status.readyReplicas') or 0}/{first_at(value, '.spec.replicas') or 0}"


WORKLOAD = (NAME, Column("Ready", _workload_ready), AGE)
NETWORK_POLICY = (NAME, Column("Pod-Selector", lambda value: selector_text(value["spec"].get("podSelector"))), AGE)
LEASE = (NAME, Column("Holder", _at(".spec.holderIdentity", "")), AGE)
STORAGE_CLASS = (
    NAME,
    Column("Provisioner", _at(".provisioner", "")),
    Column("ReclaimPolicy", _at(".reclaimPolicy", "Delete")),
    Column("VolumeBindingMode", _at(".volumeBindingMode", "Immediate")),
    Column("AllowVolumeExpansion", lambda value: bool(value.get("allowVolumeExpansion"))),
    AGE,
)
PRIORITY_CLASS = (
    NAME,
    Column("Value", lambda value: value.get("value", 0), "integer"),
    Column("Global-Default", lambda value: bool(value.get("globalDefault")), "boolean"),
    AGE,
    Column("PreemptionPolicy", _at(".preemptionPolicy", "PreemptLowerPriority")),
)
ROLE = (NAME, Column("Created At", lambda value: value["metadata"].get("creationTimestamp"), "date"))


def _role_reference(value: JsonObject) -> str:
    reference = value.get("roleRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


ROLE_BINDING = (NAME, Column("Role", _role_reference), AGE)
