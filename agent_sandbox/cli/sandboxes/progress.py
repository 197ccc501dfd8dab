"""A bar for transfers, on a terminal only, and never in the way of the output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from agent_sandbox.cli.sandboxes.tables import size

if TYPE_CHECKING:
    from agent_sandbox.sdk import TransferProgress


class Bar:
    """Shows how far a transfer is; appears with the first news of it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._done = 0

    def note(self, progress: TransferProgress) -> None:
        """A transfer whose end is known."""
        if self._bar is None:
            self._bar = click.progressbar(
                length=max(progress.total, 1),
                label=self._label,
                file=sys.stderr,
                item_show_func=lambda _: size(self._done),
            )
            self._bar.__enter__()
        self._bar.length = max(progress.total, 1)
        step, self._done = progress.done - self._done, progress.done
        self._bar.update(step, progress.path)

    def count(self, done: int) -> None:
        """A transfer whose end nobody knows: a line that grows."""
        self._done = done
        click.echo(f"\r{self._label}  {size(done)}\033[K", err=True, nl=False)

    def close(self) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        elif self._done:
            click.echo("", err=True)


class NoBar:
    """What takes its place where nobody looks."""

    def note(self, progress: TransferProgress) -> None:
        """Nothing to show."""

    def count(self, done: int) -> None:
        """Nothing to show."""


@contextmanager
def transfer_bar(label: str, *, wanted: bool = True) -> Iterator[Bar | NoBar]:
    """A bar for the length of a block, if standard error is a terminal.

    Args:
        label: what is transferred.
        wanted: False for none.
    """
    if not (wanted and sys.stderr.isatty()):
        yield NoBar()
        return
    bar = Bar(label)
    try:
        yield bar
    finally:
        bar.close()
