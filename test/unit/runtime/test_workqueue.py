"""The queue's contract: one hand per key, nothing lost, earliest time, priorities that age, a clean end."""

import anyio
import pytest

from agent_sandbox.runtime import LOW_PRIORITY, QueueClosed, WorkQueue
from agent_sandbox.testing import VirtualClock

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def queue(virtual_clock: VirtualClock) -> WorkQueue[str]:
    return WorkQueue(clock=virtual_clock)


async def test_a_key_added_many_times_is_handed_out_once(queue: WorkQueue[str]) -> None:
    for _ in range(5):
        queue.add("a")

    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_added_while_in_a_workers_hands_is_handed_out_once_more_after_done(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "it is in somebody's hands"

    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_keys_of_one_priority_come_in_the_order_of_their_adding(queue: WorkQueue[str]) -> None:
    for key in "cab":
        queue.add(key)

    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]


async def test_a_delayed_key_comes_exactly_at_its_time(queue: WorkQueue[str], virtual_clock: VirtualClock) -> None:
    queue.add("late", after=5)
    queue.add("soon", after=2)

    assert await queue.get() == "soon"
    assert virtual_clock.monotonic() == pytest.approx(2)
    assert await queue.get() == "late"
    assert virtual_clock.monotonic() == pytest.approx(5)


