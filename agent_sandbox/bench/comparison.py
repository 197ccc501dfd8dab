"""Reports as tables: one of them, or two side by side."""

import math
from collections.abc import Iterator
from typing import Final

from agent_sandbox.bench.results import Measured, Report

NOTHING: Final = "-"
"""What stands where nothing was measured."""


def table(report: Report) -> list[tuple[str, ...]]:
    """One row for each scenario, under a heading."""
    rows: list[tuple[str, ...]] = [
        ("scenario", "samples", "p50", "p90", "p99", "max", "per s", "writes each", "CPU each", "peak memory")
    ]
    for result in report.results:
        each = None if result.controller_cpu is None else result.controller_cpu / max(1, len(result.seconds))
        rows.append(
            (
                result.scenario,
                f"{len(result.seconds)} {result.unit}",
                *(_milliseconds(result.percentile(share)) for share in (0.5, 0.9, 0.99, 1.0)),
                _number(result.rate),
                _number(result.writes_each),
                NOTHING if each is None else f"{each * 1000:.1f} ms",
                NOTHING if not result.controller_memory else f"{result.controller_memory / 1e6:.0f} MB",
            )
        )
    return rows


def compare(one: Report, other: Report) -> list[tuple[str, ...]]:
    """Every figure that both reports have, and how many times as large it is in the first."""
    rows: list[tuple[str, ...]] = [("scenario", "figure", one.controllers, other.controllers, "ratio")]
    others = {result.scenario: result for result in other.results}
    for result in one.results:
        theirs = others.get(result.scenario)
        if theirs is None:
            continue
        if theirs.parameters != result.parameters:
            rows.append((result.scenario, "not comparable", _parameters(result), _parameters(theirs), NOTHING))
            continue
        known = dict(_figures(theirs))
        for name, value in _figures(result):
            if name in known:
                ratio = value / known[name] if known[name] else math.nan
                rows.append((result.scenario, name, _number(value), _number(known[name]), f"{ratio:.2f}"))
    return rows


def _figures(result: Measured) -> Iterator[tuple[str, float]]:
    count = max(1, len(result.seconds))
    for share in (0.5, 0.9, 0.99, 1.0):
        yield ("max ms" if share == 1.0 else f"p{share * 100:.0f} ms"), result.percentile(share) * 1000
    yield f"{result.unit} per second", result.rate
    if result.writes_each is not None:
        yield "API writes each", result.writes_each
    if result.controller_cpu is not None:
        yield "controller CPU ms each", result.controller_cpu / count * 1000
    if result.server_cpu is not None:
        yield "API server CPU ms each", result.server_cpu / count * 1000
    if result.controller_memory:
        yield "controller peak MB", result.controller_memory / 1e6
    yield from result.figures.items()


def render(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table whose columns also line up on a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def _parameters(result: Measured) -> str:
    return ", ".join(f"{name} {value}" for name, value in result.parameters.items())


def _milliseconds(seconds: float) -> str:
    return NOTHING if math.isnan(seconds) else f"{seconds * 1000:.0f} ms"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
