"""Decides what a directory sync does with each path: pure.

In: what is on this side, on the other, and what both were when they were last equal. Out: one action per path. A side
that has not changed since then gives way to the side that has; if both have, that is a conflict and nothing is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Direction = Literal["both", "up", "down"]
Preference = Literal["local", "remote"]


@dataclass(frozen=True)
class Fingerprint:
    """By what a change of a file is noticed, without reading it."""

    size: int
    modified: float


@dataclass(frozen=True)
class Agreement:
    """A file as it was on both sides when they were equal."""

    local: Fingerprint
    remote: Fingerprint


class Action(Enum):
    """What to do with one path."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    REMOVE_LOCAL = "remove here"
    REMOVE_REMOTE = "remove there"
    COMPARE = "compare"
    CONFLICT = "conflict"


def plan(
    local: Mapping[str, Fingerprint],
    remote: Mapping[str, Fingerprint],
    agreed: Mapping[str, Agreement],
    *,
    direction: Direction = "both",
    delete: bool = False,
    prefer: Preference | None = None,
) -> dict[str, Action]:
    """The action for each path that needs one, in the order of the paths."""
    actions: dict[str, Action] = {}
    for path in sorted(local.keys() | remote.keys()):
        action = _decide(local.get(path), remote.get(path), agreed.get(path))
        action = _directed(action, direction, prefer, both=path in local and path in remote)
        if action in {Action.REMOVE_LOCAL, Action.REMOVE_REMOTE} and not delete:
            continue
        if action is not None:
            actions[path] = action
    return actions


def _decide(here: Fingerprint | None, there: Fingerprint | None, agreed: Agreement | None) -> Action | None:
    if there is None:
        unchanged = agreed is not None and here == agreed.local
        return Action.REMOVE_LOCAL if unchanged else Action.UPLOAD
    if here is None:
        unchanged = agreed is not None and there == agreed.remote
        return Action.REMOVE_REMOTE if unchanged else Action.DOWNLOAD
    if agreed is None:
        return Action.COMPARE if here.size == there.size else Action.CONFLICT
    match (here != agreed.local, there != agreed.remote):
        case (False, False):
            return None
        case (True, False):
            return Action.UPLOAD
        case (False, True):
            return Action.DOWNLOAD
        case _:
            return Action.COMPARE if here.size == there.size else Action.CONFLICT


def _directed(action: Action | None, direction: Direction, prefer: Preference | None, *, both: bool) -> Action | None:
    """What remains of an action when one side is always right."""
    side = prefer
    if direction == "up":
        side = "local"
        if action is Action.DOWNLOAD or action is Action.REMOVE_LOCAL:
            action = Action.UPLOAD if both or action is Action.REMOVE_LOCAL else Action.REMOVE_REMOTE
    elif direction == "down":
        side = "remote"
        if action is Action.UPLOAD or action is Action.REMOVE_REMOTE:
            action = Action.DOWNLOAD if both or action is Action.REMOVE_REMOTE else Action.REMOVE_LOCAL
    return resolved(action, side)


def resolved(action: Action | None, prefer: Preference | None) -> Action | None:
    """A conflict, decided for the side that is preferred."""
    if action is Action.CONFLICT and prefer is not None:
        return Action.UPLOAD if prefer == "local" else Action.DOWNLOAD
    return action
