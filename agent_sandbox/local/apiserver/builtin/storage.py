"""PersistentVolumeClaims and PersistentVolumes: defaults, first status, and what may change."""

from collections.abc import Iterator
from typing import Final

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.metadata import subdomain_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy, WriteContext
from agent_sandbox.local.quantities import parse_quantity

_ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_VOLUME_MODES: Final = ("Block", "Filesystem")


def _default_claim(value: JsonObject) -> None:
    value.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _start_claim(value: JsonObject, _context: WriteContext) -> None:
    value["status"] = {"phase": "Pending"}


def _keep_status(value: JsonObject, old: JsonObject, _context: WriteContext) -> None:
    value["status"] = old.get("status", {})


def _claim_causes(value: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = value.get("spec") or {}
    causes = []
    if not spec.get("accessModes"):
        causes.append(Cause.required("spec.accessModes", "at least 1 access mode is required"))
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if not size:
        causes.append(Cause.required("spec.resources[storage]"))
    elif parse_quantity(size) <= 0:
        causes.append(Cause.invalid("spec.resources[storage]", size, "must be greater than zero"))
    if old is None:
        causes += _new_claim_causes(spec)
    elif _fixed(spec) != _fixed(old["spec"]):
        detail = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.append(Cause.forbidden("spec", detail))
    return causes


def _new_claim_causes(spec: JsonObject) -> Iterator[Cause]:
    modes = spec.get("accessModes") or []
    for mode in modes:
        if mode not in _ACCESS_MODES:
            yield Cause.unsupported("spec.accessModes", mode, _ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield Cause.forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes")
    for error in subdomain_errors(spec["storageClassName"]) if spec.get("storageClassName") else ():
        yield Cause.invalid("spec.storageClassName", spec["storageClassName"], error)
    if spec.get("volumeMode", "Filesystem") not in _VOLUME_MODES:
        yield Cause.unsupported("spec.volumeMode", spec["volumeMode"], _VOLUME_MODES)


def _fixed(spec: JsonObject) -> JsonObject:
    free = {"resources", "volumeAttributesClassName", "volumeName", "storageClassName"}
    return {name: entry for name, entry in spec.items() if name not in free}


PVC_STRATEGY = Strategy(
    default=_default_claim,
    prepare_create=_start_claim,
    prepare_update=_keep_status,
    validate=_claim_causes,
    returns_deleted=True,
)


def _default_volume(value: JsonObject) -> None:
    spec = value.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")


PV_STRATEGY = Strategy(
    default=_default_volume,
    prepare_create=_start_claim,
    prepare_update=_keep_status,
    returns_deleted=True,
)
