# ruff: noqa: T201 - a program that prints
"""What the SDK and the daemon cost, beside a runtime of the Go project's contract: `python test/bench/sdk_bench.py`.

Method: our daemon and the yardstick (``legacy_server.py``) run as processes of their own on loopback, without a router.
The same client, this SDK, talks to both, one after the other. Each measurement is a process of its own, so that its
peak of memory (the most that was ever resident, less what it had when it was connected) is that measurement's alone;
the server is started anew for each. Of latencies the quietest of three rounds counts. Read ratios and distributions;
absolute numbers are the machine's.

    python test/bench/sdk_bench.py                    all of it, about two minutes
    python test/bench/sdk_bench.py --gigabytes 0.1    smaller transfers
    python test/bench/sdk_bench.py --only imports     one part: latency, parallel, transfers, imports
"""

import argparse
import json
import math
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from agent_sandbox.sdk import AsyncCommands, AsyncFiles, ConnectionOptions, legacy
from agent_sandbox.sdk.routes import RouterRoute, make_session
from agent_sandbox.sdk.wire import Target, Wire

ROUNDS = 3
MIB = 2**20
CHUNK = 4 * MIB


@dataclass(frozen=True)
class Server:
    """A runtime as a process.

    Attributes:
        ours: whether it is our daemon.
    """

    ours: bool
    url: str
    root: Path
    pid: int

    def memory(self, field: str = "VmHWM") -> int:
        """Bytes: the most that was ever resident, or (``VmRSS``) what is resident now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) * 1024


@contextmanager
def server(ours: bool) -> Iterator[Server]:
    """Start our daemon or the yardstick."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        root = Path(directory)
        if ours:
            command = [sys.executable, "-m", "agent_sandbox.sandboxd", "--port", "0", "--root", directory]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            port = re.findall(r"127\.0\.0\.1:(\d+)", next(line for line in process.stderr if " serves " in line))[0]
        else:
            command = [sys.executable, str(Path(__file__).with_name("legacy_server.py")), directory]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            port = process.stdout.readline()
        try:
            yield Server(ours, f"http://127.0.0.1:{port.strip()}", root, process.pid)
        finally:
            process.kill()
            process.wait()


# Measurements: each runs in a process of its own and gives numbers.

Measurement = Callable[[Wire, float], Awaitable[dict[str, Any]]]


