"""Decides which cluster a client talks to, and connects to it.

In: options and the environment. Out: a client of the API server and, if it is the local stack, that stack's record.
The decision is a pure function, so that it can be read and tested apart from the connecting.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_sandbox.kube import ConfigError, KubeClient, connect, connect_to, in_cluster
from agent_sandbox.local.state import (
    LOCAL_VARIABLE,
    StackRecord,
    StackRecordError,
    default_state_dir,
    find_running_stack,
)
from agent_sandbox.sdk.errors import SandboxConfigError
from agent_sandbox.sdk.options import ConnectionOptions


@dataclass(frozen=True)
class GivenClient:
    """The caller brought a client."""

    kube: KubeClient


@dataclass(frozen=True)
class LocalStack:
    """A stack of ``agent-sandbox local up`` on this machine."""

    record: StackRecord


@dataclass(frozen=True)
class ConfiguredCluster:
    """A cluster of a kubeconfig, or (``inside``) the one that this Pod runs in."""

    kubeconfig: str | Path | None = None
    context: str | None = None
    inside: bool = False


ClusterChoice = GivenClient | LocalStack | ConfiguredCluster


def choose_cluster(options: ConnectionOptions, environ: Mapping[str, str] | None = None) -> ClusterChoice:
    """The first that applies: what the options name (``kube``, ``local``, ``kubeconfig`` or ``context``);
    ``AGENT_SANDBOX_LOCAL=1``; ``KUBECONFIG``; the cluster around this Pod; a local stack that runs; ``~/.kube/config``.

    A kubeconfig that a running local stack wrote means that stack.

    Raises:
        SandboxConfigError: none applies, or the local stack is wanted and does not run.
    """
    variables = os.environ if environ is None else environ
    if options.kube is not None:
        return GivenClient(options.kube)
    if options.local or options.mode == "local":
        return _local_stack(options, variables)
    if options.kubeconfig is not None or options.context is not None:
        return _of_kubeconfig(options, variables, options.kubeconfig)
    if variables.get(LOCAL_VARIABLE, "") not in {"", "0"}:
        return _local_stack(options, variables)
    if variables.get("KUBECONFIG"):
        return _of_kubeconfig(options, variables, variables["KUBECONFIG"])
    if in_cluster():
        return ConfiguredCluster(inside=True)
    if options.local is None and (record := _running(options, variables)) is not None:
        return LocalStack(record)
    if Path("~/.kube/config").expanduser().exists():
        return ConfiguredCluster()
    raise SandboxConfigError(
        "no cluster to make sandboxes in: no local stack runs, KUBECONFIG is not set, ~/.kube/config does not exist "
        "and this is no Pod. Run `agent-sandbox local up`, or name a kubeconfig"
    )


async def connect_cluster(choice: ClusterChoice) -> KubeClient:
    """Connect as chosen; nothing is sent yet.

    Raises:
        SandboxConfigError: the kubeconfig or the credentials cannot be used.
    """
    try:
        match choice:
            case GivenClient(kube):
                return kube
            case LocalStack(record):
                api = record.api
                return await connect_to(api.url, token_file=api.token_file, ca_file=api.ca_file)
            case ConfiguredCluster(kubeconfig, context):
                return await connect(kubeconfig, context)
    except ConfigError as error:
        raise SandboxConfigError(str(error)) from error


def _state_dir(options: ConnectionOptions, variables: Mapping[str, str]) -> Path:
    return Path(options.state_dir) if options.state_dir is not None else default_state_dir(variables)


def _running(options: ConnectionOptions, variables: Mapping[str, str]) -> StackRecord | None:
    try:
        return find_running_stack(_state_dir(options, variables))
    except StackRecordError as error:
        raise SandboxConfigError(str(error)) from error


def _local_stack(options: ConnectionOptions, variables: Mapping[str, str]) -> LocalStack:
    record = _running(options, variables)
    if record is None:
        raise SandboxConfigError(
            f"no local stack runs under {_state_dir(options, variables)}: run `agent-sandbox local up`, "
            "or set AGENT_SANDBOX_STATE_DIR to the directory of the one that runs"
        )
    return LocalStack(record)


def _of_kubeconfig(
    options: ConnectionOptions, variables: Mapping[str, str], kubeconfig: str | Path | None
) -> ClusterChoice:
    if kubeconfig is not None and options.context is None and options.local is not False:
        path = Path(kubeconfig).expanduser().absolute()
        # The stack of this user's settings, or the one in whose state directory the file lies: <state>/api/kubeconfig.
        for directory in (_state_dir(options, variables), *path.parents[:2]):
            try:
                record = find_running_stack(directory)
            except StackRecordError:
                continue  # a damaged record is no concern of somebody who named a kubeconfig
            if record is not None and path == record.kubeconfig.absolute():
                return LocalStack(record)
    return ConfiguredCluster(options.kubeconfig, options.context)
