"""The options of verbs that run a command, and the command line behind them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from agent_sandbox.cli.sandboxes.descriptors import STDIN
from agent_sandbox.cli.sandboxes.execution import Command
from agent_sandbox.cli.sandboxes.failures import TOOL_FAILED
from agent_sandbox.cli.sandboxes.values import DURATION, PAIR

F = TypeVar("F", bound=Callable[..., Any])

SHELL: Final = ("/bin/sh", "-c", "if command -v bash >/dev/null; then exec bash; else exec sh; fi")
"""What runs on a terminal if no command is given."""

_OPTIONS: Final = (
    click.option(
        "-i",
        "--stdin/--no-stdin",
        "stdin",
        default=None,
        help="Send standard input to the command. Default: yes, unless it is a terminal.",
    ),
    click.option("-t", "--tty", is_flag=True, help="Give the command a terminal: this one. Enter ~. leaves it."),
    click.option("-e", "--env", "env", multiple=True, type=PAIR, help="Variable for the command. May be repeated."),
    click.option("-w", "--workdir", help="Directory to run it in. Default: the workspace."),
    click.option("-u", "--user", help="User to run it as. Default: that of the sandbox's daemon."),
    click.option("--timeout", type=DURATION, help="Kill the command after this long. Default: never."),
    click.option("-d", "--detach", is_flag=True, help="Leave it running; print its id, for `logs --process`."),
)


class CommandVerb(click.Command):
    """A verb whose exit status is that of a command: its own mistakes have another one."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise Mistake(error.format_message(), error.ctx) from error


class Mistake(click.UsageError):
    """A command line that makes no sense, of a verb whose exit status is that of a command."""

    exit_code = TOOL_FAILED


def command_options(function: F) -> F:
    """Add the options to a verb."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read_command(
    words: Sequence[str],
    *,
    stdin: bool | None,
    tty: bool,
    env: Sequence[tuple[str, str]],
    workdir: str | None,
    user: str | None,
    timeout: float | None,
    detach: bool,
) -> Command:
    """The command that is meant.

    Raises:
        click.UsageError: the options do not fit together, or there is no command.
    """
    argv = list(words[1:] if words and words[0] == "--" else words)
    on_terminal = os.isatty(STDIN)
    if tty and not on_terminal:
        raise Mistake("-t needs a terminal as standard input; leave it out for pipes and scripts")
    if detach and (tty or stdin):
        raise Mistake("a detached command has neither terminal nor input: leave -i and -t out")
    if not argv:
        if not tty:
            raise Mistake("which command? For example: -- python -c 'print(42)', or -it for a shell")
        argv = list(SHELL)
    return Command(
        argv=argv,
        env=dict(env),
        cwd=workdir,
        user=user,
        timeout=timeout,
        stdin=(not on_terminal if stdin is None else stdin) and not detach and not tty,
        terminal=tty,
    )
