"""Where files are: here, in a sandbox (``NAME:PATH``), or at standard input and output (``-``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from agent_sandbox.cli.sandboxes.values import SANDBOX


@dataclass(frozen=True)
class Remote:
    """A path in a sandbox; the workspace itself if it is ``.``."""

    name: str
    path: str


@dataclass(frozen=True)
class Pipe:
    """Standard input or output."""


Place = Path | Remote | Pipe


def parse_place(text: str) -> Place:
    """What a word means.

    A name before the first colon is a sandbox's; a local path with a colon is written ``./a:b``, as with docker cp.

    >>> parse_place("box:src"), parse_place("./box:src"), parse_place("-")
    (Remote(name='box', path='src'), PosixPath('box:src'), Pipe())

    Raises:
        click.BadParameter: what stands before the colon is no name of a sandbox.
    """
    if text == "-":
        return Pipe()
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name.startswith("."):
        return Path(text).expanduser()
    return Remote(SANDBOX.convert(name, None, None), path or ".")


class PlaceType(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """A word that means a place."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """The place."""
        return parse_place(value) if isinstance(value, str) else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Files here, and sandboxes with their colon."""
        if ":" in incomplete or "/" in incomplete or incomplete.startswith((".", "-")):
            return [CompletionItem(incomplete, type="file")]
        names = SANDBOX.shell_complete(ctx, param, incomplete)
        return [CompletionItem(incomplete, type="file"), *(CompletionItem(f"{item.value}:") for item in names)]


PLACE = PlaceType()
