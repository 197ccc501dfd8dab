"""Elections in virtual time on the embedded API server, through wires that are cut."""

import random
from collections.abc import AsyncIterator

import anyio
import pytest

from agent_sandbox.kube import KubeClient, OutcomeUnknownError
from agent_sandbox.runtime import Fence, FencedTransport, LeaderElectionOptions, LeaderElector, LeadershipLostError
from agent_sandbox.runtime.leader_election import Standby
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import LEASES, SERVICES

pytestmark = pytest.mark.virtual_time


class Candidate:
    """A process that may lead: a wire, a fence, an elector, and something that it writes when it leads."""

    def __init__(self, server: InMemoryApiServer, clock: VirtualClock, name: str, **options: float | bool) -> None:
        self.name = name
        self.clock = clock
        self.wire = FaultyTransport(server.transport())
        self.fence = Fence(clock=clock)
        client = KubeClient(self.wire, clock=clock)
        settings = LeaderElectionOptions(namespace="default", name="lock", identity=name, **options)  # type: ignore[arg-type]  # a test's shorthand
        self.elector = LeaderElector(client, settings, self.fence, clock=clock, random=random.Random(name))
        self.client = client.with_transport(FencedTransport(self.wire, self.fence), request_timeout=5)
        self.led_at: float | None = None
        self.lost_at: float | None = None
        self.refused = 0
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            await self.elector.acquire()
            self.led_at = self.clock.monotonic()
            try:
                await self.elector.lead()
            except LeadershipLostError:
                self.lost_at = self.clock.monotonic()

    async def write_without_rest(self) -> None:
        """A controller that never looks whether it leads."""
        number = 0
        while True:
            await self.clock.sleep(0.25)
            number += 1
            body = {
                "metadata": {"name": f"{self.name}-{number}", "namespace": "default"},
                "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
            }
            try:
                await self.client.create(SERVICES, body)
            except OutcomeUnknownError:
                continue
            except LeadershipLostError:
                self.refused += 1

    @property
    def writes(self) -> list[float]:
        """When writes other than to the Lease left this process."""
        return [request.at for request in self.wire.writes if "/leases" not in request.path]


@pytest.fixture
async def server(virtual_clock: VirtualClock) -> AsyncIterator[InMemoryApiServer]:
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield server
    await server.server.aclose()


async def holder(server: InMemoryApiServer) -> str | None:
    return (await KubeClient(server.transport()).get(LEASES, "lock", "default")).spec.holder_identity


