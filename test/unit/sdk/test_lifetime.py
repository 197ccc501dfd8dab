"""Times of a lifetime are the API server's, whatever this machine's clock says."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agent_sandbox.kube import KubeClient, RawResponse, UnreachableError
from agent_sandbox.sdk.lifetime import ServerClock
from agent_sandbox.testing import VirtualClock

pytestmark = pytest.mark.virtual_time


class Server:
    """A transport to a server whose clock is off by so much from ours."""

    host = "server"

    def __init__(self, clock: VirtualClock, offset: timedelta, header: str | None = "Date") -> None:
        self.requests = 0
        self._clock = clock
        self._offset = offset
        self.header = header

    async def request(self, method: str, path: str, **options: Any) -> RawResponse:
        """Answer with the server's time."""
        self.requests += 1
        await anyio.lowlevel.checkpoint()
        if self.header is None:
            raise UnreachableError("away")
        time = (self._clock.now() + self._offset).astimezone(UTC).replace(microsecond=0)
        headers: Mapping[str, str] = {self.header: format_datetime(time, usegmt=True)}
        return RawResponse(200, headers, b"{}")


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_clock_that_is_hours_off_is_corrected(virtual_clock: VirtualClock, hours: int) -> None:
    server = Server(virtual_clock, timedelta(hours=hours), "date")
    now = await ServerClock(KubeClient(server), virtual_clock).now()  # type: ignore[arg-type]

    assert abs(now - virtual_clock.now() - timedelta(hours=hours)) < timedelta(seconds=2)


@pytest.mark.parametrize("header", ["Date", "X-Other", None])
async def test_without_a_difference_or_an_answer_our_own_clock_counts(
    virtual_clock: VirtualClock, header: str | None
) -> None:
    server = Server(virtual_clock, timedelta(seconds=1), header)

    now: datetime = await ServerClock(KubeClient(server), virtual_clock).now()  # type: ignore[arg-type]

    assert now == virtual_clock.now()


async def test_the_server_is_asked_again_only_after_a_while(virtual_clock: VirtualClock) -> None:
    server = Server(virtual_clock, timedelta(hours=1))
    clock = ServerClock(KubeClient(server), virtual_clock)  # type: ignore[arg-type]
    for _ in range(5):
        await clock.now()
    assert server.requests == 1

    await virtual_clock.sleep(601)
    await clock.now()
    assert server.requests == 2


async def test_who_asks_while_the_time_is_being_measured_waits_for_it(virtual_clock: VirtualClock) -> None:
    """Of many sandboxes that are made at once, all but the first got ends by this machine's clock."""
    server = Server(virtual_clock, timedelta(hours=1))
    clock = ServerClock(KubeClient(server), virtual_clock)  # type: ignore[arg-type]
    times: list[datetime] = []

    async def ask() -> None:
        times.append(await clock.now())

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)

    assert server.requests == 1
    assert [time - virtual_clock.now() > timedelta(minutes=59) for time in times] == [True] * 3


async def test_a_server_that_was_away_is_asked_again(virtual_clock: VirtualClock) -> None:
    server = Server(virtual_clock, timedelta(hours=1), None)
    clock = ServerClock(KubeClient(server), virtual_clock)  # type: ignore[arg-type]
    assert await clock.now() == virtual_clock.now()
    server.header = "Date"

    assert await clock.now() - virtual_clock.now() > timedelta(minutes=59)
