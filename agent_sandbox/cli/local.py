"""`agent-sandbox local`: start, stop and look at the stack of one machine."""

import functools
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import click

from agent_sandbox.cli.doctor import doctor
from agent_sandbox.cli.local_images import images
from agent_sandbox.cli.logs import LogFormat, configure_logging, log_format_option, log_level_option
from agent_sandbox.cli.sandboxes.values import DURATION
from agent_sandbox.cli.stack_options import stack_directory, stack_options, stack_words
from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.errors import LocalError, PortInUseError, StackNotRunningError
from agent_sandbox.local.state import StackRecord

if TYPE_CHECKING:
    from agent_sandbox.local.stack import StackOptions

_PORT: Final = click.IntRange(1, 65535)
_PORT_OR_FREE: Final = click.IntRange(0, 65535)


@click.group()
def local() -> None:
    """A whole Agent Sandbox on this machine: API server, node, controllers and router in one process.

    \b
    agent-sandbox local up --background
    export KUBECONFIG=$(agent-sandbox local kubeconfig)
    agent-sandbox local down
    """


local.add_command(images)
local.add_command(doctor)


@local.command()
@stack_options
@click.option("-b", "--background", is_flag=True, help="Return when the stack is ready, and leave it running.")
@click.option(
    "--api-port",
    type=_PORT_OR_FREE,
    default=7443,
    show_default=True,
    envvar="AGENT_SANDBOX_API_PORT",
    help="API server's port on 127.0.0.1; 0: a free one.",
)
@click.option(
    "--router-port",
    type=_PORT_OR_FREE,
    default=7080,
    show_default=True,
    envvar="AGENT_SANDBOX_ROUTER_PORT",
    help="Router's port on 127.0.0.1; 0: a free one.",
)
@click.option("--metrics-port", type=_PORT, help="Serve the controllers' /metrics on this port of 127.0.0.1.")
@click.option("--router-metrics-port", type=_PORT, help="Serve the router's /metrics on this port of 127.0.0.1.")
@click.option(
    "--unisolated",
    is_flag=True,
    help="Run sandboxes as ordinary processes where this machine allows no isolation. Their code can do what you can.",
)
@click.option(
    "--survive",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds that sandboxes outlive a killed stack, waiting for the next `up`; 0: they end with it.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on success.")
@log_level_option
@log_format_option
def up(
    name: str,
    state_dir: Path | None,
    background: bool,
    api_port: int,
    router_port: int,
    metrics_port: int | None,
    router_metrics_port: int | None,
    unisolated: bool,
    survive: float,
    quiet: bool,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Start the stack. Objects of an earlier run are there again, and their sandboxes start again.

    In the foreground, Ctrl-C stops it. A directory belongs to one running stack at a time. Sandboxes of a stack that
    was killed go on for a while (--survive), and this one takes them over as they are: processes, output, addresses.
    """
    directory, words = stack_directory(name, state_dir), stack_words(name, state_dir)
    announce: Callable[[StackRecord], None] = (lambda _: None) if quiet else functools.partial(_announce, words)
    if background:
        arguments = ["--api-port", str(api_port), "--router-port", str(router_port), "--log-level", log_level]
        arguments += ["--survive", str(survive), *(["--unisolated"] if unisolated else [])]
        arguments += [] if metrics_port is None else ["--metrics-port", str(metrics_port)]
        arguments += [] if router_metrics_port is None else ["--router-metrics-port", str(router_metrics_port)]
        announce(_start(directory, arguments))
        return
    from agent_sandbox.local.node import NodeError
    from agent_sandbox.local.stack import StackOptions

    options = StackOptions(
        directory=directory,
        api_port=api_port,
        router_port=router_port,
        unisolated=unisolated,
        survival=survive,
        router_metrics_port=router_metrics_port,
    )
    configure_logging(log_level, log_format)
    try:
        _require_free(metrics_port, "the controllers' metrics", "--metrics-port")
        _require_free(router_metrics_port, "the router's metrics", "--router-metrics-port")
        _run_here(options, metrics_port, announce)
    except (LocalError, NodeError) as error:
        raise click.ClickException(str(error)) from error


def _start(directory: StateDirectory, arguments: list[str]) -> StackRecord:
    """Start the stack as a process of its own; this one imports nothing of it, which would cost a second."""
    from agent_sandbox.local.background import start_in_background

    try:
        return start_in_background(directory, arguments)
    except LocalError as error:
        raise click.ClickException(str(error)) from error


def _require_free(port: int | None, what: str, option: str) -> None:
    """Say before the start that a port is taken: its server starts late, among the servers of other ports."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise PortInUseError(what, port or 0, option, zero_is_free=False) from error


def _run_here(options: "StackOptions", metrics_port: int | None, announce: Callable[[StackRecord], None]) -> None:
    from agent_sandbox.cli.controllers import run_controllers
    from agent_sandbox.cli.eventloop import run_until_signalled
    from agent_sandbox.local.stack import run_stack

    ready = os.environ.pop("AGENT_SANDBOX_READY_FD", None)

    def on_ready(record: StackRecord) -> None:
        if ready is not None:
            os.write(int(ready), b"ready\n")
            os.close(int(ready))
        announce(record)

    controllers = functools.partial(run_controllers, metrics_port=metrics_port)
    work = functools.partial(run_stack, options, run_controllers=controllers, on_ready=on_ready)
    run_until_signalled(work, service="agent-sandbox-local")


def _announce(words: str, record: StackRecord) -> None:
    click.echo(f"The stack is ready: API server {record.api.url}, router {record.router.url}")
    click.echo("Next:")
    click.echo("  agent-sandbox apply -f config/samples")
    click.echo(f"  export KUBECONFIG=$(agent-sandbox local kubeconfig{words})")
    click.echo(f"  agent-sandbox local down{words}")


@local.command()
@stack_options
@click.option("--purge", is_flag=True, help="Also remove all objects, volumes and logs of the stack.")
@click.option(
    "--timeout", type=DURATION, default=30.0, show_default="30s", help="How long to wait before the stack is killed."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on success.")
def down(name: str, state_dir: Path | None, purge: bool, timeout: float, quiet: bool) -> None:
    """Stop the stack, or end the sandboxes that outlived a killed one.

    Its objects stay for the next `up`, unless `--purge` is given.
    """
    from agent_sandbox.local.background import end_left_behind, stop

    directory = stack_directory(name, state_dir)
    stopped = stop(directory, timeout)
    left = end_left_behind(directory)
    if purge:
        try:
            directory.purge()
        except LocalError as error:
            raise click.ClickException(str(error)) from error
    if not quiet:
        what = "stopped" if stopped else "was not running"
        what += ", and sandboxes that outlived it are ended" if left else ""
        click.echo(f"The stack {what}{', and everything of it is removed' if purge else ''}.")


@local.command()
@stack_options
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For whom."
)
def status(name: str, state_dir: Path | None, output: str) -> None:
    """Say whether the stack runs, where, and what is in it. Exit status 3 if it does not run."""
    from agent_sandbox.cli.stack_status import describe, read_status

    directory = stack_directory(name, state_dir)
    facts = anyio.run(read_status, directory)
    click.echo(json.dumps(facts, indent=2) if output == "json" else describe(facts, stack_words(name, state_dir)))
    if not facts["running"]:
        raise SystemExit(3)


@local.command()
@stack_options
@click.option("--raw", is_flag=True, help="Print the kubeconfig itself instead of its path.")
def kubeconfig(name: str, state_dir: Path | None, raw: bool) -> None:
    """Print the path of the stack's kubeconfig, for KUBECONFIG."""
    directory = stack_directory(name, state_dir)
    if not directory.kubeconfig.exists():
        raise click.ClickException(str(StackNotRunningError(directory.root, stack_words(name, state_dir))))
    click.echo(directory.kubeconfig.read_text() if raw else str(directory.kubeconfig))
