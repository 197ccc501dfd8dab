"""The queue against a model so simple that it is obviously right, under every order of calls that hypothesis finds."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_sandbox.runtime import WorkQueue

AGEING = 0.5


class HandClock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Waiting:
    """A key that waits: ready from ``due`` on."""

    due: float
    priority: int

    @property
    def rank(self) -> float:
        return self.due - self.priority * AGEING


keys = st.sampled_from("abcde")
priorities = st.sampled_from([-100, -1, 0, 1, 50])
delays = st.sampled_from([0.0, 0.0, 1.0, 2.5, 60.0])


class QueueMachine(RuleBasedStateMachine):
    """Plays with a queue and remembers what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock, ageing=AGEING)
        self.waiting: dict[str, Waiting] = {}
        self.held: set[str] = set()
        self.adds_since_taken: dict[str, int] = {}

    def ready(self) -> dict[str, Waiting]:
        return {
            key: entry
            for key, entry in self.waiting.items()
            if entry.due <= self.clock.seconds and key not in self.held
        }

    @rule(key=keys, priority=priorities, after=delays)
    def add(self, key: str, priority: int, after: float) -> None:
        # The queue looks at the clock when it is called, so what is due by now counts as ready.
        len(self.queue)
        self.queue.add(key, priority=priority, after=after)
        now = self.clock.seconds
        known = self.waiting.get(key)
        if known is None:
            self.waiting[key] = Waiting(now + after, priority)
            return
        known.priority = max(known.priority, priority)
        if known.due > now:
            known.due = min(known.due, now + after)

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule()
    def take(self) -> None:
        ready = self.ready()
        key = self.queue.get_nowait()
        if key is None:
            assert not ready, f"{sorted(ready)} could have been taken"
            return
        assert key in ready, f"{key} was not ready"
        assert ready[key].rank == pytest.approx(min(entry.rank for entry in ready.values()))
        assert self.queue.priority_of(key) == ready[key].priority
        del self.waiting[key]
        self.held.add(key)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        len(self.queue)
        self.queue.done(key)
        self.held.remove(key)
        again = self.waiting.get(key)
        if again is not None and again.due <= self.clock.seconds:
            again.due = self.clock.seconds

    @invariant()
    def the_sizes_agree(self) -> None:
        assert len(self.queue) == len(self.ready())
        assert self.queue.in_work == self.held
        assert self.queue.delayed == sum(entry.due > self.clock.seconds for entry in self.waiting.values())


TestQueueAgainstItsModel = QueueMachine.TestCase
TestQueueAgainstItsModel.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    # Phase.explain traces every line before Python 3.12, which is forty times slower.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
