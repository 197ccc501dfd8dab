"""The difference between the status an object has and the status it should have, as one conditional patch.

A pass computes the whole status; only what differs is sent, nothing if nothing does. The patch carries UID and
resourceVersion: a status computed from a stale object is refused by the server instead of overwriting a newer one.
"""

from typing import Any

import msgspec

from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView
from agent_sandbox_controllers.actions import Change, change
from agent_sandbox_controllers.conditions import conditions_json

Status = dict[str, Any]
"""A status in wire form; a field that is absent or None is to be removed."""


def status_json(view: msgspec.Struct) -> Status:
    """A status view in wire form, comparable with what passes compute."""
    status: Status = msgspec.json.decode(msgspec.json.encode(view))
    status["conditions"] = conditions_json(getattr(view, "conditions", ()))
    return {key: value for key, value in status.items() if _is_set(value)}


def difference(old: Status, new: Status) -> Status:
    """What to merge into ``old`` to get ``new``: changed fields, and None for those that go, also inside objects."""
    patch: Status = {}
    for key, value in new.items():
        before = old.get(key)
        if not _is_set(value) or before == value:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := difference(before, value):
                patch[key] = inner
        else:
            patch[key] = value
    gone = {key: None for key in old if not _is_set(new.get(key))}
    return patch | gone


def status_change(resource: Resource[Any], target: MetaView, old: Status, new: Status) -> Change | None:
    """The write that brings the status up to date, None if it is."""
    patch = difference(old, new)
    if not patch:
        return None
    return change(resource, target, {"status": patch}, locked=True, subresource="status")


def _is_set(value: object) -> bool:
    return value is not None and value not in ([], (), {}, "")
