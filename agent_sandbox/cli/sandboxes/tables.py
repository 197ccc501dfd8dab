"""Results on the terminal: aligned columns for people, JSON, YAML and names for programs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

GAP: Final = 3
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def output_option(*formats: str, default: str = "table") -> Callable[[F], F]:
    """The ``-o`` of a verb."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([default, *formats]),
        default=default,
        show_default=True,
        help="Form of the result.",
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell.

    >>> print(table(["NAME", "AGE"], [["a", "5s"], ["longer", "2d"]]))
    NAME     AGE
    a        5s
    longer   2d
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(aligned(line, widths) for line in lines)


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table."""
    return "".join(cell.ljust(width + GAP) for cell, width in zip(cells, widths, strict=True)).rstrip()


def structured(data: Mapping[str, Any], form: str) -> str:
    """JSON or YAML."""
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False)
    import yaml

    text: str = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def span(seconds: float) -> str:
    """A length of time as kubectl shows ages: the two largest units while they tell something.

    >>> [span(seconds) for seconds in (3, 119, 150, 7 * 60, 3 * 3600 + 60, 50 * 3600, 30 * 86400)]
    ['3s', '119s', '2m30s', '7m', '3h1m', '2d2h', '30d']
    """
    total = int(max(seconds, 0))
    if total < 2 * _MINUTE:
        return f"{total}s"
    if total < 10 * _MINUTE:
        return _pair(total, _MINUTE, "m", 1, "s")
    if total < 3 * _HOUR:
        return f"{total // _MINUTE}m"
    if total < 8 * _HOUR:
        return _pair(total, _HOUR, "h", _MINUTE, "m")
    if total < 2 * _DAY:
        return f"{total // _HOUR}h"
    return _pair(total, _DAY, "d", _HOUR, "h") if total < 8 * _DAY else f"{total // _DAY}d"


def _pair(total: int, large: int, large_sign: str, small: int, small_sign: str) -> str:
    rest = total % large // small
    return f"{total // large}{large_sign}" + (f"{rest}{small_sign}" if rest else "")


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago."""
    return "<unknown>" if moment is None else span((now - moment).total_seconds())


def until(moment: datetime | None, now: datetime) -> str:
    """How long yet."""
    return "never" if moment is None else span((moment - now).total_seconds())


def size(count: float) -> str:
    """Bytes for people.

    >>> [size(count) for count in (0, 1023, 1536, 5 * 2**20)]
    ['0 B', '1023 B', '1.5 KiB', '5.0 MiB']
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            break
    return f"{count:.1f} {unit}"
