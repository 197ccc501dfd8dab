"""Times of a lifetime are the API server's, whatever this machine's clock says."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

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
        self._header = header

    async def request(self, method: str, path: str, **options: Any) -> RawResponse:
        """Answer with the server's time."""
        self.requests += 1
        if self._header is None:
            raise UnreachableError("away")
        time = (self._clock.now() + self._offset).astimezone(UTC).replace(microsecond=0)
        headers: Mapping[str, str] = {self._header: format_datetime(time, usegmt=True)}
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
