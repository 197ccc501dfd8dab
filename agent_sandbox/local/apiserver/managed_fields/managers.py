"""``metadata.managedFields``: one entry per writer, with the fields that it owns."""

from dataclasses import dataclass
from typing import Any

from agent_sandbox.local.apiserver.managed_fields.differences import differences
from agent_sandbox.local.apiserver.managed_fields.field_trie import Path, Trie, discard, discard_member, insert
from agent_sandbox.local.apiserver.managed_fields.structure import root_schema
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

UPDATE = "Update"
APPLY = "Apply"
_UNOWNED_METADATA = frozenset(
    f"f:{name}"
    for name in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion",
        "deletionTimestamp", "deletionGracePeriodSeconds",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Writer:
    """Who writes: the identity of a managedFields entry.

    Attributes:
        manager: the field manager's name.
        operation: ``Update`` or ``Apply``.
        api_version: the version in which it writes.
        subresource: ``status``, ``scale`` or empty.
    """

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    def owns(self, entry: JsonObject) -> bool:
        """True if an entry is this writer's."""
        return self == writer_of(entry)


def writer_of(entry: JsonObject) -> Writer:
    """The identity of an entry."""
    return Writer(
        entry.get("manager", ""), entry.get("operation", ""), entry.get("apiVersion", ""), entry.get("subresource", "")
    )


def ownable(path: Path, writer: Writer, resource: ResourceType) -> bool:
    """True for fields that a writer can own: the server's own ones have no owner."""
    if path[0] in {"f:apiVersion", "f:kind"}:
        return False
    if path[0] == "f:metadata":
        return len(path) > 1 and path[1] not in _UNOWNED_METADATA
    if writer.subresource == "status":
        return path[0] == "f:status"
    if path[0] == "f:status" and resource.has_status:
        return writer.subresource != ""
    return True


def record_change(resource: ResourceType, old: JsonObject, new: JsonObject, writer: Writer, now: str) -> None:
    """Note in the new object, in place, that a writer brought it about from the old one (``{}`` for a create)."""
    entries = _copied(new["metadata"].pop("managedFields", None) or [])
    before = {**old, "metadata": {**old.get("metadata", {}), "managedFields": None}} if old else {}
    after = {**new, "metadata": {**new["metadata"], "managedFields": None}}
    found = differences(before, after, root_schema(resource))
    taken = [path for path in found.set if ownable(path, writer, resource)]
    for entry in entries:
        if not writer.owns(entry):
            _lose(entry, taken, found.removed)
    _gain(entries, taken, found.removed, writer, now)
    store_entries(new, entries)


def _copied(entries: list[JsonObject]) -> list[JsonObject]:
    return [{**entry, "fieldsV1": _deep(entry.get("fieldsV1") or {})} for entry in entries]


def _deep(trie: Trie) -> Trie:
    return {element: _deep(child) for element, child in trie.items()}


def _lose(entry: JsonObject, taken: list[Path], removed: list[Path]) -> None:
    for path in taken:
        discard_member(entry["fieldsV1"], path)
    for path in removed:
        discard(entry["fieldsV1"], path)


def _gain(entries: list[JsonObject], taken: list[Path], removed: list[Path], writer: Writer, now: str) -> None:
    own = next((entry for entry in entries if writer.owns(entry)), None)
    if own is None:
        if not taken:
            return
        own = new_entry(writer, {}, now)
        entries.append(own)
    before = _deep(own["fieldsV1"])
    for path in removed:
        discard(own["fieldsV1"], path)
    for path in taken:
        insert(own["fieldsV1"], path)
    if own["fieldsV1"] != before:
        own["time"] = now


def new_entry(writer: Writer, fields: Trie, now: str) -> JsonObject:
    """An entry of a writer."""
    entry: dict[str, Any] = {
        "manager": writer.manager,
        "operation": writer.operation,
        "apiVersion": writer.api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if writer.subresource:
        entry["subresource"] = writer.subresource
    return entry


def store_entries(value: JsonObject, entries: list[JsonObject]) -> None:
    """Write entries that own something into an object, in place and in Kubernetes' order."""
    kept = sorted((entry for entry in entries if entry["fieldsV1"]), key=_order)
    if kept:
        value["metadata"]["managedFields"] = kept
    else:
        value["metadata"].pop("managedFields", None)


def _order(entry: JsonObject) -> tuple[str, ...]:
    """Appliers first, then by age."""
    return tuple(entry.get(name) or "" for name in ("operation", "time", "manager", "apiVersion", "subresource"))
