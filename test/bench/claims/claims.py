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
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import structlog
import uvloop

from agent_sandbox.bench import (
    SCENARIOS,
    Processes,
    Report,
    Sizes,
    StartDelay,
    compare,
    find_dialect,
    merge,
)
from agent_sandbox.bench.comparison import render, table
from agent_sandbox.bench.picture import draw
from agent_sandbox.bench.run import RunOptions, run
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
        server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield server.kubeconfig, server.kubeconfig_for_service_account(*ACCOUNT)


@contextmanager
def program(folder: Path, script: str) -> Iterator[tuple[Path, Path]]:
    """One of the servers beside this file, which prints its port; without TLS and credentials."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name(script), folder], stdout=subprocess.PIPE, text=True
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


async def measure(arguments: argparse.Namespace, admin: Path, account: Path, folder: Path) -> list[Report]:
    """All rounds; one report for each of the controllers."""
    options = RunOptions(
        scenarios=[SCENARIOS[name] for name in arguments.scenarios],
        sizes=Sizes(**{name: getattr(arguments, name) for name in Sizes.__dataclass_fields__}),
        hollow_node=StartDelay(arguments.hollow_node),
    )
    subjects = dict(each.split("=", 1) for each in arguments.controller) or {"agent-sandbox": OURS}
    rounds: dict[str, list[Report]] = {name: [] for name in subjects}
    client = await connect(admin, request_timeout=60.0)
    for number in range(arguments.rounds):
        for name, command in subjects.items():
            print(f"round {number + 1} of {arguments.rounds}: {name}", file=sys.stderr)
            # As in an image, whose modules are compiled: a process that starts again must not compile them anew.
            compiled = {"PYTHONPYCACHEPREFIX": str(folder / "pycache"), **os.environ, "PYTHONDONTWRITEBYTECODE": ""}
            async with Processes(name, command, kubeconfig=account, folder=folder, environment=compiled) as subject:
                dialect = await find_dialect(client, arguments.api_version)
                report = await run(client, dialect, subject, options, clock=SystemClock(), say=say)
            rounds[name].append(report)
    await client.aclose()
    return [merge(each) for each in rounds.values()]


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
    with tempfile.TemporaryDirectory(prefix="agent-sandbox-claims-") as name:
        folder = Path(name)
        with SERVERS[arguments.server](folder) as (admin, account):
            reports = uvloop.run(measure(arguments, admin, account, folder))
    print(f"\nserver: {arguments.server}; {reports[0].server}; nodes: {reports[0].node}; {reports[0].machine}")
    for report in reports:
        print(f"\n{report.controllers}, {report.rounds} rounds\n{render(table(report))}")
        for result in report.results:
            print(f"  {result.scenario} {result.parameters} {result.figures or ''} {result.notes or ''}")
            print(f"    writes: {result.writes}")
            if result.server_cpu is not None and result.controller_cpu is not None:
                print(f"    CPU: server {result.server_cpu:.2f} s, controllers {result.controller_cpu:.2f} s")
        report.write(arguments.output / f"{arguments.server}-{report.controllers}.json")
    for other in reports[1:]:
        print(f"\n{render(compare(reports[0], other))}")
    draw(reports, arguments.output / f"{arguments.server}.svg")


if __name__ == "__main__":
    main()
