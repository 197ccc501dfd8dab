"""What is refused in a new Pod beyond its names: ports, variables, mounts, volumes, resources, probes, security.

A template that a cluster would refuse must not work here first. ``test/conformance/test_refusals.py`` holds each rule
against a real server. Pods that exist are not judged again: nothing of this can change in them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.metadata import is_address, label_errors, port_name_errors, qualified_name_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject
from agent_sandbox.local.quantities import parse_quantity

_LARGEST: Final = 2**31 - 1
_PORT_RANGE: Final = "must be between 1 and 65535, inclusive"
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_NUMBERS: Final = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)
_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_VOLUME_SOURCES: Final = (
    "emptyDir", "hostPath", "secret", "nfs", "persistentVolumeClaim", "downwardAPI", "configMap", "projected", "csi",
    "ephemeral", "image",
)  # fmt: skip
_VARIABLE: Final = re.compile(r"[ -<>-~]+")
_VARIABLE_RULE: Final = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_FIELDS: Final = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|spec\.(nodeName|serviceAccountName)"
    r"|status\.(hostIP|hostIPs|podIP|podIPs)"
)
_VARIABLE_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_RESOURCES: Final = re.compile(r"cpu|memory|ephemeral-storage|hugepages-.+|.+/.+")
_MESSAGE_POLICIES: Final = ("File", "FallbackToLogsOnError")
_SECCOMP_TYPES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATORS: Final = ("Equal", "Exists")


def new_pod_causes(spec: JsonObject, path: str) -> Iterator[Cause]:
    """What is wrong with the spec of a Pod that is about to be."""
    yield from _pod_causes(spec, path)
    yield from _security_causes(spec.get("securityContext") or {}, f"{path}.securityContext")
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from _volume_causes(volume, f"{path}.volumes[{index}]")
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            at = f"{path}.{field}[{index}]"
            yield from _container_causes(container, at)
            probed = field == "containers" or container.get("restartPolicy") == "Always"
            yield from _probes_causes(container, at, allowed=probed)


def _pod_causes(spec: JsonObject, path: str) -> Iterator[Cause]:
    if spec.get("dnsPolicy") == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        yield Cause.required(f"{path}.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 0 < deadline <= _LARGEST:
        yield Cause.invalid(f"{path}.activeDeadlineSeconds", deadline, f"must be between 1 and {_LARGEST}, inclusive")
    if spec.get("subdomain"):
        for error in label_errors(spec["subdomain"]):
            yield Cause.invalid(f"{path}.subdomain", spec["subdomain"], error)
    if spec.get("ephemeralContainers"):
        yield Cause.forbidden(f"{path}.ephemeralContainers", "cannot be set on create")
    for key in spec.get("nodeSelector") or {}:
        for error in qualified_name_errors(key):
            yield Cause.invalid(f"{path}.nodeSelector", key, error)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration_causes(toleration, f"{path}.tolerations[{index}]")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        if not is_address(alias.get("ip", "")):
            detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            yield Cause.invalid(f"{path}.hostAliases[{index}].ip", alias.get("ip", ""), detail)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        for error in qualified_name_errors(gate.get("conditionType", "")):
            yield Cause.invalid(f"{path}.readinessGates[{index}].conditionType", gate.get("conditionType", ""), error)


def _toleration_causes(toleration: JsonObject, path: str) -> Iterator[Cause]:
    operator, effect = toleration.get("operator") or "Equal", toleration.get("effect")
    if not toleration.get("key") and operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield Cause.invalid(f"{path}.operator", operator, detail)
    if operator not in _OPERATORS:
        yield Cause.unsupported(f"{path}.operator", operator, _OPERATORS)
    if effect and effect not in _EFFECTS:
        yield Cause.unsupported(f"{path}.effect", effect, _EFFECTS)


def _security_causes(context: JsonObject, path: str) -> Iterator[Cause]:
    """Rules that Pods and containers share."""
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        number = context.get(field)
        if number is not None and not 0 <= number <= _LARGEST:
            yield Cause.invalid(f"{path}.{field}", number, f"must be between 0 and {_LARGEST}, inclusive")
    profile = context.get("seccompProfile")
    if profile is not None:
        if profile.get("type") not in _SECCOMP_TYPES:
            yield Cause.unsupported(f"{path}.seccompProfile.type", profile.get("type", ""), _SECCOMP_TYPES)
        elif profile["type"] == "Localhost" and not profile.get("localhostProfile"):
            detail = "must be set when seccomp type is Localhost"
            yield Cause.required(f"{path}.seccompProfile.localhostProfile", detail)
    if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
        detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        yield Cause.invalid(path, context, detail)


def _volume_causes(volume: JsonObject, path: str) -> Iterator[Cause]:
    sources = [name for name in _VOLUME_SOURCES if volume.get(name) is not None]
    for name in sources[1:]:
        yield Cause.forbidden(f"{path}.{name}", "may not specify more than 1 volume type")
    if not sources:
        return
    name, source = sources[0], volume[sources[0]]
    at = f"{path}.{name}"
    if name == "persistentVolumeClaim" and not source.get("claimName"):
        yield Cause.required(f"{at}.claimName")
    if name == "emptyDir" and source.get("sizeLimit") is not None and parse_quantity(source["sizeLimit"]) < 0:
        yield Cause.forbidden(f"{at}.sizeLimit", "SizeLimit field must be a valid resource quantity")
    if name == "hostPath" and ".." in source.get("path", "").split("/"):
        yield Cause.invalid(f"{at}.path", source["path"], "must not contain '..'")
    mode = source.get("defaultMode")
    if mode is not None and not 0 <= mode <= 0o777:
        detail = "must be a number between 0 and 0777 (octal), both inclusive"
        yield Cause.invalid(f"{at}.defaultMode", mode, detail)
    if name in {"configMap", "secret"}:
        for index, item in enumerate(source.get("items") or ()):
            if not item.get("path"):
                yield Cause.required(f"{at}.items[{index}].path")
            else:
                yield from _relative_path_causes(item["path"], f"{at}.items[{index}].path")


def _relative_path_causes(text: str, path: str) -> Iterator[Cause]:
    if text.startswith("/"):
        yield Cause.invalid(path, text, "must be a relative path")
    if ".." in text.split("/"):
        yield Cause.invalid(path, text, "must not contain '..'")


def _container_causes(container: JsonObject, path: str) -> Iterator[Cause]:
    image = container.get("image", "")
    if image != image.strip():
        yield Cause.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    policy = container.get("terminationMessagePolicy")
    if policy and policy not in _MESSAGE_POLICIES:
        yield Cause.unsupported(f"{path}.terminationMessagePolicy", policy, _MESSAGE_POLICIES)
    names: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        name = port.get("name")
        for error in port_name_errors(name) if name else ():
            yield Cause.invalid(f"{path}.ports[{index}].name", name, error)
        if name in names:
            yield Cause.duplicate(f"{path}.ports[{index}].name", name)
        names |= {name} if name else set()
    for index, variable in enumerate(container.get("env") or ()):
        yield from _variable_causes(variable, f"{path}.env[{index}]")
    for source in container.get("envFrom") or ():
        if source.get("configMapRef") is None and source.get("secretRef") is None:
            yield Cause.invalid(f"{path}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
    yield from _mount_causes(container.get("volumeMounts") or [], f"{path}.volumeMounts")
    yield from _resource_causes(container.get("resources") or {}, f"{path}.resources")
    yield from _security_causes(container.get("securityContext") or {}, f"{path}.securityContext")
    for hook in ("postStart", "preStop"):
        handler = (container.get("lifecycle") or {}).get(hook)
        if handler is not None:
            yield from _handler_causes(handler, f"{path}.lifecycle.{hook}", needed=True)


def _variable_causes(variable: JsonObject, path: str) -> Iterator[Cause]:
    name, source = variable.get("name", ""), variable.get("valueFrom")
    if name and _VARIABLE.fullmatch(name) is None:
        yield Cause.invalid(f"{path}.name", name, _VARIABLE_RULE)
    if source is None:
        return
    given = [kind for kind in _VARIABLE_SOURCES if source.get(kind) is not None]
    if variable.get("value"):
        yield Cause.invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield Cause.invalid(f"{path}.valueFrom", "", "may not have more than one field specified at a time")
    field = (source.get("fieldRef") or {}).get("fieldPath")
    if field and _FIELDS.fullmatch(field) is None:
        detail = f"error converting fieldPath: field label not supported: {field}"
        yield Cause.invalid(f"{path}.valueFrom.fieldRef.fieldPath", field, detail)


def _mount_causes(mounts: list[JsonObject], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where = mount.get("mountPath", "")
        if not where:
            yield Cause.required(f"{path}[{index}].mountPath")
        elif where in seen:
            yield Cause.invalid(f"{path}[{index}].mountPath", where, "must be unique")
        seen.add(where)
        yield from _relative_path_causes(mount.get("subPath") or "", f"{path}.subPath")  # no index: Kubernetes' own


def _resource_causes(resources: JsonObject, path: str) -> Iterator[Cause]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            at = f"{path}.{field}[{name}]"
            if _RESOURCES.fullmatch(name) is None:
                yield Cause.invalid(at, name, "must be a standard resource type or fully qualified")
            if parse_quantity(amount) < 0:
                yield Cause.invalid(at, str(amount), "must be greater than or equal to 0")
    for name, amount in requests.items():
        if name in limits and parse_quantity(amount) > parse_quantity(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            yield Cause.invalid(f"{path}.requests", str(amount), detail)


def _probes_causes(container: JsonObject, path: str, *, allowed: bool) -> Iterator[Cause]:
    for name in _PROBES:
        probe = container.get(name)
        if probe is None:
            continue
        at = f"{path}.{name}"
        if not allowed:
            yield Cause.forbidden(at, "may not be set for init containers without restartPolicy=Always")
            continue
        yield from _handler_causes(probe, at, needed=False)
        for field in _PROBE_NUMBERS:
            if probe.get(field) is not None and probe[field] < 0:
                yield Cause.invalid(f"{at}.{field}", probe[field], "must be greater than or equal to 0")
        if name != "readinessProbe" and probe.get("successThreshold", 1) > 1:
            yield Cause.invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")


def _handler_causes(handler: Mapping[str, Any], path: str, *, needed: bool) -> Iterator[Cause]:
    given = [name for name in _HANDLERS if handler.get(name) is not None]
    if needed and not given:
        yield Cause.required(path, "must specify a handler type")
    for name in given[1:]:
        yield Cause.forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    if not given:
        return
    name, action = given[0], handler[given[0]]
    if name == "exec" and not action.get("command"):
        yield Cause.required(f"{path}.exec.command")
    if name in {"httpGet", "tcpSocket"}:
        port = action.get("port")
        if isinstance(port, int) and not 0 < port < 65536:
            yield Cause.invalid(f"{path}.{name}.port", port, _PORT_RANGE)
        elif isinstance(port, str):
            for error in port_name_errors(port):
                yield Cause.invalid(f"{path}.{name}.port", port, error)
    if name == "httpGet" and action.get("scheme", "HTTP") not in {"HTTP", "HTTPS"}:
        yield Cause.unsupported(f"{path}.httpGet.scheme", action["scheme"], ("HTTP", "HTTPS"))
