"""Services: defaults and cluster addresses, as far as one machine needs them."""

import secrets
from collections.abc import Iterator
from typing import Final

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.metadata import is_address, label_errors, qualified_name_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy, WriteContext

HEADLESS = "None"
_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES: Final = ("ClientIP", "None")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")


def _default(value: JsonObject) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("ipFamilies", ["IPv4"])
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _prepare_create(value: JsonObject, _context: WriteContext) -> None:
    spec = value["spec"]
    value["status"] = {"loadBalancer": {}}
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIP"):
        # Nothing routes these on one machine; they make `kubectl get services` and clients that expect one work.
        spec["clusterIP"] = f"10.96.{secrets.randbelow(255)}.{1 + secrets.randbelow(254)}"
    spec.setdefault("clusterIPs", [spec["clusterIP"]])


def _prepare_update(value: JsonObject, old: JsonObject, _context: WriteContext) -> None:
    value["status"] = old.get("status", {})
    spec, before = value["spec"], old["spec"]
    for field in ("clusterIP", "clusterIPs"):
        if not spec.get(field) and before.get(field):
            spec[field] = before[field]


def _causes(value: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = value.get("spec") or {}
    causes = [*_new_causes(spec)] if old is None else []
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != HEADLESS and spec.get("type") != "ExternalName":
        causes.append(Cause.required("spec.ports"))
    for index, port in enumerate(ports):
        number = port.get("port", 0)
        if not 0 < number < 65536:
            detail = "must be between 1 and 65535, inclusive"
            causes.append(Cause.invalid(f"spec.ports[{index}].port", number, detail))
        if len(ports) > 1 and not port.get("name"):
            causes.append(Cause.required(f"spec.ports[{index}].name"))
    if old is not None and old["spec"].get("clusterIP") != spec.get("clusterIP"):
        causes += [
            Cause.invalid(f"spec.{field}", spec.get("clusterIP"), "may not change once set")
            for field in ("clusterIPs[0]", "clusterIP")
        ]
    return causes


def _new_causes(spec: JsonObject) -> Iterator[Cause]:
    """What is refused in a new Service only: none that exists shall be stuck."""
    for field, allowed in (("type", _TYPES), ("sessionAffinity", _AFFINITIES)):
        if spec.get(field) not in allowed:
            yield Cause.unsupported(f"spec.{field}", spec.get(field), allowed)
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        yield Cause.required("spec.externalName")
    address = spec.get("clusterIP")
    if address and address != HEADLESS and not is_address(address):
        detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        yield Cause.invalid("spec.clusterIPs[0]", address, detail)
    for key in spec.get("selector") or {}:
        for error in qualified_name_errors(key):
            yield Cause.invalid("spec.selector", key, error)
    names, numbers = set(), set()
    for index, port in enumerate(spec.get("ports") or ()):
        name, number = port.get("name"), (port.get("port"), port.get("protocol"))
        if port.get("protocol") not in _PROTOCOLS:
            yield Cause.unsupported(f"spec.ports[{index}].protocol", port.get("protocol"), _PROTOCOLS)
        for error in label_errors(name) if name else ():
            yield Cause.invalid(f"spec.ports[{index}].name", name, error)
        if name and name in names:
            yield Cause.duplicate(f"spec.ports[{index}].name", name)
        if number in numbers:
            yield Cause.duplicate(f"spec.ports[{index}]", port)
        names.add(name)
        numbers.add(number)


SERVICE_STRATEGY = Strategy(
    name_causes=label_errors,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_causes,
    returns_deleted=True,
)
