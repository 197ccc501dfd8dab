"""How a verb finds its API server: the kubeconfig that is named, else a running local stack, else the usual places."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from agent_sandbox.kube import ConfigError, KubeClient, connect, connect_to
from agent_sandbox.local.state import find_running_stack

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(
    default: str = "$KUBECONFIG, else a running local stack, else ~/.kube/config",
) -> Callable[[F], F]:
    """Add `--kubeconfig` and `--context` to a command; `default` says in words what is taken without them."""

    def add(function: F) -> F:
        function = click.option("--context", help="Context of the kubeconfig. Default: its current one.")(function)
        return click.option(
            "--kubeconfig",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="KUBECONFIG",
            help=f"Kubeconfig of the cluster. Default: {default}.",
        )(function)

    return add


CLUSTER_DEFAULT: Final = "$KUBECONFIG, else the Pod's own account, else ~/.kube/config"
"""What a part of a cluster connects to: never to a local stack, which runs its own."""


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
    try:
        return await connect(kubeconfig, context, field_manager=field_manager)
    except ConfigError as error:
        if kubeconfig is None and context is None:
            raise ConfigError(f"{error}; without a cluster: agent-sandbox local up --background") from error
        raise
