"""Server-side apply: a client states the fields it cares about; what it stated before and omits now goes.

Conflicts arise where another manager owns a field and the values differ; with ``force`` the field changes hands.
"""

import copy
from typing import Any

import msgspec

from agent_sandbox.local.apiserver.errors import StatusError
from agent_sandbox.local.apiserver.managed_fields.differences import differences, fields_of
from agent_sandbox.local.apiserver.managed_fields.field_trie import (
    Path,
    Trie,
    contains,
    discard,
    discard_member,
    find,
    insert,
    members,
    show,
)
from agent_sandbox.local.apiserver.managed_fields.managers import UPDATE, Writer, new_entry, ownable, store_entries
from agent_sandbox.local.apiserver.managed_fields.merging import merged, without_paths
from agent_sandbox.local.apiserver.managed_fields.structure import root_schema
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.schema.node import Schema


def apply_configuration(
    resource: ResourceType, live: JsonObject, applied: JsonObject, writer: Writer, now: str, *, force: bool
) -> JsonObject:
    """The living object (``{}`` if there is none) after a client applied its configuration.

    Raises:
        StatusError: 409, others own fields that would change, and ``force`` is off.
    """
    schema = root_schema(resource)
    stated = _ownable_fields(resource, applied, writer, schema)
    entries = copy.deepcopy((live.get("metadata") or {}).get("managedFields") or [])
    others = [entry for entry in entries if not writer.owns(entry)]
    own = next((entry for entry in entries if writer.owns(entry)), None)
    result: JsonObject = merged(live, applied, schema) if live else copy.deepcopy(applied)
    if own is not None:
        without_paths(result, _given_up(own["fieldsV1"], stated, others), schema)
    changed = [path for path in differences(live, result, schema).set if ownable(path, writer, resource)]
    conflicts = [(entry, path) for entry in others for path in changed if contains(entry["fieldsV1"], path)]
    if not force and _all_from_client_side_apply(conflicts, live, writer, schema):
        force = True
    _settle_conflicts(conflicts, force=force)
    removed = differences(live, result, schema).removed
    for entry in others:
        for path in removed:
            discard(entry["fieldsV1"], path)
    if own is None or own["fieldsV1"] != stated:
        own = new_entry(writer, stated, now)
    store_entries(result, [own, *others])
    return result


def _ownable_fields(resource: ResourceType, applied: JsonObject, writer: Writer, schema: Schema | None) -> Trie:
    stated: Trie = {}
    for path in members(fields_of(applied, schema)):
        if ownable(path, writer, resource):
            insert(stated, path)
    return stated


def _given_up(before: Trie, stated: Trie, others: list[JsonObject]) -> list[Path]:
    """What the client owned, no longer states, and nobody else owns."""
    return [
        path
        for path in members(before)
        if not contains(stated, path)
        and find(stated, path) is None
        and all(find(entry["fieldsV1"], path) is None for entry in others)
    ]


_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def _all_from_client_side_apply(
    conflicts: list[tuple[JsonObject, Path]], live: JsonObject, writer: Writer, schema: Schema | None
) -> bool:
    """True if kubectl conflicts only with what it applied itself before, on the client's side."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(_LAST_APPLIED)
    if writer.manager != "kubectl" or not text:
        return False
    try:
        last = fields_of(msgspec.json.decode(text, type=dict[str, Any]), schema)
    except msgspec.MsgspecError:
        return False
    return all(find(last, path) is not None for _, path in conflicts)


def _settle_conflicts(conflicts: list[tuple[JsonObject, Path]], *, force: bool) -> None:
    if conflicts and not force:
        raise _conflict(conflicts)
    for entry, path in conflicts:
        discard_member(entry["fieldsV1"], path)


def _conflict(conflicts: list[tuple[JsonObject, Path]]) -> StatusError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_show_manager(entry)}", "field": show(path)}
        for entry, path in conflicts
    ]
    if len(conflicts) == 1:
        entry, path = conflicts[0]
        text = f"Apply failed with 1 conflict: conflict with {_show_manager(entry)}: {show(path)}"
    else:
        lines = []
        for name in sorted({_show_manager(entry) for entry, _ in conflicts}):
            lines.append(f"conflicts with {name}:")
            lines += [f"- {show(path)}" for entry, path in conflicts if _show_manager(entry) == name]
        text = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    return StatusError(409, "Conflict", text, {"causes": causes})


def _show_manager(entry: JsonObject) -> str:
    name = f'"{entry["manager"]}"'
    if entry.get("subresource"):
        name += f' with subresource "{entry["subresource"]}"'
    if entry["operation"] != UPDATE:
        return name
    return f"{name} using {entry['apiVersion']}"
