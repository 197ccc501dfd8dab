"""Strategic merge patch: like a merge patch, but lists of built-in kinds merge by their key.

Directives: ``$patch: delete|replace|merge``, ``$deleteFromPrimitiveList/<field>``, ``$setElementOrder/<field>``,
``$retainKeys``.
"""

from collections.abc import Mapping
from typing import Any

MERGE_KEYS: Mapping[str, str] = {
    "addresses": "ip",
    "conditions": "type",
    "containers": "name",
    "containerStatuses": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "initContainerStatuses": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "secrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists that merge, by field name, and the key of their items."""

_PRIMITIVE_SETS = frozenset({"finalizers"})
_PORT_KEYS = {"containers": "containerPort", "initContainers": "containerPort", "spec": "port"}
_DELETE_PRIMITIVE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def apply_strategic_patch(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The target with the patch merged in."""
    return _merge_object(target, patch, "")


def _merge_object(target: Any, patch: dict[str, Any], parent: str) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        kept = set(patch["$retainKeys"])
        merged = {name: value for name, value in merged.items() if name in kept}
    for name, value in patch.items():
        if not name.startswith("$"):
            _merge_field(merged, name, value, parent)
    for name, value in patch.items():
        if name.startswith(_DELETE_PRIMITIVE):
            field = name.removeprefix(_DELETE_PRIMITIVE)
            merged[field] = [entry for entry in merged.get(field) or [] if entry not in value]
        elif name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if isinstance(merged.get(field), list):
                merged[field] = _ordered(merged[field], value, _key_of(field, parent))
    return merged


def _merge_field(merged: dict[str, Any], name: str, value: Any, parent: str) -> None:
    if value is None:
        merged.pop(name, None)
    elif isinstance(value, dict):
        merged[name] = _merge_object(merged.get(name), value, name)
    elif isinstance(value, list):
        merged[name] = _merge_list(merged.get(name), value, name, parent)
    else:
        merged[name] = value


def _key_of(field: str, parent: str) -> str | None:
    if field == "ports":
        return _PORT_KEYS.get(parent)
    return MERGE_KEYS.get(field)


def _merge_list(target: Any, patch: list[Any], field: str, parent: str) -> list[Any]:
    present = list(target) if isinstance(target, list) else []
    if field in _PRIMITIVE_SETS:
        return present + [entry for entry in patch if entry not in present]
    key = _key_of(field, parent)
    items = [entry for entry in patch if isinstance(entry, dict)]
    if any(set(entry) == {"$patch"} and entry["$patch"] == "replace" for entry in items):
        return [entry for entry in patch if not (isinstance(entry, dict) and "$patch" in entry)]
    if key is None or len(items) != len(patch):
        return patch
    for entry in items:
        _merge_item(present, entry, key, field)
    return present


def _merge_item(present: list[Any], entry: dict[str, Any], key: str, field: str) -> None:
    wanted = entry.get(key)
    index = next((at for at, item in enumerate(present) if isinstance(item, dict) and item.get(key) == wanted), None)
    if entry.get("$patch") == "delete":
        if index is not None:
            del present[index]
    elif index is None:
        present.append(_merge_object({}, entry, field))
    else:
        present[index] = _merge_object(present[index], entry, field)


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Items that the order names come in that order; the others keep their place after what they followed."""

    def identity(entry: Any) -> Any:
        return entry.get(key) if isinstance(entry, dict) and key else entry

    wanted = [identity(entry) for entry in order]
    placed = [item for name in wanted for item in items if identity(item) == name]
    others = [item for item in items if identity(item) not in wanted]
    return placed + others