async def test_the_first_candidate_leads_at_once_and_keeps_leading(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    one, two = Candidate(server, virtual_clock, "one"), Candidate(server, virtual_clock, "two")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        await virtual_clock.sleep(1)
        tasks.start_soon(two.run)
        await virtual_clock.sleep(600)

        assert one.led_at == pytest.approx(0, abs=0.1)
        assert two.led_at is None
        assert one.elector.is_leader
        assert not two.elector.is_leader
        assert await holder(server) == "one"
        tasks.cancel_scope.cancel()


async def test_a_released_lease_is_taken_at_once(server: InMemoryApiServer, virtual_clock: VirtualClock) -> None:
    one, two = Candidate(server, virtual_clock, "one"), Candidate(server, virtual_clock, "two")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        await virtual_clock.sleep(1)
        tasks.start_soon(two.run)
        await virtual_clock.sleep(60.3)
        one.scope.cancel()
        await virtual_clock.sleep(0.1)

        assert two.led_at == pytest.approx(61.3, abs=0.1), "its watch saw the vacancy, it did not wait for a retry"
        assert await holder(server) == "two"
        lease = await KubeClient(server.transport()).get(LEASES, "lock", "default")
        assert lease.spec.lease_transitions == 1
        tasks.cancel_scope.cancel()


async def test_after_a_crash_the_other_takes_over_within_the_lease_time_and_a_retry(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    one = Candidate(server, virtual_clock, "one", release_on_stop=False)
    two = Candidate(server, virtual_clock, "two")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        await virtual_clock.sleep(1)
        tasks.start_soon(two.run)
        await virtual_clock.sleep(59)
        one.scope.cancel()  # as kill -9: nothing is released
        await virtual_clock.sleep(30)

        assert two.led_at is not None
        assert 60 + 15 - 2 <= two.led_at <= 60 + 15 + 2 * 2.2
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(5))
async def test_two_holders_never_write_in_the_same_term(
    server: InMemoryApiServer, virtual_clock: VirtualClock, seed: int
) -> None:
    """The leader is partitioned while it writes without rest; the other takes over; the partition heals; again."""
    chance = random.Random(seed)
    candidates = [Candidate(server, virtual_clock, f"candidate-{number}") for number in range(3)]
    terms: list[tuple[str, float]] = []

    async def process(candidate: Candidate) -> None:
        """Leads whenever it can; a process that lost starts again, as under Kubernetes."""
        while True:
            await candidate.run()
            candidate.elector.state = Standby()

    async def observe() -> None:
        while True:
            now = await holder(server) if await exists(server) else None
            if now and (not terms or terms[-1][0] != now):
                terms.append((now, virtual_clock.monotonic()))
            await virtual_clock.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        for candidate in candidates:
            tasks.start_soon(process, candidate)
            tasks.start_soon(candidate.write_without_rest)
        tasks.start_soon(observe)
        for _ in range(6):
            await virtual_clock.sleep(chance.uniform(10, 40))
            leader = next((each for each in candidates if each.elector.is_leader), None)
            if leader is not None:
                leader.wire.partition()
                await virtual_clock.sleep(chance.uniform(5, 40))
                leader.wire.heal()
        tasks.cancel_scope.cancel()

    assert len(terms) >= 3, "the leadership moved"
    for (name, began), (_, ended) in zip(terms, [*terms[1:], ("", float("inf"))], strict=True):
        others = [each for each in candidates if each.name != name]
        strays = [at for each in others for at in each.writes if began + 0.05 < at < ended]
        assert strays == [], f"while {name} led, others wrote at {strays}"
    assert all(candidate.refused for candidate in candidates)


async def exists(server: InMemoryApiServer) -> bool:
    leases = await KubeClient(server.transport()).list(LEASES, "default")
    return bool(leases.items)


async def test_a_leader_that_is_cut_off_stops_writing_before_anybody_else_may_start(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    one, two = Candidate(server, virtual_clock, "one"), Candidate(server, virtual_clock, "two")
    async with anyio.create_task_group() as tasks:
        for candidate in (one, two):
            tasks.start_soon(candidate.run)
            tasks.start_soon(candidate.write_without_rest)
            await virtual_clock.sleep(1)
        await virtual_clock.sleep(30)
        cut = virtual_clock.monotonic()
        one.wire.partition()
        await virtual_clock.sleep(60)

        assert one.lost_at is not None
        assert two.led_at is not None
        assert one.writes[-1] <= cut + 10
        assert cut + 8 <= one.lost_at <= cut + 10.1
        assert two.writes[0] >= one.writes[-1] + 2.5, "the spare time between the deadline and the lease's end"
        assert one.refused > 100
        tasks.cancel_scope.cancel()


async def test_the_fence_shuts_by_itself_counted_from_the_sending_of_the_renewal(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    """The elector's own task may be stuck: the fence does not wait for it. And the answer may have taken its time."""
    one = Candidate(server, virtual_clock, "one")
    one.wire.inject(Fault.slow(4), method="POST", path="/leases")
    await one.elector.acquire()
    assert virtual_clock.monotonic() == pytest.approx(4)

    await virtual_clock.sleep(5.9)
    assert one.elector.is_leader
    await virtual_clock.sleep(0.2)
    assert not one.elector.is_leader


async def test_a_write_under_way_at_the_deadline_is_cut(virtual_clock: VirtualClock, server: InMemoryApiServer) -> None:
    wire = FaultyTransport(server.transport())
    fence = Fence(clock=virtual_clock)
    client = KubeClient(FencedTransport(wire, fence), clock=virtual_clock)
    wire.inject(Fault.slow(20))
    fence.open_until(3)

    with pytest.raises(OutcomeUnknownError, match="leadership ended"):
        await client.create(SERVICES, {"metadata": {"name": "a", "namespace": "default"}})
    assert virtual_clock.monotonic() == pytest.approx(3)
    with pytest.raises(LeadershipLostError, match="was not sent"):
        await client.create(SERVICES, {"metadata": {"name": "a", "namespace": "default"}})
    assert (await client.list(SERVICES, "default")).items == [], "reading is always allowed"


async def test_a_renewal_moves_the_deadline_of_writes_under_way(
    virtual_clock: VirtualClock, server: InMemoryApiServer
) -> None:
    wire = FaultyTransport(server.transport())
    fence = Fence(clock=virtual_clock)
    client = KubeClient(FencedTransport(wire, fence), clock=virtual_clock)
    wire.inject(Fault.slow(5))
    fence.open_until(3)

    async def renew() -> None:
        await virtual_clock.sleep(2)
        fence.open_until(12)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(renew)
        body = {"metadata": {"name": "a", "namespace": "default"}, "spec": {"clusterIP": "None"}}
        assert (await client.create(SERVICES, body)).metadata.name == "a"


@pytest.mark.parametrize(
    "fault",
    [Fault.lost_answer(), Fault.lost_request(), Fault.error(500), Fault.conflict(), Fault.unreachable(), Fault.slow(4)],
    ids=str,
)
async def test_single_failures_of_a_renewal_do_not_depose_the_leader(
    server: InMemoryApiServer, virtual_clock: VirtualClock, fault: Fault
) -> None:
    one = Candidate(server, virtual_clock, "one")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        for _ in range(10):
            await virtual_clock.sleep(11)
            one.wire.inject(fault, method="PATCH", path="/leases")
            assert one.elector.is_leader
        assert one.lost_at is None
        tasks.cancel_scope.cancel()


async def test_a_lease_taken_with_an_unknown_outcome_is_recognised_as_its_own(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    one = Candidate(server, virtual_clock, "one")
    one.wire.inject(Fault.lost_answer(), method="POST", path="/leases")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        await virtual_clock.sleep(5)

        assert one.elector.is_leader, "it did not wait for its own lease to end"
        tasks.cancel_scope.cancel()


async def test_somebody_who_takes_the_lease_by_force_deposes_the_leader(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    one = Candidate(server, virtual_clock, "one")
    admin = KubeClient(server.transport(), clock=virtual_clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        await virtual_clock.sleep(5)
        lease = await admin.get_object(LEASES, "lock", "default")
        lease["spec"]["holderIdentity"] = "usurper"
        await admin.update(LEASES, lease)
        await virtual_clock.sleep(3)

        assert one.lost_at is not None
        assert not one.fence.is_open
        assert await holder(server) == "usurper", "what belongs to another is not released"


async def test_who_stops_before_noticing_that_another_took_the_lease_leaves_it_alone(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    one = Candidate(server, virtual_clock, "one")
    admin = KubeClient(server.transport(), clock=virtual_clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        await virtual_clock.sleep(5)
        lease = await admin.get_object(LEASES, "lock", "default")
        lease["spec"]["holderIdentity"] = "usurper"
        await admin.update(LEASES, lease)
        one.scope.cancel()

    assert await holder(server) == "usurper"


def test_times_that_would_let_two_leaders_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="two leaders could overlap"):
        LeaderElectionOptions(namespace="n", name="l", lease_duration=10, renew_deadline=10)
    with pytest.raises(ValueError, match="one failure would depose"):
        LeaderElectionOptions(namespace="n", name="l", renew_deadline=2, retry_period=2)
