"""Tables: what ``kubectl get`` asks for instead of objects."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from agent_sandbox.local.apiserver.resource_type import Column, JsonObject, ResourceType

_DESCRIPTION = "Name must be unique within a namespace."


def make_table(
    resource: ResourceType,
    objects: Iterable[JsonObject],
    now: datetime,
    *,
    list_metadata: JsonObject | None = None,
    include: str = "Metadata",
    with_columns: bool = True,
) -> JsonObject:
    """A ``meta.k8s.io/v1`` Table.

    Args:
        include: what each row carries of its object: ``None``, ``Metadata`` or ``Object``.
        with_columns: False in watch events after the first, as clients remember the columns.
    """
    columns = resource.columns
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata or {},
        "columnDefinitions": [_definition(column) for column in columns] if with_columns else [],
        "rows": [_row(columns, value, now, include) for value in objects],
    }


def _definition(column: Column) -> JsonObject:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description or (_DESCRIPTION if column.format == "name" else column.name),
        "priority": column.priority,
    }


def _row(columns: Iterable[Column], value: JsonObject, now: datetime, include: str) -> JsonObject:
    row: JsonObject = {"cells": [_cell(column, value, now) for column in columns]}
    if include == "Object":
        row["object"] = value
    elif include != "None":
        row["object"] = partial_metadata(value)
    return row


def partial_metadata(value: JsonObject) -> JsonObject:
    """An object's metadata as a ``PartialObjectMetadata``."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]}


def _cell(column: Column, value: JsonObject, now: datetime) -> Any:
    found = column.read(value)
    if column.relative:
        return "<unknown>" if not found else age(found, now)
    return found


def age(moment: str, now: datetime) -> str:
    """How long ago a moment was, as kubectl prints it; ``<invalid>`` for what is no time or in the future.

    >>> from datetime import UTC
    >>> age("2026-01-01T00:00:00Z", datetime(2026, 1, 1, 0, 3, 20, tzinfo=UTC))
    '3m20s'
    """
    try:
        seconds = int((now - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return "<invalid>"
    if seconds < -1:
        return "<invalid>"
    return human_duration(max(seconds, 0))


def human_duration(seconds: int) -> str:
    """A duration with the precision that matters at its size, as ``duration.HumanDuration``."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
