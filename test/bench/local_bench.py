# ruff: noqa: T201 - a program that prints
"""What the local stack costs: `python test/bench/local_bench.py`, as root on a machine that is otherwise idle.

Method. Everything runs in this process, one part after the other, and is printed with its distribution:

- stack: `agent-sandbox local up --background` as a user types it, until it returns, five times; a new state directory
  for the first, the same one afterwards.
- cold start: one Python HTTP server as the bare process, in bubblewrap (a Pod on the node), in runc and in gVisor where
  they are installed, in turn, so that what disturbs the machine disturbs all; from the start call (for a Pod: its
  creation at the API server) to the first HTTP answer, asked every 2 ms. Read the differences.
- warm claim: a claim on a pool of ready sandboxes, from the call to the first output of `echo`, through SDK,
  controllers and router.
- 100 sandboxes: created at once; until the last is Ready; then memory (PSS of all their processes) and CPU of 20 idle
  seconds, per sandbox, node and helper apart.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient, NotFoundError
from agent_sandbox.local.node import Node, NodeOptions
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox_api.core import PODS

SERVER = (
    "import http.server as h; h.ThreadingHTTPServer(('0.0.0.0', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
)
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
TICKS = os.sysconf("SC_CLK_TCK")


def describe(name: str, seconds: list[float], note: str = "") -> None:
    """Print one distribution in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(
        f"| {name} | {len(ordered)} | {statistics.median(ordered) * 1000:.0f} | {p99 * 1000:.0f} | {note} |", flush=True
    )


def answers(connect: Callable[[], socket.socket]) -> bool:
    """Whether a server gives an answer."""
    try:
        with connect() as connection:
            connection.settimeout(5)
            connection.sendall(REQUEST)
            return connection.recv(16).startswith(b"HTTP/")
    except OSError:
        return False


def until_answer(connect: Callable[[], socket.socket]) -> None:
    """Ask every 2 ms."""
    while not answers(connect):
        time.sleep(0.002)


# The stack


def bench_stack(rounds: int) -> None:
    """Start and stop a whole stack, as a user does."""
    program = [sys.executable, "-m", "agent_sandbox", "local"]
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "XDG_STATE_HOME": directory}
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            up = [*program, "up", "--background", "--quiet", "--api-port", "0", "--router-port", "0"]
            subprocess.run(up, check=True, env=environment)
            times.append(time.perf_counter() - began)
            subprocess.run([*program, "down", "--quiet"], check=True, env=environment)
        subprocess.run([*program, "down", "--purge", "--quiet"], check=True, env=environment)
    describe("stack ready, a new state directory", times[:1])
    describe("stack ready, again", times[1:], "command typed to command returned")


# Cold start


def start_bare(port: int) -> float:
    """The server as a plain process."""
    began = time.perf_counter()
    command = ["/usr/bin/python3", "-S", "-E", "-c", SERVER.format(port=port)]
    # A session of its own, as Pods have: the kernel shares the processors between sessions.
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=null, stderr=null, cwd="/usr", start_new_session=True) as process:
        until_answer(lambda: socket.create_connection(("127.0.0.1", port)))
        took = time.perf_counter() - began
        process.kill()
    return took


