"""Virtual time is exact, costs nothing, covers anyio as well, and waits for what is real."""

import socket
import threading
import time

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.testing import VirtualClock, run_in_virtual_time
from agent_sandbox.testing.clock import EPOCH, StuckError


@pytest.mark.virtual_time
async def test_hours_pass_in_no_time_and_exactly(virtual_clock: VirtualClock) -> None:
    began = time.perf_counter()
    await virtual_clock.sleep(3600)
    await anyio.sleep(0.25)

    assert virtual_clock.monotonic() == pytest.approx(3600.25)
    assert (virtual_clock.now() - EPOCH).total_seconds() == pytest.approx(3600.25)
    assert time.perf_counter() - began < 60


@pytest.mark.virtual_time
async def test_timeouts_fire_in_virtual_time_and_in_order(virtual_clock: VirtualClock) -> None:
    fired: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await anyio.sleep_forever()
        fired.append((name, round(virtual_clock.monotonic(), 6)))

    async with anyio.create_task_group() as tasks:
        for name, seconds in (("late", 100.0), ("early", 0.5), ("middle", 7.25)):
            tasks.start_soon(wait, name, seconds)

    assert fired == [("early", 0.5), ("middle", 7.25), ("late", 100.0)]


@pytest.mark.virtual_time
async def test_time_stands_still_while_a_thread_works(virtual_clock: VirtualClock) -> None:
    release = threading.Event()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await virtual_clock.sleep(1000)
            ticks.append(virtual_clock.monotonic())

    def work() -> str:
        assert release.wait(10)
        return "done"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        threading.Timer(0.05, release.set).start()
        assert await anyio.to_thread.run_sync(work) == "done"
        assert ticks == []
        tasks.cancel_scope.cancel()


@pytest.mark.virtual_time
async def test_sockets_are_read_before_time_jumps(virtual_clock: VirtualClock) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        theirs.send(b"x")
        with anyio.move_on_after(5):
            await anyio.wait_readable(ours)
    assert virtual_clock.monotonic() == 0


def test_a_deadlock_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_sandbox.testing.clock.STUCK_AFTER", 0.05)
    with pytest.raises(StuckError, match="every task waits"):
        run_in_virtual_time(anyio.Event().wait)


def test_a_wait_without_end_is_found() -> None:
    async def wait() -> None:
        while True:  # noqa: ASYNC110 - for ever is what is tested
            await anyio.sleep(1000)

    with pytest.raises(StuckError, match="a month"):
        run_in_virtual_time(wait)


async def test_without_the_marker_time_is_real(virtual_clock: VirtualClock) -> None:
    assert virtual_clock.monotonic() > 1, "an ordinary loop's time, hours or days since the machine started"
