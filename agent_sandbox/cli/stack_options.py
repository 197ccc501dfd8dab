"""Options by which every command about a local stack says which one it means."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.state import default_state_dir

F = TypeVar("F", bound=Callable[..., Any])

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def stack_directory(name: str, state_dir: Path | None) -> StateDirectory:
    """The state directory that the options mean."""
    return StateDirectory(state_dir or default_state_dir(name=name))


def stack_words(name: str, state_dir: Path | None) -> str:
    """The options that mean this stack, to go on a command that is pasted; nothing for the default one."""
    named = "" if name == "default" or state_dir else f" --name {name}"
    return named + (f" --state-dir {shlex.quote(str(state_dir))}" if state_dir else "")


def _checked(context: click.Context, parameter: click.Parameter, value: str) -> str:
    # It becomes a directory's name, and one with a slash another directory.
    if _NAME.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} cannot be a stack's name: letters, digits, '.', '_' and '-', 63 at most")
    return value


def stack_options(function: F) -> F:
    """Add ``--name`` and ``--state-dir``."""
    function = click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the stack keeps everything. Default: ~/.local/state/agent-sandbox/<name>.",
    )(function)
    return click.option(
        "--name",
        callback=_checked,
        default="default",
        show_default=True,
        envvar="AGENT_SANDBOX_STACK",
        help="Which stack: several live side by side.",
    )(function)
