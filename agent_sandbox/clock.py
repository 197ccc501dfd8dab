"""Time, as a parameter: everybody who reads a clock or waits gets one handed in.

``SystemClock`` is the real one and the only place in the house that really sleeps. ``agent_sandbox.testing`` has one
whose time moves when every task waits.
"""

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The wall clock, with zone UTC: for what people and other machines read."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for durations and deadlines. Same pace as ``anyio.current_time()``."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long; zero or less only lets other tasks run."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The machine's wall clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The machine's monotonic clock, which asyncio and uvloop schedule by as well."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Really sleep."""
        await anyio.sleep(max(0.0, seconds))
