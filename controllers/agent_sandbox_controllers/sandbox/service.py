"""The headless Service of a Sandbox: its DNS name, with the ports that its containers declare.

The selector holds the Sandbox's UID beside the hash of its name: a 32-bit hash alone can be made to collide, and would
lend another Sandbox's Pod this one's name.
"""

from typing import Any

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import SERVICES, ServiceView
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import LABEL_SANDBOX_NAME_HASH
from agent_sandbox_api.views import raw_object
from agent_sandbox_controllers.actions import Action, Create, change, remove
from agent_sandbox_controllers.ownership import (
    Ownership,
    controller_reference,
    may_adopt,
    ownership_of,
    references_json,
)
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.sandbox.outcome import Plan, stopped
from agent_sandbox_controllers.sandbox.strangers import foreign, unowned
from agent_sandbox_controllers.vocabulary import LABEL_SANDBOX_UID, Reason


def plan_service(observed: Observed) -> Plan:
    """Make, repair or adopt the Service if one is wanted, delete our own if none is."""
    existing = observed.service
    if not observed.wants_service:
        return _plan_no_service(observed, existing)
    if existing is None:
        return Plan((Create(SERVICES, _service(observed)),))
    meta = existing.metadata
    match ownership_of(meta, observed.uid):
        case Ownership.FOREIGN:
            return foreign(observed, "service", meta)
        case Ownership.UNOWNED:
            return _plan_adoption(observed, existing)
        case Ownership.OWNED:
            return Plan() if meta.deleting else Plan(_repair(observed, existing))


def _plan_no_service(observed: Observed, existing: ServiceView | None) -> Plan:
    if existing is None or existing.metadata.deleting:
        return Plan()
    if ownership_of(existing.metadata, observed.uid) is not Ownership.OWNED:
        return Plan()
    return Plan((remove(SERVICES, existing.metadata),))


def _plan_adoption(observed: Observed, existing: ServiceView) -> Plan:
    meta = existing.metadata
    if not may_adopt(meta.labels, observed.name_hash):
        return unowned("service", meta)
    if existing.spec.cluster_ip not in ("", "None"):
        return stopped(
            Reason.RECONCILER_ERROR,
            f'cannot adopt service "{meta.name}": ClusterIP is "{existing.spec.cluster_ip}" (expected "None", field is '
            f"immutable); delete it or give the sandbox another name",
        )
    body = {
        "metadata": {
            "labels": {LABEL_SANDBOX_NAME_HASH: observed.name_hash},
            "ownerReferences": [*references_json(meta), controller_reference(SANDBOXES, observed.view.metadata)],
        },
        "spec": {"selector": _replacing(existing.spec.selector, selector(observed)), "ports": ports(observed) or None},
    }
    return Plan((change(SERVICES, meta, body, locked=True),))


def _repair(observed: Observed, existing: ServiceView) -> tuple[Action, ...]:
    body: JsonObject = {}
    if existing.metadata.labels.get(LABEL_SANDBOX_NAME_HASH) != observed.name_hash:
        body["metadata"] = {"labels": {LABEL_SANDBOX_NAME_HASH: observed.name_hash}}
    spec: JsonObject = {}
    if existing.spec.selector != selector(observed):
        spec["selector"] = _replacing(existing.spec.selector, selector(observed))
    if not _same_ports(existing, ports(observed)):
        spec["ports"] = ports(observed) or None
    if spec:
        body["spec"] = spec
    return (change(SERVICES, existing.metadata, body),) if body else ()


def _replacing(old: dict[str, str], new: dict[str, str]) -> dict[str, str | None]:
    """A merge patch that turns one map into another."""
    gone: dict[str, str | None] = dict.fromkeys(set(old) - set(new))
    return {**gone, **new}


def selector(observed: Observed) -> dict[str, str]:
    """The labels by which the Service finds the Pod."""
    return {LABEL_SANDBOX_NAME_HASH: observed.name_hash, LABEL_SANDBOX_UID: observed.uid}


def _service(observed: Observed) -> JsonObject:
    spec: JsonObject = {"clusterIP": "None", "selector": selector(observed)}
    if wanted := ports(observed):
        spec["ports"] = wanted
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": observed.name,
            "namespace": observed.namespace,
            "labels": {LABEL_SANDBOX_NAME_HASH: observed.name_hash},
            "ownerReferences": [controller_reference(SANDBOXES, observed.view.metadata)],
        },
        "spec": spec,
    }


def _same_ports(existing: ServiceView, wanted: list[JsonObject]) -> bool:
    """Compares what we decide about ports; other fields of a port (appProtocol, ...) are somebody else's."""
    present = raw_ports(existing)
    return [_controlled(port) for port in present] == [_controlled(port) for port in wanted]


def raw_ports(service: ServiceView) -> list[JsonObject]:
    """The Service's ports in wire form."""
    decoded: Any = raw_object(service.spec.ports)
    return list(decoded or ())


def _controlled(port: JsonObject) -> tuple[Any, ...]:
    number = port.get("port")
    return (port.get("name", ""), port.get("protocol") or "TCP", number, port.get("targetPort") or number)


def ports(observed: Observed) -> list[JsonObject]:
    """The Service's ports: those of the containers and of native sidecars, once each, sorted, every one with a name."""
    return service_ports(observed.spec.pod_template.spec)


def service_ports(pod_spec: JsonObject) -> list[JsonObject]:
    """Derive Service ports from a Pod spec.

    Ports count once per number and protocol. The first explicit name of a port is kept unless another port has it
    already; the nameless get ``p-<port>-<protocol>``, with a counter if that is taken.
    """
    names: dict[tuple[int, str], str] = {}
    for port in _declared_ports(pod_spec):
        number = port.get("containerPort") or 0
        if not number:
            continue
        key = (number, port.get("protocol") or "TCP")
        name = port.get("name") or ""
        known = names.setdefault(key, "")
        if name and not known and name not in names.values():
            names[key] = name
    taken = {name for name in names.values() if name}
    result: list[JsonObject] = []
    for (number, protocol), name in sorted(names.items()):
        chosen = name or _free_name(f"p-{number}-{protocol.lower()}", taken)
        taken.add(chosen)
        result.append({"name": chosen, "port": number, "protocol": protocol, "targetPort": number})
    return result


def _declared_ports(pod_spec: JsonObject) -> list[JsonObject]:
    containers = list(pod_spec.get("containers") or ())
    sidecars = [each for each in pod_spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    return [port for container in containers + sidecars for port in container.get("ports") or ()]


def _free_name(wanted: str, taken: set[str]) -> str:
    name, counter = wanted, 2
    while name in taken:
        name, counter = f"{wanted}-{counter}", counter + 1
    return name
