"""`agent-sandbox bench`: what claims cost on a cluster, measured from a client."""

import functools
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import click

from agent_sandbox.bench import (
    SCENARIOS,
    DialectError,
    External,
    Processes,
    Report,
    Sizes,
    StartDelay,
    Subject,
    compare,
    find_dialect,
)
from agent_sandbox.bench.bench import BenchError
from agent_sandbox.bench.comparison import render, table
from agent_sandbox.bench.picture import draw
from agent_sandbox.bench.results import ReportError
from agent_sandbox.bench.run import RunOptions, run
from agent_sandbox.bench.start_delay import FORMS
from agent_sandbox.bench.subject import SubjectError
from agent_sandbox.cli.connection import connect_for, connection_options
from agent_sandbox.cli.eventloop import run_until_signalled
from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeError

_DEFAULTS: Final = Sizes()
_RESULT: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure how long claims take, and what they cost the API server.

    \b
    Times are the client's: from before a create is sent until a watch shows Ready. API writes are the
    server's own count. Everything happens in a namespace of its own, which is removed afterwards.
    """


@bench.command("run", short_help="Run scenarios against a cluster.")
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)), metavar="[SCENARIO]...")
@click.option("--claims", default=_DEFAULTS.claims, show_default=True, help="Claims (or Sandboxes) in all.")
@click.option("--pool", default=_DEFAULTS.pool, show_default=True, help="Members of the warm pool.")
@click.option("--in-flight", default=_DEFAULTS.in_flight, show_default=True, help="Clients that ask at a time.")
@click.option("--rate", default=_DEFAULTS.rate, show_default=True, help="Claims per second (sustained).")
@click.option("--seconds", default=_DEFAULTS.seconds, show_default=True, help="How long they come (sustained).")
@click.option("--objects", default=_DEFAULTS.objects, show_default=True, help="Sandboxes that exist (restart).")
@click.option("--patience", default=_DEFAULTS.patience, show_default=True, help="Seconds to wait for any state.")
@click.option("--image", default=RunOptions.image, show_default=True, help="What the Pods run.")
@click.option(
    "--hollow-node",
    metavar="SECONDS",
    help=f"Make Pods Ready without running them, after so many seconds: {FORMS}. Without it real nodes run them.",
)
@click.option(
    "--controller",
    metavar="COMMAND",
    help="Start these controllers for each scenario; {kubeconfig} and {port} are filled in. Needs --kubeconfig. "
    "Without it the controllers of the cluster are measured.",
)
@click.option("--name", default="agent-sandbox", show_default=True, help="How results call the controllers.")
@click.option("--controller-metrics", metavar="URL", help="Their /metrics, for CPU and memory, if they run elsewhere.")
@click.option("--api-version", type=click.Choice(["v1alpha1", "v1beta1"]), help="Default: what the server has.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here, as JSON.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the latencies here, as SVG.")
@connection_options()
def run_command(
    scenarios: tuple[str, ...],
    claims: int,
    pool: int,
    in_flight: int,
    rate: float,
    seconds: float,
    objects: int,
    patience: float,
    image: str,
    hollow_node: str | None,
    controller: str | None,
    name: str,
    controller_metrics: str | None,
    api_version: str | None,
    output: Path | None,
    picture: Path | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Run scenarios one after the other and print a table. Without names: serial, parallel, burst and cold.

    \b
    serial           one claim at a time on a pool that is refilled
    parallel         claims by several clients at a time on a pool that is refilled
    burst            all claims at once on a pool
    sustained        claims at a steady rate for some time
    cold             claims without a pool, by several clients at a time
    fill             an empty pool becomes full
    suspend-resume   Sandboxes are suspended and resumed, several at a time
    restart          the controllers are started again beside many objects (needs --controller)
    leader-change    a burst of claims during which the leader is killed (needs --controller)

    \b
    agent-sandbox bench run burst --claims 50 --pool 50
    agent-sandbox bench run serial burst -o ours.json --picture ours.svg
    """
    try:
        options = RunOptions(
            scenarios=[SCENARIOS[each] for each in scenarios or ("serial", "parallel", "burst", "cold")],
            sizes=Sizes(
                claims=claims,
                pool=pool,
                in_flight=in_flight,
                rate=rate,
                seconds=seconds,
                objects=objects,
                patience=patience,
            ),
            image=image,
            hollow_node=StartDelay(hollow_node) if hollow_node else None,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if controller and kubeconfig is None:
        raise click.UsageError("--controller needs --kubeconfig: the controllers must find the same cluster")
    work = functools.partial(
        _run, options, controller, name, controller_metrics, api_version, output, picture, kubeconfig, context
    )
    try:
        run_until_signalled(work, service="agent-sandbox-bench")
    except (KubeError, BenchError, DialectError, SubjectError, ReportError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _run(
    options: RunOptions,
    command: str | None,
    name: str,
    metrics_url: str | None,
    api_version: str | None,
    output: Path | None,
    picture: Path | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    client = await connect_for(kubeconfig, context, field_manager="agent-sandbox-bench")
    try:
        dialect = await find_dialect(client, api_version)
        async with _subject(command, name, metrics_url, kubeconfig) as subject:
            report = await run(client, dialect, subject, options, clock=SystemClock(), say=_say)
    finally:
        await client.aclose()
    click.echo(f"\n{report.controllers} on {report.server} ({report.api_version}); nodes: {report.node}; {report.when}")
    click.echo(render(table(report)))
    for result in report.results:
        for text in (*(f"{key}: {value:.3g}" for key, value in result.figures.items()), *result.notes):
            click.echo(f"{result.scenario}: {text}")
    if output is not None:
        await anyio.to_thread.run_sync(report.write, output)
    if picture is not None:
        await anyio.to_thread.run_sync(draw, [report], picture)


@asynccontextmanager
async def _subject(
    command: str | None, name: str, metrics_url: str | None, kubeconfig: Path | None
) -> AsyncIterator[Subject]:
    if command is None or kubeconfig is None:
        yield External(name, metrics_url)
        return
    with tempfile.TemporaryDirectory(prefix="agent-sandbox-bench-") as folder:
        async with Processes(
            name, command, kubeconfig=kubeconfig, folder=Path(folder), environment=os.environ
        ) as processes:
            yield processes


@bench.command("compare", short_help="Put two reports side by side.")
@click.argument("one", type=_RESULT)
@click.argument("other", type=_RESULT)
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw both here, as SVG.")
def compare_command(one: Path, other: Path, picture: Path | None) -> None:
    """Print every figure of two reports, and their ratio.

    \b
    agent-sandbox bench compare ours.json theirs.json
    """
    try:
        reports = [Report.read(one), Report.read(other)]
        if picture is not None:
            draw(reports, picture)
    except ReportError as error:
        raise click.ClickException(str(error)) from error
    click.echo(render(compare(*reports)))


def _say(text: str) -> None:
    # Progress is for people and goes beside the table, which may be piped on.
    click.echo(text, err=True)
