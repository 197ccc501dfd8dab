"""What a Markdown page shows and tells people to type, block by block, so that tests can do it."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
NEEDS_A_CLUSTER: Final = "needs a cluster"
NOT_RUN: Final = "not run: "
_ON_A_CLUSTER: Final = frozenset({"agent-sandbox", "echo", "export", "helm", "kubectl", "podman", "printf", "python"})
"""Programs that the examples ask for on a cluster."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    A comment in the line before it may say that it does not work on the local stack: ``<!-- needs a cluster -->``
    (tried on a real API server), or that nobody can run it here: ``<!-- not run: why -->``.

    Attributes:
        language: what stands behind the fence.
        text: its lines.
        note: the comment before it, without its marks; empty if there is none.
    """

    language: str
    text: str
    note: str = ""

    @property
    def local(self) -> bool:
        """Whether it works on the local stack."""
        return not (self.note == NEEDS_A_CLUSTER or self.note.startswith(NOT_RUN))

    @property
    def needs_cluster(self) -> bool:
        """Whether it works on a cluster only."""
        return self.note == NEEDS_A_CLUSTER


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page that name a language, in order."""
    return [Block(match["language"], match["text"], match["note"] or "") for match in _BLOCK.finditer(page.read_text())]


def shell_lines(page: Path, heading: str) -> list[str]:
    """The lines of the shell blocks below a heading of a page, up to the next heading of the same depth."""
    section = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None, f"{page} has no heading {heading!r}"
    blocks = (match for match in _BLOCK.finditer(section.group(2)) if match["language"] == "sh")
    return [line for block in blocks for line in block["text"].splitlines()]


def lines_of_example(example: Path, heading: str) -> list[str]:
    """The lines of the shell blocks below a heading of an example's README."""
    return shell_lines(example / "README.md", heading)


def applied_on_a_cluster(example: Path) -> list[list[str]]:
    """The ``kubectl apply`` commands, as words, of what an example says of a cluster; of all lines there the program
    is one of those that it may ask for, and every file below ``examples/`` exists.
    """
    repository = example.parents[1]
    applied: list[list[str]] = []
    for line in lines_of_example(example, "On a cluster"):
        words = shlex.split(line.rstrip("\\"), comments=True)
        assert words[0] in _ON_A_CLUSTER or line.startswith("  "), line  # or it continues the line before
        for word in words[1:]:
            assert not word.startswith("examples/") or (repository / word).exists(), line
        if words[:2] == ["kubectl", "apply"]:
            applied.append(words)
    return applied
