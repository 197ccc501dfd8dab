"""The part of JSONPath that printer columns, scale paths and selectable fields use.

Fields, ``['quoted']`` fields, indexes, ``[*]`` and ``[?(@.field=='value')]`` filters.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

_Step = Callable[[Any], Iterator[Any]]
_TOKEN = re.compile(
    r"""\.(?P<field>[^.\[\]]+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[['"](?P<quoted>[^'"]+)['"]\]
      | \[\?\(@(?P<path>[^=!]+?)\s*(?P<operator>==|!=)\s*(?P<value>[^)]+)\)\]""",
    re.VERBOSE,
)


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """Compile a path into a function that gives all values at it.

    Raises:
        ValueError: the path uses something else than the forms above.
    """
    steps: list[_Step] = []
    body = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    body = body.replace("\\.", "\0")
    position = 0
    while position < len(body):
        match = _TOKEN.match(body, position)
        if match is None:
            raise ValueError(f"cannot read the JSON path {text!r} at {body[position:]!r}")
        steps.append(_step(match))
        position = match.end()

    def read(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [deeper for entry in found for deeper in step(entry)]
        return found

    return read


def first_at(value: Any, path: str) -> Any:
    """The first value at a path, or None."""
    found = compile_path(path)(value)
    return found[0] if found else None


def set_at(value: dict[str, Any], path: str, new: Any) -> None:
    """Set the value at a path of plain fields, making the objects on the way."""
    *parents, last = path.strip(".").split(".")
    for name in parents:
        value = value.setdefault(name, {})
    value[last] = new


def _step(match: re.Match[str]) -> _Step:
    name = match["field"] or match["quoted"]
    if name == "*" or match["all"]:
        return _everything
    if name:
        return _field(name.replace("\0", "."))
    if match["index"]:
        return _index(int(match["index"]))
    return _filter(match["path"].strip(), match["operator"], match["value"].strip())


def _everything(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _field(name: str) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(index: int) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _filter(path: str, operator: str, literal: str) -> _Step:
    read = compile_path(path)
    wanted = literal[1:-1] if literal[:1] in {"'", '"'} else literal

    def step(value: Any) -> Iterator[Any]:
        for entry in value if isinstance(value, list) else []:
            found = read(entry)
            text = _text(found[0]) if found else None
            if (text == wanted) == (operator == "=="):
                yield entry

    return step


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
