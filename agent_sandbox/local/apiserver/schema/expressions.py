"""CEL expressions: compiled once, run with the functions that Kubernetes offers beside the language's own."""

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

import cel

from agent_sandbox.local.quantities import parse_quantity


class ExpressionError(Exception):
    """An expression does not parse, or failed while it ran; the text says where."""


class Expression:
    """A compiled expression."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            ExpressionError: it does not parse.
        """
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise ExpressionError(str(error)) from error
        self.uses_old = "oldSelf" in self._program.variables()
        used = set(self._program.functions())
        self._functions = {name: function for name, function in _FUNCTIONS.items() if name in used}

    def run(self, variables: dict[str, Any]) -> Any:
        """The expression's value.

        Raises:
            ExpressionError: a field is missing, types do not fit, or a function is unknown.
        """
        context = cel.Context()
        for name, function in self._functions.items():
            context.add_function(name, function)
        for name, value in variables.items():
            context.add_variable(name, value)
        try:
            return self._program.execute(context)
        except KeyError as error:
            raise ExpressionError(f"no such key: {error.args[0]}") from error
        except (RuntimeError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
            raise ExpressionError(str(error)) from error


@lru_cache(maxsize=2048)
def compile_expression(source: str) -> Expression:
    """Compile an expression, or take it from the cache.

    Raises:
        ExpressionError: it does not parse.
    """
    return Expression(source)


def _quantity(text: str) -> float:
    return float(parse_quantity(text))


def _accepts(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return accepts


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme or text.startswith("/"))


def _substring(text: str, start: int, end: int | None = None) -> str:
    if start < 0 or start > len(text) or (end is not None and not start <= end <= len(text)):
        raise ValueError(f"index out of range: {start}")
    return text[start:end]


def _index(of: Any, wanted: Any) -> int:
    if isinstance(of, str):
        return of.find(wanted)
    return next((at for at, entry in enumerate(of) if entry == wanted), -1)


def _last_index(of: Any, wanted: Any) -> int:
    if isinstance(of, str):
        return of.rfind(wanted)
    return next((at for at in range(len(of) - 1, -1, -1) if of[at] == wanted), -1)


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[0] if match else ""


def _is_sorted(entries: list[Any]) -> bool:
    return all(first <= second for first, second in pairwise(entries))


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    return text.split(separator, limit - 1 if limit > 0 else -1)


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "charAt": lambda text, at: text[at] if 0 <= at < len(text) else "",
    "compareTo": lambda one, other: (one > other) - (one < other),
    "find": _find,
    "findAll": lambda text, pattern: [match[0] for match in re.finditer(pattern, text)],
    "indexOf": _index,
    "isCIDR": _accepts(ipaddress.ip_network),
    "isGreaterThan": lambda one, other: one > other,
    "isIP": _accepts(ipaddress.ip_address),
    "isLessThan": lambda one, other: one < other,
    "isQuantity": _accepts(_quantity),
    "isSorted": _is_sorted,
    "isURL": _is_url,
    "join": lambda entries, separator="": separator.join(entries),
    "lastIndexOf": _last_index,
    "lowerAscii": lambda text: text.lower(),
    "quantity": _quantity,
    "replace": lambda text, old, new, count=-1: text.replace(old, new, count),
    "split": _split,
    "substring": _substring,
    "sum": sum,
    "trim": lambda text: text.strip(),
    "upperAscii": lambda text: text.upper(),
}
