"""Measures how late the event loop is: the one number that shows a blocking call somewhere."""

from typing import Final

from agent_sandbox.clock import Clock
from agent_sandbox.runtime.metrics import Metrics

PERIOD: Final = 1.0
"""Seconds between two looks: often enough to catch a stall of a second, too seldom to cost anything."""


class LoopLag:
    """Sleeps, and reports by how much it overslept."""

    def __init__(self, metrics: Metrics, *, clock: Clock) -> None:
        self._gauge = metrics.loop_lag
        self._clock = clock

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(PERIOD)
            self._gauge.set(max(0.0, self._clock.monotonic() - before - PERIOD))