async def test_a_sleeping_worker_wakes_for_a_key_that_becomes_due_before_the_one_it_waits_for(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    queue.add("late", after=100)
    taken: list[tuple[str, float]] = []

    async def worker() -> None:
        taken.append((await queue.get(), virtual_clock.monotonic()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker)
        await virtual_clock.sleep(1)
        queue.add("early", after=2)

    assert [key for key, _ in taken] == ["early"]
    assert [moment for _, moment in taken] == pytest.approx([3])


async def test_delayed_adds_keep_the_earliest_time(queue: WorkQueue[str], virtual_clock: VirtualClock) -> None:
    queue.add("a", after=10)
    queue.add("a", after=3)
    queue.add("a", after=7)

    await queue.get()
    assert virtual_clock.monotonic() == pytest.approx(3)
    queue.done("a")
    assert (len(queue), queue.delayed) == (0, 0)


async def test_an_immediate_add_overtakes_the_delayed_one(queue: WorkQueue[str]) -> None:
    queue.add("a", after=10)
    queue.add("a")

    assert queue.get_nowait() == "a"
    queue.done("a")
    assert queue.delayed == 0


async def test_a_key_delayed_while_in_hands_waits_for_its_time_after_done(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a", after=4)
    queue.done("a")
    assert queue.get_nowait() is None

    assert await queue.get() == "a"
    assert virtual_clock.monotonic() == pytest.approx(4)


async def test_a_key_that_becomes_due_while_in_hands_is_held_back_until_done(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a", after=1)
    await virtual_clock.sleep(5)
    assert queue.get_nowait() is None

    queue.done("a")
    assert queue.get_nowait() == "a"


async def test_higher_priorities_go_first(queue: WorkQueue[str]) -> None:
    queue.add("initial", priority=LOW_PRIORITY)
    queue.add("event")

    assert await queue.get() == "event"


async def test_adding_again_with_a_higher_priority_raises_it(queue: WorkQueue[str]) -> None:
    queue.add("a", priority=LOW_PRIORITY)
    queue.add("b", priority=-10)
    queue.add("a", priority=0)

    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert queue.get_nowait() is None, "the entry of lower priority is stale, not a second key"


async def test_a_low_priority_key_does_not_starve_on_a_busy_queue(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    """controller-runtime 2374: keys at -100 were not taken for half an hour while events kept coming."""
    queue.add("initial", priority=LOW_PRIORITY)
    waited = 0
    for number in range(5):
        queue.add(f"backlog {number}")
    for number in range(1000):
        queue.add(f"event {number}")
        key = await queue.get()
        queue.done(key)
        if key == "initial":
            break
        await virtual_clock.sleep(0.1)
        waited += 1

    assert 290 <= waited <= 310, "100 points of priority are worth 30 seconds"


async def test_the_priority_in_hands_can_be_kept_over_a_requeue(queue: WorkQueue[str]) -> None:
    """controller-runtime 3157: a requeued key must keep its priority."""
    queue.add("a", priority=7)
    await queue.get()

    assert queue.priority_of("a") == 7


async def test_failures_back_off_from_5_milliseconds_to_1000_seconds_and_forget_starts_again(
    queue: WorkQueue[str],
) -> None:
    pauses = [queue.add_rate_limited("a") for _ in range(20)]
    assert pauses[:4] == [0.005, 0.01, 0.02, 0.04]
    assert pauses[-1] == 1000
    assert queue.failures("a") == 20

    queue.forget("a")
    assert queue.add_rate_limited("a") == 0.005


async def test_a_cancelled_get_takes_nothing(queue: WorkQueue[str]) -> None:
    with anyio.move_on_after(1):
        await queue.get()
    queue.add("a")

    assert queue.get_nowait() == "a"


async def test_a_worker_that_is_woken_and_cancelled_at_once_loses_no_key(queue: WorkQueue[str]) -> None:
    taken: list[str] = []

    async def worker(scope: anyio.CancelScope) -> None:
        with scope:
            taken.append(await queue.get())

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(3)]
        for scope in scopes:
            tasks.start_soon(worker, scope)
        await anyio.sleep(1)
        queue.add("a")  # wakes the first worker, and in the same breath ...
        scopes[0].cancel()  # ... it goes away
        await anyio.sleep(1)
        assert taken == ["a"]
        tasks.cancel_scope.cancel()


async def test_keys_added_in_one_breath_wake_one_worker_each(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    taken: list[tuple[str, float]] = []

    async def worker() -> None:
        taken.append((await queue.get(), virtual_clock.monotonic()))

    with anyio.move_on_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(worker)
            await anyio.sleep(1)
            for key in "abc":
                queue.add(key)

    assert taken == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


async def test_when_the_worker_that_minds_the_clock_goes_away_another_one_minds_it(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    taken: list[float] = []

    async def worker(scope: anyio.CancelScope) -> None:
        with scope:
            await queue.get()
            taken.append(virtual_clock.monotonic())

    with anyio.move_on_after(60):
        async with anyio.create_task_group() as tasks:
            scopes = [anyio.CancelScope(), anyio.CancelScope()]
            for scope in scopes:
                tasks.start_soon(worker, scope)
            await anyio.sleep(1)
            queue.add("a", after=5)
            await anyio.sleep(1)
            scopes[0].cancel()

    assert taken == pytest.approx([6])


async def test_idle_workers_do_not_wake_each_other_for_ever(queue: WorkQueue[str], virtual_clock: VirtualClock) -> None:
    """Regression: a worker that woke in vain went to the end of the line and woke the next: a busy loop."""
    started = virtual_clock.monotonic()
    with anyio.move_on_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(queue.get)
            await anyio.sleep(1)
            queue.add("late", after=1000)

    # In a busy loop virtual time would stand still, and the test would never get here.
    assert virtual_clock.monotonic() - started == pytest.approx(5)


async def test_many_workers_share_many_keys_and_no_key_is_in_two_hands(
    queue: WorkQueue[str], virtual_clock: VirtualClock
) -> None:
    in_hands: set[str] = set()
    worked: list[str] = []

    async def worker() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueClosed:
                return
            assert key not in in_hands
            in_hands.add(key)
            await virtual_clock.sleep(0.3)
            in_hands.remove(key)
            worked.append(key)
            queue.done(key)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(worker)
        for round_ in range(20):
            for number in range(30):
                queue.add(f"{number}", after=(number % 3) * 0.1)
            await virtual_clock.sleep(0.05 * round_)
        await virtual_clock.sleep(60)
        queue.shut_down()

    assert set(worked) == {str(number) for number in range(30)}
    assert not queue.in_work


async def test_shut_down_ends_waiting_workers_and_forgets_what_waits(queue: WorkQueue[str]) -> None:
    queue.add("ready")
    queue.add("later", after=5)
    queue.shut_down()

    with pytest.raises(QueueClosed):
        await queue.get()
    queue.add("too late")
    assert (len(queue), queue.delayed) == (0, 0)


async def test_a_draining_shut_down_hands_out_what_is_ready_and_then_ends(queue: WorkQueue[str]) -> None:
    queue.add("ready")
    queue.add("later", after=5)
    queue.shut_down(drain=True)

    assert await queue.get() == "ready"
    with pytest.raises(QueueClosed):
        await queue.get()


async def test_wait_until_idle_waits_for_the_last_hand(queue: WorkQueue[str], virtual_clock: VirtualClock) -> None:
    for key in "ab":
        queue.add(key)
        await queue.get()

    async def finish(key: str, after: float) -> None:
        await virtual_clock.sleep(after)
        queue.done(key)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish, "a", 1)
        tasks.start_soon(finish, "b", 3)
        await queue.wait_until_idle()
        assert virtual_clock.monotonic() == pytest.approx(3)


async def test_keys_requeued_far_ahead_and_woken_often_leave_no_garbage(queue: WorkQueue[str]) -> None:
    for _ in range(1000):
        queue.add("a", after=3600)
        queue.add("a")
        queue.done(await queue.get())

    assert len(queue._delayed) < 100


async def test_done_for_a_key_that_nobody_holds_is_a_bug_and_says_so(queue: WorkQueue[str]) -> None:
    with pytest.raises(ValueError, match="no worker holds"):
        queue.done("a")


async def test_the_ages_of_keys_in_hands_are_visible(queue: WorkQueue[str], virtual_clock: VirtualClock) -> None:
    queue.add("a")
    await queue.get()
    await virtual_clock.sleep(2)
    queue.add("b")
    await queue.get()
    await virtual_clock.sleep(1)

    assert queue.longest_running_seconds() == pytest.approx(3)
    assert queue.unfinished_seconds() == pytest.approx(4)
