# ruff: noqa: T201 - a program that prints and starts programs
"""Claims per second and their latency, on a server of our own choosing: `python test/bench/claims/claims.py --help`.

Method: the API server, the controllers and the benchmark (client, hollow node and watches) are processes of their own
on this machine. Every time is the client's. With several controllers the rounds alternate, A B A B, on one server.
`agent-sandbox bench` does the same against a cluster that exists.
"""

import argparse
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog

from agent_sandbox.bench import (
    SCENARIOS,
    Processes,
    Report,
    Sizes,
    StartDelay,
    cause_of,
    compare,
    find_dialect,
    merge,
)
from agent_sandbox.bench.comparison import render, table
from agent_sandbox.bench.picture import draw
from agent_sandbox.bench.run import RunOptions, run
from agent_sandbox.cli.eventloop import run_until_signalled
from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import connect
from agent_sandbox.testing.envtest import KubeAssets, kubernetes

REPOSITORY = Path(__file__).resolve().parents[3]
ACCOUNT = ("agent-sandbox-system", "agent-sandbox-controller")
OURS = (
    f"{sys.executable} -m agent_sandbox manager --kubeconfig {{kubeconfig}} --leader-elect --log-level warning "
    "--metrics-bind-address 127.0.0.1:{port} --health-probe-bind-address 127.0.0.1:{port}"
)


@contextmanager
def real(folder: Path) -> Iterator[tuple[Path, Path]]:
    """kube-apiserver, etcd without fsync, and the garbage collector; kubeconfigs of an admin and of our account."""
    built = sorted((Path.home() / ".cache" / "agent-sandbox" / "kube").glob("v*"))
    assets = KubeAssets.find(os.environ.get("KUBEBUILDER_ASSETS") or (built[-1] if built else None))
    with kubernetes(folder, assets=assets, controller_manager=True) as server:
        server.kubectl("apply", "-f", str(REPOSITORY / "config/manager/namespace.yaml"))
        for part in ("crd", "rbac"):
            server.kubectl("apply", "--server-side", "-k", str(REPOSITORY / "config" / part))
        server.wait_until_served()
        yield server.kubeconfig, server.kubeconfig_for_service_account(*ACCOUNT)


@contextmanager
def program(folder: Path, script: str) -> Iterator[tuple[Path, Path]]:
    """One of the servers beside this file, which prints its port; without TLS and credentials."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name(script), folder],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C on a terminal must not take it from those who clean up
    )
    assert process.stdout is not None
    try:
        kubeconfig = folder / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{process.stdout.readline().strip()}"}
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "bench",
                    "clusters": [{"name": "bench", "cluster": cluster}],
                    "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                    "users": [{"name": "bench", "user": {}}],
                }
            )
        )
        yield kubeconfig, kubeconfig
    finally:
        process.kill()
        process.wait()


SERVERS: dict[str, Callable[[Path], AbstractContextManager[tuple[Path, Path]]]] = {
    "kubernetes": real,
    "embedded": functools.partial(program, script="embedded_server.py"),
    "trivial": functools.partial(program, script="trivial_server.py"),
}


@dataclass
class Outcome:
    """The reports of all rounds, written as soon as there is something to write; so a clean-up can lose nothing."""

    server: str
    folder: Path
    rounds: dict[str, list[Report]] = field(default_factory=dict)
    is_complete: bool = False

    async def keep(self, name: str, number: int, report: Report) -> None:
        """Take what one round has measured so far."""
        self.rounds[name][number:] = [report]
        await anyio.to_thread.run_sync(self.write)

    def merged(self) -> list[Report]:
        """One report for each of the controllers that was measured."""
        return [merge(reports) for reports in self.rounds.values() if reports]

    def write(self) -> None:
        """The results as JSON, and a picture of all."""
        reports = self.merged()
        for report in reports:
            report.write(self.folder / f"{self.server}-{report.controllers}.json")
        draw(reports, self.folder / f"{self.server}.svg")

    def show(self) -> None:
        """The tables."""
        reports = self.merged()
        for report in reports[:1]:
            print(f"\nserver: {self.server}; {report.server}; nodes: {report.node}; {report.machine}")
        for report in reports:
            print(f"\n{report.controllers}, {report.rounds} rounds\n{render(table(report))}")
            for result in report.results:
                print(f"  {result.scenario} {result.parameters} {result.figures or ''} {result.notes or ''}")
                print(f"    writes: {result.writes}")
                if result.server_cpu is not None and result.controller_cpu is not None:
                    print(f"    CPU: server {result.server_cpu:.2f} s, controllers {result.controller_cpu:.2f} s")
        for other in reports[1:]:
            print(f"\n{render(compare(reports[0], other))}")


async def measure(arguments: argparse.Namespace, outcome: Outcome, admin: Path, account: Path, folder: Path) -> None:
    """All rounds."""
    options = RunOptions(
        scenarios=[SCENARIOS[name] for name in arguments.scenarios],
        sizes=Sizes(**{name: getattr(arguments, name) for name in Sizes.__dataclass_fields__}),
        hollow_node=StartDelay(arguments.hollow_node),
    )
    subjects = dict(each.split("=", 1) for each in arguments.controller) or {"agent-sandbox": OURS}
    outcome.rounds = {name: [] for name in subjects}
    # As in an image, whose modules are compiled: a process that starts again must not compile them anew.
    compiled = {"PYTHONPYCACHEPREFIX": str(folder / "pycache"), **os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    async with await connect(admin, request_timeout=60.0) as client:
        for number in range(arguments.rounds):
            for name, command in subjects.items():
                say(f"round {number + 1} of {arguments.rounds}: {name}")
                async with Processes(name, command, kubeconfig=account, folder=folder, environment=compiled) as subject:
                    dialect = await find_dialect(client, arguments.api_version)
                    keep = functools.partial(outcome.keep, name, number)
                    await run(client, dialect, subject, options, clock=SystemClock(), say=say, keep=keep)
    outcome.is_complete = True


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run, print the tables, write files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "scenarios", nargs="*", default=["serial", "parallel", "burst", "cold"], choices=[*SCENARIOS, []]
    )
    parser.add_argument("--server", choices=list(SERVERS), default="kubernetes")
    parser.add_argument("--controller", action="append", default=[], metavar="NAME=COMMAND", help="default: ours")
    parser.add_argument("--api-version")
    parser.add_argument("--hollow-node", default="p50=0.5,p99=1.5", help="seconds until a Pod is Ready")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("dist/bench"), help="folder of the results")
    for name, definition in Sizes.__dataclass_fields__.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(definition.default), default=definition.default)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    arguments.output.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(arguments.server, arguments.output)
    with tempfile.TemporaryDirectory(prefix="agent-sandbox-claims-") as name:
        folder = Path(name)
        with SERVERS[arguments.server](folder) as (admin, account):
            work = functools.partial(measure, arguments, outcome, admin, account, folder)
            try:
                run_until_signalled(work, service="claims")
            except (Exception, BaseExceptionGroup) as error:
                if (cause := cause_of(error)) is None:
                    raise
                sys.exit(f"Error: {cause}")
            finally:
                outcome.show()
    if not outcome.is_complete:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
