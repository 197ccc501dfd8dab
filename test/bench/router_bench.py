# ruff: noqa: T201 - a program that prints
"""The router beside nginx's proxy, by wrk, in one run: requests per second and core, p99, added latency.

    hack/setup.sh bench            # wrk and nginx, from the distribution
    python test/bench/router_bench.py [--seconds 5] [--rounds 3]

One backend (nginx with a fixed answer, one process) is asked three ways by the same wrk: straight, through nginx as a
proxy (one worker, kept connections to the backend), and through the router (one process, credential checked). Each way
runs alone, the ways take turns, and the best round of each counts. CPU is the proxy's own, from /proc.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent_sandbox_api.access import AccessKey

TICKS = os.sysconf("SC_CLK_TCK")
KEY = AccessKey.generate()
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass
class Result:
    """One way's figures."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu: float

    @property
    def per_core(self) -> float:
        """Requests per second of the proxy's CPU."""
        return self.rate / self.cpu if self.cpu else 0.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS


def children_of(pid: int) -> list[int]:
    """Direct children."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wrk(url: str, connections: int, seconds: int, headers: list[str]) -> tuple[float, float, float]:
    """Rate, p50 and p99 in milliseconds."""
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", *headers, url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in said, said
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    found = {percent: re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s)", said, re.MULTILINE) for percent in (50, 99)}
    assert rate is not None
    p50, p99 = (float(match[1]) * UNITS[match[2]] for match in found.values() if match is not None)
    return float(rate[1]), p50, p99


@contextmanager
def nginx(folder: Path, server: str) -> Iterator[int]:
    """An nginx with one worker; gives the worker's process id."""
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{ access_log off; keepalive_requests 1000000;\n"
        + "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + server
        + "}\n"
    )
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([program, "-c", folder / "nginx.conf", "-p", folder], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not (workers := children_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield workers[0]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def router(port_file: Path) -> Iterator[tuple[int, int]]:
    """A router process that knows one sandbox on this machine; gives its process id and port."""
    process = subprocess.Popen([sys.executable, __file__, "--serve-router", str(port_file)])
    try:
        deadline = time.monotonic() + 30
        while not port_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process.pid, int(port_file.read_text())
    finally:
        process.terminate()
        process.wait()


def serve_router(port_file: Path, key: dict[str, str]) -> None:
    """The router's process: one Sandbox, whose Pod is this machine."""
    import anyio
    import uvloop

    from agent_sandbox.router import AuthzMode, Directory, Router, RouterOptions
    from agent_sandbox.runtime.store import Change
    from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
    from agent_sandbox_api.core import PODS

    owner = {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "box", "uid": "u", "controller": True}
    metadata: dict[str, Any] = {"name": "box", "namespace": "default", "uid": "u", "annotations": key}
    sandbox = {"metadata": metadata, "spec": {"podTemplate": {"spec": {}}}}
    status = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"metadata": {**metadata, "uid": "p", "ownerReferences": [owner]}, "status": status}
    directory = Directory()
    directory.observe_sandbox(Change(None, SANDBOXES.decode(msgspec.json.encode(sandbox))))
    directory.observe_pod(Change(None, PODS.decode(msgspec.json.encode(pod))))

    async def main() -> None:
        served = Router(directory, options=RouterOptions(port=0, authz=(AuthzMode.CLAIM_KEY,)))
        async with anyio.create_task_group() as tasks:
            url = await tasks.start(served.serve)
            draft = port_file.with_suffix(".draft")
            draft.write_text(url.rpartition(":")[2])
            draft.rename(port_file)

    uvloop.run(main())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve-router", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_router is not None:
        serve_router(arguments.serve_router, json.loads(os.environ["BENCH_KEY"]))
        return
    os.environ["BENCH_KEY"] = json.dumps(KEY.annotations)
    with tempfile.TemporaryDirectory(prefix="router-bench-") as name:
        measure(Path(name), arguments.seconds, arguments.rounds)


def measure(folder: Path, seconds: int, rounds: int) -> None:
    """All ways, in turns."""
    backend_port, proxy_port = free_port(), free_port()
    answer = f'server {{ listen 127.0.0.1:{backend_port}; location / {{ return 200 "{"x" * 100}"; }} }}\n'
    proxy = (
        f"upstream backend {{ server 127.0.0.1:{backend_port}; keepalive 64; }}\n"
        f"server {{ listen 127.0.0.1:{proxy_port}; location / {{ proxy_pass http://backend; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; } }\n'
    )
    token = KEY.sign(namespace="default", name="box", uid="u", expires=int(time.time()) + 3600)
    headers = {"X-Sandbox-ID": "box", "X-Sandbox-Port": str(backend_port), "X-Sandbox-Authorization": f"Bearer {token}"}
    named = [part for header, value in headers.items() for part in ("-H", f"{header}: {value}")]
    with (
        nginx(folder / "backend", answer) as backend,
        nginx(folder / "proxy", proxy) as nginx_proxy,
        router(folder / "port") as (router_pid, router_port),
    ):
        ways = {
            "straight": (f"http://127.0.0.1:{backend_port}/", [backend]),
            "nginx": (f"http://127.0.0.1:{proxy_port}/", [nginx_proxy]),
            "router": (f"http://127.0.0.1:{router_port}/", [router_pid]),
        }
        for connections in (1, 50):
            best: dict[str, Result] = {}
            for _ in range(rounds):
                for way, (url, pids) in ways.items():
                    before, began = cpu_seconds(pids), time.monotonic()
                    rate, p50, p99 = wrk(url, connections, seconds, named)
                    cpu = (cpu_seconds(pids) - before) / (time.monotonic() - began)
                    result = Result(rate, p50, p99, cpu)
                    if way not in best or result.per_core > best[way].per_core:
                        best[way] = result
            print(
                f"\n| {connections} connections | requests/s | requests/s per core | p50 ms | p99 ms | added p50 ms |"
            )
            print("| --- | --- | --- | --- | --- | --- |")
            for way, one in best.items():
                added = one.p50_ms - best["straight"].p50_ms
                print(
                    f"| {way} | {one.rate:,.0f} | {one.per_core:,.0f} | {one.p50_ms:.2f} | {one.p99_ms:.2f} "
                    f"| {added:.2f} |"
                )


if __name__ == "__main__":
    main()