async def first_byte(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """Until output of a command that goes on for 300 ms behind it is here."""
    commands, times = AsyncCommands(wire), []
    for _ in range(30):
        began = time.perf_counter()
        seen: list[float] = []

        def take(text: str, to: list[float] = seen) -> None:
            to.append(time.perf_counter())

        await commands.run("echo x; sleep 0.3", on_stdout=take)
        times.append(seen[0] - began)
    return {"times": times}


async def round_trip(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """A command that does nothing, by the legacy contract."""
    times = []
    for _ in range(300):
        began = time.perf_counter()
        await legacy.execute(wire, "true", 60)
        times.append(time.perf_counter() - began)
    return {"times": times}


async def round_trip_streamed(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """The same with streams, and an operation that can be found again."""
    commands, times = AsyncCommands(wire), []
    for _ in range(300):
        began = time.perf_counter()
        await commands.run(["true"])
        times.append(time.perf_counter() - began)
    return {"times": times}


async def parallel(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """A hundred commands of 200 ms at once."""
    times: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        result = await legacy.execute(wire, "sleep 0.2", 60)
        assert result.exit_code == 0
        times.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(one)
    return {"times": times, "seconds": time.perf_counter() - began}


async def upload(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """A large file up: streamed where the runtime can, else from memory."""
    size = int(gigabytes * 2**30)
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        for start in range(0, size, CHUNK):
            file.write(b"x" * min(CHUNK, size - start))
        file.flush()
        began = time.perf_counter()
        if await wire.speaks_v1():
            await AsyncFiles(wire).upload(Path(file.name), "big")
        else:
            await legacy.upload(wire, "big", await anyio.Path(file.name).read_bytes(), None)
        return {"seconds": time.perf_counter() - began, "bytes": size}


async def download(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """A large file down."""
    size = int(gigabytes * 2**30)
    await legacy.execute(wire, f"truncate -s {size} big", None)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        target = Path(directory) / "big"
        began = time.perf_counter()
        if await wire.speaks_v1():
            await AsyncFiles(wire).download("big", target)
        else:
            await anyio.Path(target).write_bytes(await legacy.download(wire, "big", None))
        return {"seconds": time.perf_counter() - began, "bytes": size}


async def output(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """Standard output of a command, as it comes."""
    size, seen = int(gigabytes * 2**30), 0

    def count(text: str) -> None:
        nonlocal seen
        seen += len(text)

    began = time.perf_counter()
    await AsyncCommands(wire).run(f"head -c {size} /dev/zero", timeout=None, on_stdout=count)
    assert seen == size
    return {"seconds": time.perf_counter() - began, "bytes": size}


async def standard_input(wire: Wire, gigabytes: float) -> dict[str, Any]:
    """Standard input and, at the same time, output of a command: ``cat``."""
    size, seen = int(gigabytes * 2**30), 0
    process = await AsyncCommands(wire).start(["cat"], stdin=True)

    async def feed() -> None:
        for start in range(0, size, MIB):
            await process.send_stdin(bytes(min(MIB, size - start)))
        await process.close_stdin()

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        async for piece in process:
            seen += len(piece.data)
    assert seen == size
    return {"seconds": time.perf_counter() - began, "bytes": size}


MEASUREMENTS: dict[str, Measurement] = {
    measurement.__name__: measurement
    for measurement in (
        first_byte,
        round_trip,
        round_trip_streamed,
        parallel,
        upload,
        download,
        output,
        standard_input,
    )
}


async def measure_here(name: str, url: str, gigabytes: float) -> None:
    """Run one measurement in this process and print its numbers."""
    async with make_session(ConnectionOptions()) as session:
        wire = Wire(RouterRoute(session, url, {}), lambda: Target("default", "box"), 8888)
        await wire.speaks_v1()
        await legacy.execute(wire, "true", 60)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        numbers = await MEASUREMENTS[name](wire, gigabytes)
    numbers["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(json.dumps(numbers))


def measure(name: str, ours: bool, gigabytes: float) -> dict[str, Any]:
    """Run one measurement in a process of its own, against a server of its own."""
    with server(ours) as running:
        arguments = ["--measure", name, "--url", running.url, "--gigabytes", str(gigabytes)]
        before = running.memory("VmRSS")
        done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
        numbers: dict[str, Any] = json.loads(done.stdout)
        numbers["server_memory"] = running.memory() - before
        return numbers


# The table.


def line(what: str, ours: str, theirs: str = "", ratio: str = "") -> None:
    print(f"| {what} | {ours} | {theirs} | {ratio} |", flush=True)


def distribution(times: list[float]) -> str:
    ordered = sorted(times)
    return f"p50 {statistics.median(ordered) * 1000:.1f}, p99 {ordered[math.ceil(len(ordered) * 0.99) - 1] * 1000:.1f}"


def quietest(name: str, ours: bool) -> list[float]:
    """Times of the round with the lowest median."""
    rounds: list[list[float]] = [measure(name, ours, 0)["times"] for _ in range(ROUNDS)]
    return min(rounds, key=statistics.median)


def compare_times(what: str, name: str, against: str | None = None) -> None:
    ours, theirs = quietest(name, True), quietest(against or name, False)
    ratio = statistics.median(theirs) / statistics.median(ours)
    line(what, distribution(ours), distribution(theirs), f"{ratio:.2f}x")


def latency() -> None:
    compare_times("first byte of a command that runs for 300 ms more, ms", "first_byte")
    compare_times("round trip of `true`, ms", "round_trip")
    compare_times("round trip of `true`, streamed beside the legacy contract, ms", "round_trip_streamed", "round_trip")


def many() -> None:
    ours, theirs = measure("parallel", True, 0), measure("parallel", False, 0)
    what = "100 commands of 200 ms at once, until all are done, s"
    line(what, f"{ours['seconds']:.2f}", f"{theirs['seconds']:.2f}", f"{theirs['seconds'] / ours['seconds']:.1f}x")
    what = "and each of them, ms"
    line(what, distribution(ours["times"]), distribution(theirs["times"]))


def transfers(gigabytes: float) -> None:
    names = {"upload": "up", "download": "down", "output": "of standard output", "standard_input": "through `cat`"}
    for name, words in names.items():
        ours = measure(name, True, gigabytes)
        theirs = measure(name, False, gigabytes) if name in ("upload", "download") else None
        amount = f"{gigabytes:g} GB {words}"

        def row(what: str, value: Callable[[dict[str, Any]], float], ours: Any = ours, theirs: Any = theirs) -> None:
            if theirs is None:
                line(what, f"{value(ours):,.0f}")
            else:
                ratio = value(ours) / max(value(theirs), 0.1)
                line(what, f"{value(ours):,.0f}", f"{value(theirs):,.0f}", f"{ratio:.2f}x")

        row(f"{amount}, MB/s", lambda numbers: numbers["bytes"] / numbers["seconds"] / 1e6)
        row(f"{amount}: memory of the client, MB", lambda numbers: numbers["memory"] / 1e6)
        row(f"{amount}: memory of the runtime, MB", lambda numbers: numbers["server_memory"] / 1e6)


def imports() -> None:
    """CPU time of importing, less that of a bare Python; the median of several."""

    def cost(statement: str) -> float:
        program = f"import time; began = time.process_time()\n{statement}\nprint(time.process_time() - began)"
        times = []
        for _ in range(7):
            done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
            times.append(float(done.stdout) * 1000)
        return statistics.median(times)

    theirs = cost("import kubernetes_asyncio.client")
    for statement in ("import agent_sandbox", "from agent_sandbox import SandboxClient"):
        ours = cost(statement)
        ratio = f"1/{theirs / ours:.1f}"
        line(f"`{statement}` beside `import kubernetes_asyncio.client`, CPU ms", f"{ours:.0f}", f"{theirs:.0f}", ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of a transfer (default %(default)s)")
    parser.add_argument("--only", choices=["latency", "parallel", "transfers", "imports"], help="one part")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        anyio.run(measure_here, given.measure, given.url, given.gigabytes)
        return
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    print("| what | SDK and sandboxd | the same SDK and a legacy runtime | ratio |\n| --- | --- | --- | --- |")
    parts = {
        "latency": latency,
        "parallel": many,
        "transfers": lambda: transfers(given.gigabytes),
        "imports": imports,
    }
    for name, part in parts.items():
        if given.only in (None, name):
            part()


if __name__ == "__main__":
    main()
