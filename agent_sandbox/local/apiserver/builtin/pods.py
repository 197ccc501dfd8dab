"""Pods: the defaults that a kubelet relies on, what may change, and how long a deletion takes."""

from typing import Any

from agent_sandbox.local.apiserver.builtin.pod_rules import new_pod_causes
from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.metadata import label_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy, WriteContext

_DEFAULT_GRACE_SECONDS = 30
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def default_pod_spec(spec: JsonObject) -> None:
    """Fill a PodSpec as Kubernetes does, in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for field in _CONTAINER_LISTS:
        for container in spec.get(field) or []:
            _default_container(container)
    for volume in spec.get("volumes") or []:
        _default_volume(volume)


def _default_container(container: JsonObject) -> None:
    if container.get("image"):
        container.setdefault("imagePullPolicy", "Always" if _floats(container["image"]) else "IfNotPresent")
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    resources = container["resources"]
    for name, limit in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)
    for field in _PROBES:
        if container.get(field) is not None:
            _default_probe(container[field])


def _floats(image: str) -> bool:
    """True if the reference names no fixed tag: the newest image is wanted."""
    if "@" in image:
        return False
    last = image.rsplit("/", 1)[-1]
    return ":" not in last or last.endswith(":latest")


def _default_probe(probe: JsonObject) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    if probe.get("httpGet") is not None:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")


def _default_volume(volume: JsonObject) -> None:
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if volume.get(source) is not None:
            volume[source].setdefault("defaultMode", 0o644)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    if not set(volume) - {"name"}:
        volume["emptyDir"] = {}


def _default(value: JsonObject) -> None:
    spec = value.setdefault("spec", {})
    default_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    # The service account and priority admission plugins.
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"] = "default"
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("tolerations", [_lasting("not-ready"), _lasting("unreachable")])


def _lasting(taint: str) -> dict[str, Any]:
    return {
        "key": f"node.kubernetes.io/{taint}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }


def _prepare_create(value: JsonObject, _context: WriteContext) -> None:
    value["status"] = {"phase": "Pending", "qosClass": qos_class(value["spec"])}


def qos_class(spec: JsonObject) -> str:
    """BestEffort, Burstable or Guaranteed, from the containers' requests and limits."""
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    names = ("cpu", "memory")
    requests = [(entry.get("resources") or {}).get("requests") or {} for entry in containers]
    limits = [(entry.get("resources") or {}).get("limits") or {} for entry in containers]
    if not any(entry.get(name) for entry in (*requests, *limits) for name in names):
        return "BestEffort"
    guaranteed = all(
        limit.get(name) and request.get(name, limit[name]) == limit[name]
        for request, limit in zip(requests, limits, strict=True)
        for name in names
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _prepare_update(value: JsonObject, old: JsonObject, _context: WriteContext) -> None:
    value["status"] = old.get("status", {})


_MUTABLE = frozenset({"containers", "initContainers", "activeDeadlineSeconds", "tolerations", "schedulingGates"})
_FORBIDDEN_UPDATE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _causes(value: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = value.get("spec") or {}
    causes = pod_spec_causes(spec, "spec")
    if old is None:
        causes += new_pod_causes(spec, "spec")
    elif _frozen_part(spec) != _frozen_part(old["spec"]):
        causes.append(Cause.forbidden("spec", _FORBIDDEN_UPDATE))
    return causes


def _frozen_part(spec: JsonObject) -> JsonObject:
    frozen = {name: entry for name, entry in spec.items() if name not in _MUTABLE and entry is not None}
    for field in ("containers", "initContainers"):
        frozen[field] = [
            {name: entry for name, entry in container.items() if name != "image"} for container in spec.get(field) or []
        ]
    return frozen


def pod_spec_causes(spec: JsonObject, path: str) -> list[Cause]:
    """What is wrong with a PodSpec: containers, their names and ports, volumes and mounts."""
    causes = []
    if not spec.get("containers"):
        causes.append(Cause.required(f"{path}.containers"))
    policies = ("Always", "OnFailure", "Never")
    if spec.get("restartPolicy", "Always") not in policies:
        causes.append(Cause.unsupported(f"{path}.restartPolicy", spec["restartPolicy"], policies))
    if spec.get("dnsPolicy", "ClusterFirst") not in _DNS_POLICIES:
        causes.append(Cause.unsupported(f"{path}.dnsPolicy", spec["dnsPolicy"], _DNS_POLICIES))
    if spec.get("hostname"):
        causes += [
            Cause.invalid(f"{path}.hostname", spec["hostname"], error) for error in label_errors(spec["hostname"])
        ]
    names = [volume.get("name") for volume in spec.get("volumes") or []]
    causes += [Cause.required(f"{path}.volumes[{index}].name") for index, name in enumerate(names) if not name]
    causes += [
        Cause.invalid(f"{path}.volumes[{index}].name", name, error)
        for index, name in enumerate(names)
        if name
        for error in label_errors(str(name))
    ]
    causes += [
        Cause.duplicate(f"{path}.volumes[{index}].name", name)
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    volumes = set(names)
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or []):
            causes += _container_causes(container, f"{path}.{field}[{index}]", seen, volumes)
    return causes


def _container_causes(container: JsonObject, path: str, seen: set[str], volumes: set[str | None]) -> list[Cause]:
    causes = []
    name = container.get("name", "")
    if not name:
        causes.append(Cause.required(f"{path}.name"))
    elif name in seen:
        causes.append(Cause.duplicate(f"{path}.name", name))
    seen.add(name)
    if name:
        causes += [Cause.invalid(f"{path}.name", name, error) for error in label_errors(name)]
    causes += _field_causes(container, path)
    if not container.get("image"):
        causes.append(Cause.required(f"{path}.image"))
    for index, port in enumerate(container.get("ports") or []):
        number = port.get("containerPort", 0)
        if not number:
            causes.append(Cause.required(f"{path}.ports[{index}].containerPort"))
        elif not 0 < number < 65536:
            detail = "must be between 1 and 65535, inclusive"
            causes.append(Cause.invalid(f"{path}.ports[{index}].containerPort", number, detail))
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            message = f'Not found: "{mount.get("name")}"'
            causes.append(Cause("FieldValueNotFound", f"{path}.volumeMounts[{index}].name", message))
    return causes


_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")


def _field_causes(container: JsonObject, path: str) -> list[Cause]:
    causes = []
    policy = container.get("imagePullPolicy")
    if policy and policy not in _PULL_POLICIES:
        causes.append(Cause.unsupported(f"{path}.imagePullPolicy", policy, _PULL_POLICIES))
    for index, port in enumerate(container.get("ports") or []):
        if port.get("protocol", "TCP") not in _PROTOCOLS:
            causes.append(Cause.unsupported(f"{path}.ports[{index}].protocol", port["protocol"], _PROTOCOLS))
    for index, variable in enumerate(container.get("env") or []):
        if not variable.get("name"):
            causes.append(Cause.required(f"{path}.env[{index}].name"))
    causes += [
        Cause.required(f"{path}.{name}", "must specify a handler type")
        for name in _PROBES
        if container.get(name) is not None and not any(container[name].get(handler) for handler in _HANDLERS)
    ]
    return causes


def _grace_seconds(value: JsonObject, asked: int | None) -> int:
    """Kubernetes' rule: a Pod that no node has taken, or that is finished, goes at once."""
    period = asked if asked is not None else value["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    if not value["spec"].get("nodeName"):
        return 0
    if (value.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return 0
    return 1 if period < 0 else int(period)


POD_STRATEGY = Strategy(
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_causes,
    grace_seconds=_grace_seconds,
    returns_deleted=True,
    generation=True,
)
