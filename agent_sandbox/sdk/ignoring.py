"""Patterns of paths that a directory sync leaves alone, in the language of ``.gitignore``: pure.

``#`` begins a comment, ``!`` takes back, a trailing ``/`` means directories only, a ``/`` elsewhere anchors the pattern
at the root, ``*`` and ``?`` stop at a slash, ``**`` does not. The last pattern that matches decides.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

IGNORE_FILE: Final = ".sandboxignore"
"""The file in the local directory that patterns are read from."""


@dataclass(frozen=True)
class Pattern:
    """One line of an ignore file."""

    text: str

    @property
    def negated(self) -> bool:
        """True if it takes back what earlier ones ignore."""
        return self.text.startswith("!")

    @property
    def directories_only(self) -> bool:
        """True if it says nothing of files themselves."""
        return self.text.endswith("/")

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """What whole relative paths must match."""
        body = self.text.removeprefix("!").rstrip("/")
        anchored = "/" in body
        return re.compile(("" if anchored else "(?:.*/)?") + _translate(body.removeprefix("/")))

    def matches(self, path: str, *, directory: bool) -> bool:
        """Whether it is about this path."""
        return (directory or not self.directories_only) and self.expression.fullmatch(path) is not None


def _translate(body: str) -> str:
    out, at = [], 0
    for found in re.finditer(r"\*\*/|/\*\*$|\*\*|\*|\?|\[!?[^\]]+\]|\\.", body):
        out.append(re.escape(body[at : found.start()]))
        sign, at = found[0], found.end()
        if sign == "**/":
            out.append("(?:.*/)?")
        elif sign == "/**":
            out.append("/.+")
        elif sign == "**":
            out.append(".*")
        elif sign == "*":
            out.append("[^/]*")
        elif sign == "?":
            out.append("[^/]")
        elif sign.startswith("\\"):
            out.append(re.escape(sign[1]))
        else:
            out.append(sign.replace("[!", "[^", 1))
    return "".join(out) + re.escape(body[at:])


class IgnoreRules:
    """All patterns of a sync."""

    def __init__(self, lines: Iterable[str]) -> None:
        stripped = (line.rstrip("\r\n").rstrip(" ") for line in lines)
        self._patterns = tuple(Pattern(line) for line in stripped if line.strip("!/") and not line.startswith("#"))

    def ignores(self, path: str, *, directory: bool = False) -> bool:
        """Whether to leave a relative path alone. What is in an ignored directory is never asked for."""
        ignored = False
        for pattern in self._patterns:
            if pattern.matches(path, directory=directory):
                ignored = not pattern.negated
        return ignored
