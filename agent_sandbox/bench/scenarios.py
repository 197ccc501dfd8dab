"""What is measured: each scenario prepares a stage, does one thing many times, and tells what it took."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from agent_sandbox.bench.bench import POOL, Bench, Taken
from agent_sandbox.bench.results import Measured


@dataclass(frozen=True)
class Scenario:
    """One thing to measure.

    Attributes:
        name: how it is called on the command line and in results.
        text: what it does, for people.
        run: does it, on an empty bench.
        restarts: it stops or kills the controllers, so they must have been started by the benchmark.
    """

    name: str
    text: str
    run: Callable[[Bench], Awaitable[Measured]]
    restarts: bool = False


async def _serial(bench: Bench) -> Measured:
    count, pool = min(bench.sizes.claims, 20), min(bench.sizes.pool, 10)
    await bench.prepare(pool)
    async with bench.measured() as taken:
        for number in range(count):
            await bench.claim(taken, f"serial-{number:05}", POOL)
    return _measured("serial", taken, claims=count, pool=pool)


async def _parallel(bench: Bench) -> Measured:
    sizes = bench.sizes
    await bench.prepare(sizes.pool)
    async with bench.measured() as taken:
        await bench.many(
            lambda number: bench.claim(taken, f"parallel-{number:05}", POOL), sizes.claims, sizes.in_flight
        )
    return _measured("parallel", taken, claims=sizes.claims, in_flight=sizes.in_flight, pool=sizes.pool)


async def _burst(bench: Bench) -> Measured:
    sizes = bench.sizes
    await bench.prepare(sizes.pool)
    async with bench.measured() as taken:
        await bench.many(lambda number: bench.claim(taken, f"burst-{number:05}", POOL), sizes.claims, sizes.claims)
    return _measured("burst", taken, claims=sizes.claims, pool=sizes.pool)


async def _sustained(bench: Bench) -> Measured:
    sizes = bench.sizes
    count = round(sizes.rate * sizes.seconds)
    await bench.prepare(sizes.pool)
    async with bench.measured() as taken, anyio.create_task_group() as tasks:
        for number in range(count):
            # By the clock and not after the last one: a slow answer must not thin out the load.
            await bench.clock.sleep(taken.began + number / sizes.rate - bench.clock.monotonic())
            tasks.start_soon(bench.claim, taken, f"sustained-{number:05}", POOL)
    return _measured("sustained", taken, rate=sizes.rate, seconds=sizes.seconds, pool=sizes.pool)


async def _cold(bench: Bench) -> Measured:
    sizes = bench.sizes
    await bench.prepare(0)
    async with bench.measured() as taken:
        await bench.many(lambda number: bench.claim(taken, f"cold-{number:05}", None), sizes.claims, sizes.in_flight)
    return _measured("cold", taken, claims=sizes.claims, in_flight=sizes.in_flight)


async def _fill(bench: Bench) -> Measured:
    await bench.prepare(0)
    async with bench.measured() as taken:
        began = bench.clock.monotonic()
        await bench.fill(bench.sizes.pool)
        ended = bench.clock.monotonic()
        # A pool has one moment that counts; shared among its members it can be set beside other sizes.
        taken.seconds = [(ended - began) / bench.sizes.pool] * bench.sizes.pool
        taken.ended = ended
    measured = _measured("fill", taken, unit="members", pool=bench.sizes.pool)
    measured.figures["seconds until full"] = taken.elapsed
    return measured


async def _suspend(bench: Bench) -> Measured:
    sizes, kind = bench.sizes, bench.dialect.sandboxes
    suspended = Taken(0.0)

    async def make(number: int) -> None:
        name = f"suspend-{number:05}"
        with bench.sandboxes.expect(name, lambda seen: seen.is_ready) as ready:
            await bench.create(kind, bench.dialect.sandbox(name, bench.pod))
            await bench.within_patience(ready.met(), f"Sandbox {name} is not Ready")

    async def there_and_back(taken: Taken, number: int) -> None:
        name = f"suspend-{number:05}"
        with bench.sandboxes.expect(name, lambda seen: seen.is_suspended) as asleep:
            asked = bench.clock.monotonic()
            await bench.change(kind, name, bench.dialect.running(False))
            suspended.add(asked, await bench.within_patience(asleep.met(), f"Sandbox {name} is not suspended"))
        with bench.sandboxes.expect(name, lambda seen: seen.is_ready and not seen.is_suspended) as awake:
            asked = bench.clock.monotonic()
            await bench.change(kind, name, bench.dialect.running(True))
            taken.add(asked, await bench.within_patience(awake.met(), f"Sandbox {name} is not Ready again"))

    await bench.many(make, sizes.claims, sizes.in_flight)
    await bench.settle()
    async with bench.measured() as taken:
        await bench.many(lambda number: there_and_back(taken, number), sizes.claims, sizes.in_flight)
    measured = _measured("suspend-resume", taken, unit="Sandboxes", sandboxes=sizes.claims, in_flight=sizes.in_flight)
    asleep = Measured(scenario="", parameters={}, unit="", seconds=suspended.seconds, elapsed=0.0)
    measured.figures["suspend p50 ms"] = asleep.percentile(0.5) * 1000
    measured.figures["suspend p99 ms"] = asleep.percentile(0.99) * 1000
    measured.notes.append("a sample is the resume alone: from the patch to Ready; writes and CPU are of both ways")
    return measured


async def _restart(bench: Bench) -> Measured:
    sizes = bench.sizes
    await bench.prepare(sizes.objects)
    before = await bench.subject.read()
    await bench.subject.stop()
    async with bench.measured() as taken:
        await bench.subject.start()
        await bench.claim(taken, "first-after-restart", POOL)
    idle_from, cpu_from = bench.clock.monotonic(), await bench.subject.read()
    await bench.clock.sleep(10.0)
    cpu_to, idle = await bench.subject.read(), bench.clock.monotonic() - idle_from
    measured = _measured("restart", taken, objects=sizes.objects)
    if cpu_from is not None and cpu_to is not None:
        measured.figures["idle CPU %"] = (cpu_to.cpu_seconds - cpu_from.cpu_seconds) / idle * 100
    if before is not None:
        measured.figures["peak MB before the restart"] = before.memory_bytes / 1e6
    measured.notes.append("the sample runs from the start of the process to its first claim being Ready")
    return measured


async def _leader_change(bench: Bench) -> Measured:
    sizes = bench.sizes
    await bench.subject.start()  # the second one waits for the first to go
    await bench.prepare(sizes.pool)
    async with bench.measured() as taken, anyio.create_task_group() as tasks:
        tasks.start_soon(
            bench.many, lambda number: bench.claim(taken, f"change-{number:05}", POOL), sizes.claims, sizes.claims
        )
        while len(taken.seconds) < sizes.claims // 4:
            await bench.clock.sleep(0.001)
        killed = bench.clock.monotonic()
        await bench.subject.kill_leader()
    measured = _measured("leader-change", taken, claims=sizes.claims, pool=sizes.pool)
    measured.figures["seconds from the kill to the last claim"] = taken.ended - killed
    measured.notes.append("the leader is killed when a quarter of the claims is Ready")
    return measured


def _measured(name: str, taken: Taken, unit: str = "claims", **parameters: Any) -> Measured:
    cost = taken.cost
    return Measured(
        scenario=name,
        parameters=parameters,
        unit=unit,
        seconds=[round(each, 5) for each in taken.seconds],
        elapsed=taken.elapsed,
        writes=None if cost.writes is None else dict(sorted(cost.writes.items())),
        controller_cpu=cost.controller_cpu,
        controller_memory=cost.controller_memory,
        server_cpu=cost.server_cpu,
        figures={},
        notes=[],
    )


SCENARIOS: Final = {
    each.name: each
    for each in (
        Scenario("serial", "one claim at a time on a pool that is refilled", _serial),
        Scenario("parallel", "claims by several clients at a time on a pool that is refilled", _parallel),
        Scenario("burst", "all claims at once on a pool", _burst),
        Scenario("sustained", "claims at a steady rate for some time", _sustained),
        Scenario("cold", "claims without a pool, by several clients at a time", _cold),
        Scenario("fill", "an empty pool becomes full", _fill),
        Scenario("suspend-resume", "Sandboxes are suspended and resumed, several at a time", _suspend),
        Scenario("restart", "the controllers are started again beside many objects", _restart, restarts=True),
        Scenario("leader-change", "a burst of claims during which the leader is killed", _leader_change, restarts=True),
    )
}
