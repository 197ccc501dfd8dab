"""`agent-sandbox bench`: what claims cost on a cluster, measured from a client."""

import functools
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import click

from agent_sandbox.bench import (
    SCENARIOS,
    External,
    Processes,
    Report,
    Sizes,
    StartDelay,
    Subject,
    cause_of,
    compare,
    find_dialect,
)
from agent_sandbox.bench.comparison import render, table
from agent_sandbox.bench.picture import check_library, draw
from agent_sandbox.bench.results import ReportError
from agent_sandbox.bench.run import RunOptions, run
from agent_sandbox.bench.start_delay import FORMS
from agent_sandbox.cli.connection import connect_for, connection_options
from agent_sandbox.cli.eventloop import run_until_signalled
from agent_sandbox.cli.logs import configure_logging
from agent_sandbox.cli.sandboxes.failures import SIGNALLED
from agent_sandbox.clock import SystemClock

_DEFAULTS: Final = Sizes()
_COUNT: Final = click.IntRange(min=1)
_POSITIVE: Final = click.FloatRange(min=0, min_open=True)
_RESULT: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure how long claims take, and what they cost the API server.

    \b
    Times are the client's: from before a create is sent until a watch shows Ready. API writes are the
    server's own count: on a cluster with other work they hold what that writes, too. Everything happens
    in a namespace of its own, which is removed afterwards, also after Ctrl-C.
    """


@bench.command("run", short_help="Run scenarios against a cluster.")
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)), metavar="[SCENARIO]...")
@click.option(
    "--claims", default=_DEFAULTS.claims, type=_COUNT, show_default=True, help="Claims (or Sandboxes) in all."
)
@click.option("--pool", default=_DEFAULTS.pool, type=_COUNT, show_default=True, help="Members of the warm pool.")
@click.option(
    "--in-flight", default=_DEFAULTS.in_flight, type=_COUNT, show_default=True, help="Clients that ask at a time."
)
@click.option(
    "--rate", default=_DEFAULTS.rate, type=_POSITIVE, show_default=True, help="Claims per second (sustained)."
)
@click.option(
    "--seconds", default=_DEFAULTS.seconds, type=_POSITIVE, show_default=True, help="How long they come (sustained)."
)
@click.option(
    "--objects", default=_DEFAULTS.objects, type=_COUNT, show_default=True, help="Sandboxes that exist (restart)."
)
@click.option(
    "--patience", default=_DEFAULTS.patience, type=_POSITIVE, show_default=True, help="Seconds to wait for any state."
)
@click.option("--image", default=RunOptions.image, show_default=True, help="What the Pods run.")
@click.option(
    "--hollow-node",
    metavar="SECONDS",
    help=f"Make Pods Ready without running them, after so many seconds: {FORMS}. Without it real nodes run them.",
)
@click.option(
    "--controller",
    metavar="COMMAND",
    help="Start these controllers for each scenario, in place of the cluster's own, which must not run meanwhile; "
    "{kubeconfig} and {port} are filled in. Needs --kubeconfig. Without it the controllers of the cluster are "
    "measured.",
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
    agent-sandbox bench run restart --objects 2000 --hollow-node 0.5 --kubeconfig admin.conf \\
      --controller "agent-sandbox manager --kubeconfig {kubeconfig} --health-probe-bind-address 127.0.0.1:{port}
      --metrics-bind-address 127.0.0.1:{port} --leader-elect"

    The report and the picture are written anew after every scenario, before its clean-up: Ctrl-C loses
    no scenario that was measured. Progress goes to standard error.
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
    try:
        if picture is not None:
            check_library()
    except ReportError as error:
        raise click.ClickException(str(error)) from error
    for path in (output, picture):
        if path is not None and not path.parent.is_dir():
            raise click.UsageError(f"{path} cannot be written: there is no directory {path.parent}")
    outcome = _Outcome(output, picture, len(options.scenarios))
    work = functools.partial(
        _run, options, outcome, controller, name, controller_metrics, api_version, kubeconfig, context
    )
    try:
        run_until_signalled(work, service="agent-sandbox-bench")
    except (Exception, BaseExceptionGroup) as error:
        if (cause := cause_of(error)) is None:
            raise
        raise click.ClickException(str(cause)) from error
    finally:
        outcome.show()
    if not outcome.is_cleaned_up:
        raise click.exceptions.Exit(SIGNALLED + signal.SIGINT)


class _Outcome:
    """Keeps the report: its files after every scenario, its table when all are measured or the run is cut short."""

    def __init__(self, output: Path | None, picture: Path | None, scenarios: int) -> None:
        self._output = output
        self._picture = picture
        self._scenarios = scenarios
        self._unshown: Report | None = None
        self.is_cleaned_up = False

    async def keep(self, report: Report) -> None:
        """Take what is measured so far."""
        self._unshown = report
        if len(report.results) == self._scenarios:
            self.show()
        if self._output is not None:
            await anyio.to_thread.run_sync(report.write, self._output)
        if self._picture is not None:
            await anyio.to_thread.run_sync(draw, [report], self._picture)

    def show(self) -> None:
        """Print the table, once."""
        report, self._unshown = self._unshown, None
        if report is None:
            return
        click.echo(
            f"\n{report.controllers} on {report.server} ({report.api_version}); nodes: {report.node}; {report.when}"
        )
        click.echo(render(table(report)))
        for result in report.results:
            for text in (*(f"{key}: {value:.3g}" for key, value in result.figures.items()), *result.notes):
                click.echo(f"{result.scenario}: {text}")


async def _run(
    options: RunOptions,
    outcome: _Outcome,
    command: str | None,
    name: str,
    metrics_url: str | None,
    api_version: str | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    client = await connect_for(kubeconfig, context, field_manager="agent-sandbox-bench")
    try:
        dialect = await find_dialect(client, api_version)
        configure_logging("warning", "console")  # beside the table, as the progress
        async with _subject(command, name, metrics_url, kubeconfig) as subject:
            await run(client, dialect, subject, options, clock=SystemClock(), say=_say, keep=outcome.keep)
    finally:
        await client.aclose()
    outcome.is_cleaned_up = True


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
    _, *rows = table_of_both = compare(*reports)
    if not rows:
        raise click.ClickException(f"{one} and {other} have no scenario in common")
    click.echo(render(table_of_both))


def _say(text: str) -> None:
    # Progress is for people and goes beside the table, which may be piped on.
    click.echo(text, err=True)
