"""The benchmark on the embedded control plane with our controllers, in virtual time: does it measure what it says?"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from agent_sandbox.bench import SCENARIOS, External, Measured, Report, Sizes, StartDelay, Subject, find_dialect
from agent_sandbox.bench.bench import BenchError
from agent_sandbox.bench.dialect import Dialect, DialectError
from agent_sandbox.bench.meters import ProcessReading
from agent_sandbox.bench.run import RunOptions, run
from agent_sandbox.kube import ForbiddenError, KubeClient
from agent_sandbox.runtime import Manager, ManagerOptions
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import NAMESPACES
from agent_sandbox_api.crds import load_crds
from agent_sandbox_controllers import ControllerOptions, register

pytestmark = pytest.mark.virtual_time

SIZES = Sizes(claims=6, pool=4, in_flight=3, rate=2.0, seconds=3.0, objects=5, patience=120.0)


@dataclass
class InProcess:
    """Our controllers as a subject: started and stopped as tasks of this process."""

    server: InMemoryApiServer
    clock: VirtualClock
    tasks: anyio.abc.TaskGroup
    name: str = "in-process"
    is_ours: bool = True
    events: list[str] = field(default_factory=list)
    _scopes: list[anyio.CancelScope] = field(default_factory=list)

    async def read(self) -> ProcessReading | None:
        return ProcessReading(float(len(self.events)), 7_000_000)

    async def start(self) -> None:
        self.events.append("start")
        if self._scopes:
            return  # the standby of an election; this subject takes over when the leader is killed
        await self.tasks.start(self._serve)

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            client = KubeClient(self.server.transport(), clock=self.clock)
            manager = Manager(
                client, clock=self.clock, options=ManagerOptions(component="test"), random=random.Random(1)
            )
            register(manager, ControllerOptions())
            await manager.run(task_status=task_status)

    async def stop(self) -> None:
        self.events.append("stop")
        while self._scopes:
            self._scopes.pop().cancel()
        await anyio.wait_all_tasks_blocked()

    async def kill_leader(self) -> None:
        await self.stop()
        self.events[-1] = "kill"
        await self.tasks.start(self._serve)


@dataclass
class House:
    server: InMemoryApiServer
    client: KubeClient
    clock: VirtualClock
    subject: InProcess
    said: list[str] = field(default_factory=list)
    kept: list[list[str]] = field(default_factory=list)
    heard: Callable[[str], None] = lambda _: None

    async def measure(self, *names: str, sizes: Sizes = SIZES) -> list[Measured]:
        options = RunOptions(scenarios=[SCENARIOS[name] for name in names], sizes=sizes, hollow_node=StartDelay("0.5"))
        return (await self.run(options)).results

    async def run(self, options: RunOptions, subject: Subject | None = None) -> Report:
        dialect = await find_dialect(self.client)
        return await run(
            self.client,
            dialect,
            subject or self.subject,
            options,
            clock=self.clock,
            say=self.say,
            keep=self.keep,
        )

    def say(self, text: str) -> None:
        self.said.append(text)
        self.heard(text)

    async def keep(self, report: Report) -> None:
        self.kept.append([each.scenario for each in report.results])


@asynccontextmanager
async def open_house(clock: VirtualClock) -> AsyncIterator[House]:
    async with InMemoryApiServer(crds=load_crds(), clock=clock) as server, anyio.create_task_group() as tasks:
        client = KubeClient(server.transport(), clock=clock)
        yield House(server, client, clock, InProcess(server, clock, tasks))
        tasks.cancel_scope.cancel()


async def test_a_burst_within_the_pool_is_warm_and_costs_what_the_budget_allows(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        (burst,) = await house.measure("burst", sizes=Sizes(claims=4, pool=4))

    assert len(burst.seconds) == 4
    assert max(burst.seconds) < 0.5, "no claim waited for a Pod to start"
    assert burst.writes is not None
    assert burst.writes["create pods"] == 4, "each member that was taken is replaced"
    assert burst.writes["patch sandboxes"] == 4
    assert burst.writes["patch sandboxclaims/status"] == 4
    assert "create sandboxclaims" not in burst.writes, "the benchmark's own writes are not the controllers'"
    assert "patch pods/status" not in burst.writes, "nor are its hollow node's"
    assert burst.parameters == {"claims": 4, "pool": 4}


async def test_cold_claims_wait_for_their_pod(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        (cold,) = await house.measure("cold")

    assert len(cold.seconds) == SIZES.claims
    assert min(cold.seconds) >= 0.5
    assert cold.writes is not None
    assert cold.writes["create sandboxes"] == SIZES.claims
    assert 0.9 < cold.elapsed < 2.0, "three at a time, two rounds of half a second"


async def test_every_other_scenario_gives_its_samples(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        results = await house.measure("serial", "parallel", "sustained", "fill", "suspend-resume")

    samples = {each.scenario: len(each.seconds) for each in results}
    assert samples == {"serial": 6, "parallel": 6, "sustained": 6, "fill": 4, "suspend-resume": 6}
    by_name = {each.scenario: each for each in results}
    assert by_name["sustained"].elapsed >= 2.5, "a steady rate does not hurry"
    assert by_name["fill"].figures["seconds until full"] >= 0.5
    assert by_name["suspend-resume"].figures["suspend p50 ms"] < 5000
    assert min(by_name["suspend-resume"].seconds) >= 0.5, "a resume waits for a new Pod"


async def test_controllers_are_restarted_and_killed_where_the_scenario_says_so(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        restart, change = await house.measure("restart", "leader-change")
        events = house.subject.events

    assert events == ["start", "stop", "start", "stop", "start", "start", "kill", "stop"]
    assert len(restart.seconds) == 1
    assert restart.figures["peak MB before the restart"] == 7.0
    assert "idle CPU %" in restart.figures
    assert len(change.seconds) == SIZES.claims
    assert change.figures["seconds from the kill to the last claim"] > 0


async def test_nothing_is_left_behind(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        before = {each.metadata.name for each in (await house.client.list(NAMESPACES)).items}
        await house.measure("serial")
        await virtual_clock.sleep(5)  # namespaces end in the background
        after = {each.metadata.name for each in (await house.client.list(NAMESPACES)).items}

    assert after == before


async def test_what_is_measured_is_kept_before_anything_is_cleaned_up(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        before = len((await house.client.list(NAMESPACES)).items)
        with anyio.CancelScope() as interrupted:

            def stop_at_the_second_clean_up(text: str) -> None:
                if "removing" in text and len(house.kept) == 2:
                    interrupted.cancel()

            house.heard = stop_at_the_second_clean_up
            await house.measure("serial", "cold")
        await virtual_clock.sleep(5)  # namespaces end in the background
        after = len((await house.client.list(NAMESPACES)).items)

    assert interrupted.cancelled_caught
    assert house.kept == [["serial"], ["serial", "cold"]]
    assert after == before
    assert any("if it stays: kubectl delete namespace agent-sandbox-bench-" in each for each in house.said)


async def test_a_namespace_that_cannot_be_removed_is_named_with_the_command(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        transport = FaultyTransport(house.server.transport())
        house.client = KubeClient(transport, clock=virtual_clock)
        transport.inject(Fault.error(403, "Forbidden"), method="DELETE", only_if=lambda _, path: path.count("/") == 4)
        (serial,) = await house.measure("serial")

    assert len(serial.seconds) == 6, "what was measured is worth no less"
    assert any("could not be deleted (" in each and ": kubectl delete namespace" in each for each in house.said)


async def test_what_may_not_be_read_is_said_at_once(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        transport = FaultyTransport(house.server.transport())
        transport.inject(Fault.error(403, "Forbidden"), path="/sandboxclaims", times=None)
        house.client = KubeClient(transport, clock=virtual_clock)
        began = virtual_clock.monotonic()
        with pytest.raises(ForbiddenError, match="sandboxclaims"):
            await house.measure("serial")

    assert virtual_clock.monotonic() - began < 1


async def test_nobody_who_serves_the_kinds_is_said_long_before_patience_ends(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        began = virtual_clock.monotonic()
        options = RunOptions(scenarios=[SCENARIOS["cold"]], sizes=Sizes(patience=3600.0))
        with pytest.raises(BaseExceptionGroup) as caught:
            await house.run(options, External())

    assert caught.group_contains(BenchError, match="no controller has said anything")
    assert virtual_clock.monotonic() - began < 90


async def test_a_state_that_is_not_reached_is_said_and_cleaned_up(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        before = len((await house.client.list(NAMESPACES)).items)
        options = RunOptions(scenarios=[SCENARIOS["burst"]], sizes=Sizes(pool=2, patience=10.0))
        with pytest.raises(BaseExceptionGroup) as caught:  # without any node the pool is never full
            await house.run(options)
        await virtual_clock.sleep(5)
        after = len((await house.client.list(NAMESPACES)).items)

    assert caught.group_contains(BenchError, match="the pool is not full with 2 members after 10 s")
    assert after == before


async def test_controllers_that_are_not_ours_are_never_stopped(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        options = RunOptions(scenarios=[SCENARIOS["restart"]], sizes=SIZES)
        with pytest.raises(BenchError, match="start them with --controller"):
            await house.run(options, External())


async def test_a_server_without_our_kinds_is_named_with_the_next_step(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        client = KubeClient(server.transport(), clock=virtual_clock)
        with pytest.raises(DialectError, match="kubectl apply -k config/crd"):
            await find_dialect(client)


async def test_one_kind_that_is_missing_is_named_with_the_next_step(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        transport = FaultyTransport(house.server.transport())
        transport.inject(Fault.error(404, "NotFound"), path="/sandboxwarmpools")
        house.client = KubeClient(transport, clock=virtual_clock)
        with pytest.raises(DialectError, match=r"does not serve sandboxwarmpools.*kubectl apply -k config/crd"):
            await house.measure("serial")


async def test_a_version_that_is_not_served_is_refused_and_the_served_ones_named(virtual_clock: VirtualClock) -> None:
    async with open_house(virtual_clock) as house:
        with pytest.raises(DialectError, match="as v1alpha1, not as v1beta1"):
            await find_dialect(house.client, "v1beta1")


def test_the_newer_version_is_spoken_in_its_own_words() -> None:
    newer = Dialect("v1beta1")

    assert newer.claim("c", "template", "pool")["spec"] == {"warmPoolRef": {"name": "pool"}}
    assert newer.claim("c", "template", None)["spec"] == {"warmPoolRef": {"name": "template"}}
    assert newer.cold_pool("template")["spec"]["replicas"] == 0  # type: ignore[index]
    assert newer.running(False) == {"spec": {"operatingMode": "Suspended"}}
    assert newer.claims.api_version == "extensions.agents.x-k8s.io/v1beta1"
