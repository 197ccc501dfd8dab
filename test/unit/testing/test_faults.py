"""Each fault does what its name says, and no more."""

from collections.abc import AsyncIterator

import pytest

from agent_sandbox.kube import (
    ConflictError,
    KubeClient,
    OutcomeUnknownError,
    ServerError,
    UnreachableError,
    WatchEvent,
)
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import SERVICES, ServiceView

pytestmark = pytest.mark.virtual_time


class Setup:
    """A client on a faulty wire, and one on a good wire."""

    def __init__(self, server: InMemoryApiServer, clock: VirtualClock) -> None:
        self.clock = clock
        self.wire = FaultyTransport(server.transport())
        self.client = KubeClient(self.wire, clock=clock)
        self.admin = KubeClient(server.transport(), clock=clock)

    async def create(self, name: str, client: KubeClient | None = None) -> ServiceView:
        body = {"metadata": {"name": name}, "spec": {"clusterIP": "None"}}
        return await (client or self.client).create(SERVICES, body, "default")

    async def names(self) -> list[str]:
        return [each.metadata.name for each in (await self.admin.list(SERVICES, "default")).items]


@pytest.fixture
async def setup(virtual_clock: VirtualClock) -> AsyncIterator[Setup]:
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield Setup(server, virtual_clock)
    await server.server.aclose()


@pytest.mark.parametrize(
    ("fault", "error", "effect"),
    [
        (Fault.unreachable(), UnreachableError, False),
        (Fault.error(500), ServerError, False),
        (Fault.conflict(), ConflictError, False),
        (Fault.lost_request(), OutcomeUnknownError, False),
        (Fault.lost_answer(), OutcomeUnknownError, True),
        (Fault.slow(31), OutcomeUnknownError, False),
    ],
    ids=lambda value: str(getattr(value, "kind", value)),
)
async def test_a_fault_of_a_write_fails_it_once_with_or_without_effect(
    setup: Setup, fault: Fault, error: type[Exception], effect: bool
) -> None:
    setup.wire.inject(fault, method="POST", path="/services")
    with pytest.raises(error):
        await setup.create("a")
    assert await setup.names() == (["a"] if effect else [])

    await setup.create("b")
    assert "b" in await setup.names()
    assert [request.fault for request in setup.wire.writes] == [fault, None]


async def test_faults_concern_only_what_they_are_for(setup: Setup) -> None:
    rule = setup.wire.inject(Fault.error(500), method="DELETE", times=None)
    await setup.create("a")
    assert rule.hits == 0

    created = await setup.admin.get(SERVICES, "a", "default")
    for _ in range(3):
        with pytest.raises(ServerError):
            await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid)
    assert rule.hits == 3
    setup.wire.heal()
    await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid)


async def test_a_slow_request_arrives_late(setup: Setup) -> None:
    setup.wire.inject(Fault.slow(5))
    await setup.create("a")

    assert setup.clock.monotonic() == pytest.approx(5)


async def test_a_partition_swallows_requests_until_it_heals(setup: Setup) -> None:
    setup.wire.partition()
    with pytest.raises(OutcomeUnknownError, match="cut"):
        await setup.create("a")
    assert setup.clock.monotonic() == pytest.approx(30), "as long as the request's own timeout"
    with pytest.raises(UnreachableError):
        async with setup.client.watch(SERVICES, resource_version="", timeout_seconds=60):
            pass

    setup.wire.heal()
    await setup.create("b")
    assert await setup.names() == ["b"]


async def watch(setup: Setup, count: int) -> list[WatchEvent[ServiceView]]:
    """Up to so many events of a watch with a read deadline of ten seconds."""
    seen: list[WatchEvent[ServiceView]] = []
    async with setup.client.watch(SERVICES, resource_version="", timeout_seconds=50, read_timeout=10) as events:
        async for event in events:
            seen.append(event)
            if len(seen) == count:
                break
    return seen


async def test_a_watch_breaks_after_so_many_lines(setup: Setup) -> None:
    for name in "abc":
        await setup.create(name)
    setup.wire.inject(Fault.broken_stream(after_lines=3))
    with pytest.raises(OutcomeUnknownError, match="broke after 3 lines"):
        await watch(setup, 10)
    assert len(await watch(setup, 3)) == 3, "the fault was for one watch"


async def test_a_silent_watch_meets_its_read_deadline(setup: Setup) -> None:
    for name in "abc":
        await setup.create(name)
    setup.wire.inject(Fault.silent_stream(after_lines=1))
    with pytest.raises(OutcomeUnknownError):
        await watch(setup, 10)
    assert setup.clock.monotonic() == pytest.approx(10, abs=0.1)


async def test_a_slow_watch_is_late(setup: Setup) -> None:
    await setup.create("a")
    setup.wire.inject(Fault.slow_stream(4))
    await watch(setup, 1)

    assert setup.clock.monotonic() == pytest.approx(4, abs=0.1)


async def test_a_dropped_watch_ends_now(setup: Setup) -> None:
    import anyio

    async with anyio.create_task_group() as tasks:

        async def drop() -> None:
            await setup.clock.sleep(3)
            setup.wire.drop_watches()

        tasks.start_soon(drop)
        with pytest.raises(OutcomeUnknownError, match="dropped"):
            await watch(setup, 10)
    assert setup.clock.monotonic() == pytest.approx(3)


async def test_a_watch_that_fell_silent_can_be_dropped(setup: Setup) -> None:
    import anyio

    setup.wire.inject(Fault.silent_stream())
    async with anyio.create_task_group() as tasks:

        async def drop() -> None:
            await setup.clock.sleep(3)
            setup.wire.drop_watches()

        tasks.start_soon(drop)
        with pytest.raises(OutcomeUnknownError, match="dropped"):
            await watch(setup, 10)
    assert setup.clock.monotonic() == pytest.approx(3)