@contextmanager
def bundle(port: int) -> Iterator[Path]:
    """An OCI bundle of the server on this machine's /usr, in the host's network."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "root")
        root.mkdir()
        for name in ("usr", "proc", "dev", "tmp", "etc"):
            (root / name).mkdir()
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/usr/bin/python3", "-S", "-E", "-c", SERVER.format(port=port)],
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/usr",
                "noNewPrivileges": True,
            },
            "root": {"path": str(root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
        }
        Path(directory, "config.json").write_text(json.dumps(config))
        yield Path(directory)


def start_runc(port: int) -> float:
    """The server in runc."""
    with bundle(port) as directory:
        name = f"bench-{port}"
        command = ["runc", "--root", str(directory / "state"), "run", "--bundle", str(directory), name]
        began = time.perf_counter()
        null = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True) as process:
            until_answer(lambda: socket.create_connection(("127.0.0.1", port)))
            took = time.perf_counter() - began
            kill = ["runc", "--root", str(directory / "state"), "kill", name, "KILL"]
            subprocess.run(kill, check=False, stderr=subprocess.DEVNULL)
            process.wait()
    return took


async def start_pod(client: KubeClient, server: InMemoryApiServer, node: Node, name: str, runtime: str) -> float:
    """The server as a Pod on the node."""
    argv = ["/usr/bin/python3", "-S", "-E", "-c", SERVER.format(port=8080)]
    container = {"name": "main", "image": "localhost/host", "command": argv, "workingDir": "/usr"}
    spec = {"containers": [container], **({"runtimeClassName": runtime} if runtime else {})}
    began = time.perf_counter()
    await server.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    address = ""
    while not address:
        status = (await client.get_object(PODS, name, "default")).get("status") or {}
        address = status.get("podIP") or _early_address(node, name)
        await anyio.sleep(0.001)
    while not await _pod_answers(node, address):  # noqa: ASYNC110 - nobody tells us
        await anyio.sleep(0.002)
    took = time.perf_counter() - began
    await remove_pod(client, name)
    return took


def _early_address(node: Node, name: str) -> str:
    """The address before the status says it: the server may answer before it is told to be ready."""
    workers = [worker for worker in node._workers.values() if worker is not None]
    return next((worker.record.address for worker in workers if worker.record.name == name), "")


async def _pod_answers(node: Node, address: str) -> bool:
    try:
        connection = await node.network.connect(address, 8080)
    except OSError:
        return False
    async with await anyio.abc.SocketStream.from_socket(connection) as stream:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.send(REQUEST)
            return (await stream.receive()).startswith(b"HTTP/")
    return False


async def remove_pod(client: KubeClient, name: str) -> None:
    """Delete a Pod and wait until it is gone."""
    pod = await client.get(PODS, name, "default")
    await client.delete(PODS, name, "default", uid=pod.metadata.uid)
    with contextlib.suppress(NotFoundError):
        while True:
            await client.get(PODS, name, "default")
            await anyio.sleep(0.01)


async def bench_node(rounds: int, many: int) -> None:
    """Cold starts beside other runtimes, and many sandboxes at once."""
    with tempfile.TemporaryDirectory() as directory:
        async with InMemoryApiServer() as server:
            client = KubeClient(server.transport())
            options = NodeOptions(stop_grace=0.2)
            node = Node(client, clock=SystemClock(), state_dir=Path(directory, "node"), options=options)
            async with anyio.create_task_group() as group:
                await group.start(node.run)
                await _bench_cold(client, server, node, rounds)
                await _bench_many(client, server, node, many)
                group.cancel_scope.cancel()


async def _bench_cold(client: KubeClient, server: InMemoryApiServer, node: Node, rounds: int) -> None:
    times: dict[str, list[float]] = {}
    has_gvisor = shutil.which("runsc") is not None
    if has_gvisor:  # the trial of gVisor, which only the first Pod of a stack waits for
        await start_pod(client, server, node, "trial", "gvisor")
    for number in range(rounds):
        port = 21000 + number
        times.setdefault("bare process", []).append(await anyio.to_thread.run_sync(start_bare, port))
        name = f"cold-{number}"
        times.setdefault("Pod in bubblewrap", []).append(await start_pod(client, server, node, name, ""))
        if shutil.which("runc"):
            times.setdefault("runc, no network of its own", []).append(
                await anyio.to_thread.run_sync(start_runc, port + 2000)
            )
        if has_gvisor and number % 4 == 0:
            took = await start_pod(client, server, node, f"gvisor-{number}", "gvisor")
            times.setdefault("Pod in gVisor", []).append(took)
    bare = statistics.median(times["bare process"])
    for name, found in times.items():
        over = (statistics.median(found) - bare) * 1000
        describe(
            f"cold start: {name}", found, "" if name == "bare process" else f"{over:+.0f} ms over the bare process"
        )


async def _bench_many(client: KubeClient, server: InMemoryApiServer, node: Node, many: int) -> None:
    image = "registry.example/python-runtime-sandbox:v1"
    before = _memory_available()
    began = time.perf_counter()
    ready: list[float] = []
    for number in range(many):
        spec = {"containers": [{"name": "main", "image": image}]}
        await server.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"many-{number}"}, "spec": spec})
    while len(ready) < many:
        now = sum(pod.ready for pod in (await client.list(PODS, "default")).items)
        ready += [time.perf_counter() - began] * (now - len(ready))
        await anyio.sleep(0.05)
    describe(f"{many} sandboxes at once: until Ready", ready, f"all after {ready[-1]:.1f} s, {many / ready[-1]:.0f}/s")
    pids = _descendants(node.network.pid)
    pss, cpu, own = sum(map(_pss, pids)), sum(map(_cpu, pids)), time.process_time()
    idle = time.perf_counter()
    await anyio.sleep(20)
    seconds = time.perf_counter() - idle
    spent = sum(map(_cpu, _descendants(node.network.pid))) - cpu
    per_second = spent / seconds / many * 1000
    print(
        f"| idle, per sandbox | {many} | | | {pss / many / 1024:.1f} MB (PSS), {per_second:.2f} ms of"
        f" CPU per second; MemAvailable {(before - _memory_available()) / many / 1024:.1f} MB |"
    )
    own_per_second = (time.process_time() - own) / seconds * 1000
    print(
        f"| idle, the node with its API server | 1 | | | {own_per_second:.1f} ms of CPU per"
        f" second; helper {_pss(node.network.pid) / 1024:.1f} MB |",
        flush=True,
    )


def _memory_available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(word) for word in path.read_text().split()]
                found += children
                waiting += children
    return found


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 0


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


# A warm claim


TEMPLATE = {
    "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
    "kind": "SandboxTemplate",
    "metadata": {"name": "bench"},
    "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "python-runtime-sandbox"}]}}},
}
POOL = {
    "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
    "kind": "SandboxWarmPool",
    "metadata": {"name": "bench"},
    "spec": {"replicas": 4, "sandboxTemplateRef": {"name": "bench"}},
}


def bench_claims(rounds: int) -> None:
    """Claims on a warm pool of a real stack, through the SDK."""
    program = [sys.executable, "-m", "agent_sandbox"]
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "XDG_STATE_HOME": directory}
        os.environ["XDG_STATE_HOME"] = directory
        up = [*program, "local", "up", "--background", "--quiet", "--api-port", "0", "--router-port", "0"]
        subprocess.run(up, check=True, env=environment)
        try:
            manifests = Path(directory, "bench.json")
            manifests.write_text("\n---\n".join(map(json.dumps, (TEMPLATE, POOL))))
            manifests = manifests.rename(manifests.with_suffix(".yaml"))
            subprocess.run([*program, "apply", "-f", str(manifests)], check=True, env=environment)
            _measure_claims(rounds)
        finally:
            subprocess.run([*program, "local", "down", "--purge", "--quiet"], check=True, env=environment)


def _measure_claims(rounds: int) -> None:
    from agent_sandbox import SandboxClient

    times, cold = [], []
    for _ in range(rounds):
        time.sleep(0.7)  # the pool is full again
        began = time.perf_counter()
        with SandboxClient("bench") as sandbox:
            ready = time.perf_counter() - began
            assert sandbox.run("echo warm").stdout == "warm\n"
            times.append(time.perf_counter() - began)
            cold.append(ready)
    describe("warm claim: Ready", cold, "SandboxClient's block entered")
    describe("warm claim: first output", times, "the same, and the output of `echo`")


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="starts and claims of each kind")
    parser.add_argument("--many", type=int, default=100, help="sandboxes at once")
    parser.add_argument("--only", choices=["stack", "node", "claims"], help="one part")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(__doc__.split("\n\n", 1)[1] if __doc__ else "")
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.release()}, load before {load:.1f}\n")
    print("| what | n | p50 ms | p99 ms | |\n| --- | --- | --- | --- | --- |", flush=True)
    parts: dict[str, Callable[[], None]] = {
        "stack": partial(bench_stack, 5),
        "claims": partial(bench_claims, options.rounds),
        "node": partial(anyio.run, bench_node, options.rounds, options.many),
    }
    for name, part in parts.items():
        if options.only in {None, name}:
            part()


if __name__ == "__main__":
    main()
