"""How a verb finds its API server: the kubeconfig that is named, else a running local stack, else the usual places."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent_sandbox.kube import KubeClient, connect, connect_to
from agent_sandbox.local.state import find_running_stack

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(function: F) -> F:
    """Add `--kubeconfig` and `--context` to a command."""
    function = click.option("--context", help="Context of the kubeconfig. Default: its current one.")(function)
    return click.option(
        "--kubeconfig",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="KUBECONFIG",
        help="Kubeconfig of the cluster. Default: $KUBECONFIG, else a running local stack, else ~/.kube/config.",
    )(function)


async def connect_for(
    kubeconfig: Path | None, context: str | None, *, field_manager: str = "agent-sandbox"
) -> KubeClient:
    """Connect to the API server that the options mean.

    Raises:
        agent_sandbox.kube.ConfigError: there is none, or its configuration can't be used.
    """
    if kubeconfig is None and context is None and (stack := find_running_stack()) is not None:
        api = stack.api
        return await connect_to(api.url, token_file=api.token_file, ca_file=api.ca_file, field_manager=field_manager)
    return await connect(kubeconfig, context, field_manager=field_manager)
