"""When a sandbox ends by itself: times are reckoned by the API server's clock, not by this machine's.

In: seconds from now. Out: the moment to write into a claim. A client whose clock is wrong by an hour would otherwise
make sandboxes that are expired at birth, or that outlive it by an hour.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import anyio

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube import KubeClient, KubeError, TransportError

_REMEASURE_SECONDS: Final = 600.0


class ServerClock:
    """The API server's time, as its ``Date`` headers tell it, to the second."""

    def __init__(self, kube: KubeClient, clock: Clock | None = None) -> None:
        self._kube = kube
        self._clock = clock or SystemClock()
        self._offset = timedelta()
        self._measured_at: float | None = None
        self._measuring = anyio.Lock()

    async def now(self) -> datetime:
        """The server's time; this machine's if the server does not tell."""
        async with self._measuring:  # who asks meanwhile waits too: the offset is not known yet
            if self._measured_at is None or self._clock.monotonic() - self._measured_at > _REMEASURE_SECONDS:
                await self._measure()
        return self._clock.now() + self._offset

    def estimate(self) -> datetime:
        """The server's time as far as it is known without asking."""
        return self._clock.now() + self._offset

    async def _measure(self) -> None:
        try:
            answer = await self._kube.request("GET", "/version")
            text = next((value for key, value in answer.headers.items() if key.lower() == "date"), "")
            server = parsedate_to_datetime(text).astimezone(UTC)
        except TransportError:
            return  # it is away: who asks next may find it
        except (KubeError, ValueError):
            self._measured_at = self._clock.monotonic()
            return
        self._measured_at = self._clock.monotonic()
        offset = server - self._clock.now()
        # The header is cut to the second and has travelled: less than two seconds is no difference.
        self._offset = offset if abs(offset) > timedelta(seconds=2) else timedelta()
