"""Builds the next list of an object's conditions from the last one.

Conditions of types that are not ours are kept: we are not the only possible writer. The list is sorted by type, so that
it compares equal whatever the order in which a pass set them.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from agent_sandbox_api.conditions import next_condition
from agent_sandbox_api.meta import format_time
from agent_sandbox_api.views import ConditionView


class Conditions:
    """The conditions of one object while a pass computes them."""

    def __init__(self, previous: Iterable[ConditionView], *, generation: int, now: datetime) -> None:
        """
        Args:
            previous: the conditions as the object has them.
            generation: ``metadata.generation`` that the new ones are computed from.
            now: becomes the transition time of those whose status changes.
        """
        self._previous = {condition.type: condition for condition in previous}
        self._generation = generation
        self._now = now
        self._next = dict(self._previous)

    def set(self, type: str, status: str, reason: str, message: str) -> None:
        """State one condition; its transition time moves only if its status does."""
        self._next[type] = next_condition(
            self._previous.values(),
            type=type,
            status=status,
            reason=reason,
            message=message,
            generation=self._generation,
            now=self._now,
        )

    def put(self, condition: ConditionView) -> None:
        """Take over a condition of another object with its own transition time, under this object's generation."""
        self._next[condition.type] = msgspec.structs.replace(condition, observed_generation=self._generation)

    def drop(self, type: str) -> None:
        """Remove one condition."""
        self._next.pop(type, None)

    def to_json(self) -> list[dict[str, Any]]:
        """The list in wire form, sorted by type."""
        return conditions_json(self._next.values())


def _as_json(condition: ConditionView) -> dict[str, Any]:
    # Many a pass computes these, and nearly all find nothing to write: no model is made for the comparison.
    wire: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason or "Unknown",
        "message": condition.message,
    }
    if condition.last_transition_time is not None:
        wire["lastTransitionTime"] = format_time(condition.last_transition_time)
    if condition.observed_generation is not None:
        wire["observedGeneration"] = condition.observed_generation
    return wire


def conditions_json(conditions: Iterable[ConditionView]) -> list[dict[str, Any]]:
    """Conditions as they are, in wire form, sorted by type."""
    return [_as_json(condition) for condition in sorted(conditions, key=lambda condition: condition.type)]


def status_of(conditions: Iterable[dict[str, Any]], type: str) -> str:
    """The status of one condition in wire form; empty if it is absent."""
    for condition in conditions:
        if condition["type"] == type:
            return str(condition["status"])
    return ""


def reason_of(conditions: Iterable[dict[str, Any]], type: str) -> str:
    """The reason of one condition in wire form; empty if it is absent."""
    for condition in conditions:
        if condition["type"] == type:
            return str(condition["reason"])
    return ""
