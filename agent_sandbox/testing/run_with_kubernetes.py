"""Runs a command beside a real Kubernetes API server, and ends with its exit status.

    python -m agent_sandbox.testing.run_with_kubernetes pytest test/conformance

The command finds the server in ``KUBECONFIG`` and, the same, in ``KUBE_CONFORMANCE_KUBECONFIG``; our four kinds are
defined there. The programs come from ``KUBEBUILDER_ASSETS``. Logs are in a temporary folder, which stays if the command
fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from agent_sandbox.testing.envtest import EnvtestError, KubeAssets, kubernetes
from agent_sandbox_api.crds import load_crds


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--controller-manager/--no-controller-manager",
    default=None,
    help="Also run garbage collection, namespace deletion and service accounts. Default: if the assets have it.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(controller_manager: bool | None, command: tuple[str, ...]) -> None:
    """Run COMMAND beside a real Kubernetes API server."""
    try:
        assets = KubeAssets.find()
        folder = Path(tempfile.mkdtemp(prefix="agent-sandbox-kubernetes-"))
        status = run(folder, assets, controller_manager, command)
    except EnvtestError as error:
        raise click.ClickException(str(error)) from error
    if status == 0:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        click.echo(f"the server's logs are in {folder}", err=True)
    sys.exit(status)


def run(folder: Path, assets: KubeAssets, controller_manager: bool | None, command: tuple[str, ...]) -> int:
    """Start the server in ``folder``, run the command, and stop the server; gives the command's exit status."""
    managed = assets.kube_controller_manager is not None if controller_manager is None else controller_manager
    with kubernetes(folder, assets=assets, controller_manager=managed) as server:
        server.define(load_crds())
        config = str(server.kubeconfig)
        environment = {**os.environ, "KUBECONFIG": config, "KUBE_CONFORMANCE_KUBECONFIG": config}
        return subprocess.run(command, check=False, env=environment).returncode  # noqa: S603


if __name__ == "__main__":
    main()
