# ruff: noqa: T201 - a program that prints
"""What the runtime costs, beside kubernetes_asyncio in the same run: `python test/bench/runtime_bench.py`.

Method: both sides run in this process against the same trivial server in another one, over loopback without TLS, one
after the other, three rounds, the best of each. "CPU" divides by this process's CPU time, which a busy machine does not
disturb; "wall" by elapsed time. Memory is what tracemalloc sees. Ratios are what to read; absolute numbers are the
machine's.
"""

import argparse
import asyncio
import gc
import json
import logging
import platform
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import kubernetes_asyncio.client as official
import structlog
from kubernetes_asyncio.watch import Watch

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import MergePatch, connect_to
from agent_sandbox.runtime import Cache, Controller, Manager, ManagerOptions, Request, Result, WatchOptions, WorkQueue
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS

ROUNDS = 3


@dataclass
class Rate:
    """Operations per second of CPU and of elapsed time."""

    cpu: float
    wall: float


@dataclass
class Table:
    """Rows as they are measured."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, ours: str, theirs: str = "", ratio: str = "") -> None:
        self.rows.append((what, ours, theirs, ratio))
        print(f"| {what} | {ours} | {theirs} | {ratio} |", flush=True)

    def compare(self, what: str, ours: Rate, theirs: Rate) -> None:
        self.add(f"{what}, per CPU second", f"{ours.cpu:,.0f}", f"{theirs.cpu:,.0f}", f"{ours.cpu / theirs.cpu:.1f}x")
        self.add(f"{what}, per second", f"{ours.wall:,.0f}", f"{theirs.wall:,.0f}", f"{ours.wall / theirs.wall:.1f}x")


@contextmanager
def server() -> Iterator[str]:
    """The trivial server in a process of its own; its URL."""
    script = Path(__file__).with_name("runtime_server.py")
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


async def best(count: int, run: Callable[[], Awaitable[None]]) -> Rate:
    """The best of several rounds of ``count`` operations."""
    rates = []
    for _ in range(ROUNDS):
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        await run()
        rates.append(Rate(count / (time.process_time() - cpu), count / (time.perf_counter() - wall)))
    return max(rates, key=lambda rate: rate.cpu)


def official_client(url: str) -> official.ApiClient:
    configuration = official.Configuration(host=url)
    return official.ApiClient(configuration)


async def watch_events(url: str, table: Table) -> None:
    """Ten thousand events of 6 KB, decoded and counted."""
    client = await connect_to(url)

    async def ours() -> None:
        count = 0
        async with client.watch(PODS, resource_version="1", timeout_seconds=60, read_timeout=30) as events:
            async for event in events:
                count += event.object.status.phase == "Running"
        assert count == 10_000

    theirs_count = 2_000
    api = official_client(url)

    async def theirs() -> None:
        count = 0
        watch = Watch()
        async for event in watch.stream(official.CoreV1Api(api).list_pod_for_all_namespaces, resource_version="1"):
            count += event["object"].status.phase == "Running"
            if count == theirs_count:
                watch.stop()
                break
        await watch.close()

    table.compare("watch events decoded", await best(10_000, ours), await best(theirs_count, theirs))
    await client.aclose()
    await api.close()


async def memory_per_pod(url: str, table: Table) -> None:
    """What one cached Pod keeps, in its store or as the typed model in a dict."""
    count = 2_000
    client = await connect_to(url)
    pages = await client.request("GET", "/api/v1/pods", query={"limit": "500"})
    await client.aclose()
    body = pages.body
    api = official_client(url)

    def measure(make: Callable[[int], Any]) -> float:
        gc.collect()
        tracemalloc.start()
        kept = [make(number) for number in range(count // 500)]
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept
        return size / count / 1024

    text = body.decode()
    decode = api._ApiClient__deserialize  # type: ignore[attr-defined]  # the library's own typed decoding
    ours = measure(lambda _: PODS.decode_list(body)[0])
    theirs = measure(lambda _: decode(json.loads(text), "V1PodList").items)
    table.add("KB kept per cached Pod", f"{ours:.1f}", f"{theirs:.1f}", f"1/{theirs / ours:.1f}")
    await api.close()


async def round_trips(url: str, table: Table) -> None:
    """PATCH of a Sandbox, answer decoded."""
    client = await connect_to(url)
    api = official_client(url)
    api.configuration.connection_pool_maxsize = 256
    custom = official.CustomObjectsApi(api)
    patch = {"status": {"replicas": 1}}

    async def ours() -> None:
        await client.patch(SANDBOXES, "a", MergePatch(patch), "default", subresource="status")

    async def theirs() -> None:
        await custom.patch_namespaced_custom_object(  # type: ignore[call-arg]  # its signature hides the option
            "agents.x-k8s.io",
            "v1alpha1",
            "default",
            "sandboxes",
            "a",
            patch,
            _content_type="application/merge-patch+json",
        )

    async def many(call: Callable[[], Awaitable[None]], flights: int, count: int) -> None:
        async def flight() -> None:
            for _ in range(count // flights):
                await call()

        async with anyio.create_task_group() as tasks:
            for _ in range(flights):
                tasks.start_soon(flight)

    for flights in (1, 10, 50, 200):
        count = 2_000
        mine = await best(count, lambda flights=flights, count=count: many(ours, flights, count))  # type: ignore[misc]
        other = await best(count // 2, lambda flights=flights, count=count: many(theirs, flights, count // 2))  # type: ignore[misc]
        table.compare(f"API round trips, {flights} in flight", mine, other)
    await client.aclose()
    await api.close()


async def queue_operations(table: Table) -> None:
    """add, get and done of a key, by fifty workers."""
    count = 50_000

    async def run() -> None:
        queue: WorkQueue[int] = WorkQueue(clock=SystemClock())
        left = count

        async def worker(scope: anyio.CancelScope) -> None:
            nonlocal left
            while True:
                key = await queue.get()
                queue.done(key)
                left -= 1
                if left == 0:
                    scope.cancel()

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(worker, tasks.cancel_scope)
            for number in range(count):
                queue.add(number, priority=-100 if number % 2 else 0)

    rate = await best(count, run)
    table.add("queue: keys added, taken and done, per second", f"{rate.wall:,.0f}")


class Stopwatch:
    """A reconciler whose first line looks at the clock."""

    def __init__(self) -> None:
        self.manager: Manager
        self.latencies: list[float] = []

    async def reconcile(self, request: Request) -> Result:
        now = time.monotonic()
        pod = self.manager.cache.informer(PODS).store.get(request.namespace, request.name)
        if pod is not None and "sent" in pod.metadata.annotations:
            self.latencies.append(now - float(pod.metadata.annotations["sent"]))
        return Result.done()


async def event_to_reconcile(url: str, table: Table) -> None:
    """From the sending of an event by the server to the first line of the reconciler, at 1,000 events per second."""
    client = await connect_to(url + "/paced")
    watch = Stopwatch()
    manager = watch.manager = Manager(client, options=ManagerOptions(watch=WatchOptions(streamed_list=False)))
    manager.add(Controller("stopwatch", watch, workers=8).watches_for(PODS))
    async with anyio.create_task_group() as tasks:
        await tasks.start(manager.run)
        cpu, wall = time.process_time(), time.perf_counter()
        await anyio.sleep(8)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        tasks.cancel_scope.cancel()
    await client.aclose()
    measured = sorted(watch.latencies[1000:])
    table.add(
        f"watch event sent to reconciler's first line, 1,000/s, {len(measured):,} events",
        f"p50 {measured[len(measured) // 2] * 1000:.2f} ms, p99 {measured[int(len(measured) * 0.99)] * 1000:.2f} ms; "
        f"{share:.0%} of a CPU",
    )


async def list_and_index(url: str, table: Table) -> None:
    """Ten thousand Pods from the server into an indexed store."""
    times = []
    for _ in range(ROUNDS):
        client = await connect_to(url)
        cache = Cache(client, clock=SystemClock(), random=random.Random(1), watch=WatchOptions(streamed_list=False))
        informer = cache.informer(PODS)
        informer.add_index("owner", lambda pod: [owner.uid for owner in pod.metadata.owner_references])
        informer.add_index("app", lambda pod: [pod.metadata.labels["app"]])
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            await tasks.start(cache.run)
            await cache.wait_until_synced(60)
            times.append(time.perf_counter() - began)
            assert len(informer.store) == 10_000
            assert len(informer.store.by_index("app", "app-7")) == 100
            tasks.cancel_scope.cancel()
        await client.aclose()
    table.add("10,000 Pods listed (60 MB) and put into two indexes", f"{statistics.median(times):.2f} s")


async def main(only: str) -> None:
    """Measure and print a table in Markdown."""
    parts: dict[str, Callable[[str, Table], Awaitable[None]]] = {
        "watch": watch_events,
        "memory": memory_per_pod,
        "requests": round_trips,
        "queue": lambda _, table: queue_operations(table),
        "latency": event_to_reconcile,
        "list": list_and_index,
    }
    table = Table()
    loop = type(asyncio.get_running_loop()).__module__
    print(f"Python {platform.python_version()}, {loop}, kubernetes_asyncio {version('kubernetes_asyncio')}")
    print("\n| what | ours | kubernetes_asyncio | ratio |\n|---|---|---|---|")
    with server() as url:
        for name, part in parts.items():
            if only in ("", name):
                await part(url, table)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="watch, memory, requests, queue, latency or list")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    arguments = parser.parse_args()
    if arguments.uvloop:
        import uvloop

        uvloop.run(main(arguments.only))
    else:
        asyncio.run(main(arguments.only))
