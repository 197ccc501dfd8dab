"""Options by which every command about a local stack says which one it means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.state import default_state_dir

F = TypeVar("F", bound=Callable[..., Any])


def stack_directory(name: str, state_dir: Path | None) -> StateDirectory:
    """The state directory that the options mean."""
    return StateDirectory(state_dir or default_state_dir(name=name))


def stack_options(function: F) -> F:
    """Add ``--name`` and ``--state-dir``."""
    function = click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the stack keeps everything. Default: ~/.local/state/agent-sandbox/<name>.",
    )(function)
    return click.option(
        "--name",
        default="default",
        show_default=True,
        envvar="AGENT_SANDBOX_STACK",
        help="Which stack: several live side by side.",
    )(function)
