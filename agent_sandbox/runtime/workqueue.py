"""A queue of keys, not of events: a key waits at most once, is never in two hands, and is not lost while in one.

In: ``add`` from informers and workers, at once or after a delay. Out: ``get`` for workers, who answer with ``done``. It
knows nothing of controllers; the next step is ``controller.py``.
"""

import heapq
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel

from agent_sandbox.clock import Clock
from agent_sandbox.runtime.backoff import ItemBackoff
from agent_sandbox.runtime.errors import QueueClosed

K = TypeVar("K", bound=Hashable)

LOW_PRIORITY: Final = -100
"""For what nobody waits for: the initial list and resyncs. As controller-runtime."""

AGEING: Final = 0.3
"""Seconds of waiting that are worth one point of priority: a LOW_PRIORITY key overtakes fresh ones after 30 s.

Without ageing, keys at -100 were seen to starve for half an hour on a busy queue (controller-runtime issue 2374).
"""


class QueueObserver(Protocol):
    """Told of every step of every key, for metrics. Priorities are those given to ``add``."""

    def added(self, priority: int) -> None:
        """A key became ready to be taken."""

    def promoted(self, old: int, new: int) -> None:
        """A ready key got a higher priority."""

    def retried(self) -> None:
        """A key was added with a delay."""

    def taken(self, priority: int, waited: float) -> None:
        """A worker took a key that was ready for that many seconds."""

    def dropped(self, priority: int) -> None:
        """A ready key was thrown away because the queue was shut down."""

    def finished(self, worked: float) -> None:
        """A worker is done with a key after that many seconds."""


@dataclass(slots=True)
class _Entry(Generic[K]):
    """A key that waits. Mutable, and replaced rather than moved inside a heap: a heap skips entries that are not
    the current one of their key."""

    key: K
    priority: int
    due: float  # monotonic; when it became or becomes ready
    delayed: bool  # True: in _delayed. False: in _ready, or held back because its key is in a worker's hands


@dataclass(slots=True)
class _Holding:
    """A key in a worker's hands."""

    priority: int
    since: float


class _Sleeper:
    """A worker inside ``get``. It keeps its place in the line, also when it wakes and finds nothing."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken = anyio.Event()


class WorkQueue(Generic[K]):
    """Hands keys to workers.

    Flow:
        ``add`` → (delay) → ready → ``get`` → a worker's hands → ``done`` → gone, or ready again if added meanwhile.
    Guarantees:
        * A key is in at most one worker's hands. Added while there, it is handed out once more after ``done``.
        * A key waits once: adding it again keeps the earlier time and the higher priority.
        * Higher priorities go first, but each ``ageing`` seconds of waiting are worth one point, so nothing starves.
        * A cancelled ``get`` takes nothing.
    Assumptions:
        Every ``get`` is followed by ``done`` for the same key, whatever happened. One event loop; not thread-safe.
    Caveats:
        Order between keys of equal rank is that of their becoming ready, not of their being added.
    Errors:
        ``get`` raises ``QueueClosed`` after ``shut_down``. ``done`` raises ``ValueError`` for a key not handed out.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        backoff: ItemBackoff[K] | None = None,
        observer: QueueObserver | None = None,
        ageing: float = AGEING,
    ) -> None:
        self._clock = clock
        self._backoff: ItemBackoff[K] = backoff or ItemBackoff()
        self._observer = observer
        self._ageing = ageing
        # The one entry of each key that waits; canonical. Heaps may hold entries that are no longer here: stale,
        # skipped.
        self._waiting: dict[K, _Entry[K]] = {}
        # (due - priority*ageing, sequence, entry): static ranks give linear ageing without ever sorting again. No
        # current entry in here has its key in _held.
        self._ready: list[tuple[float, int, _Entry[K]]] = []
        # (due, sequence, entry) of keys that are to become ready later.
        self._delayed: list[tuple[float, int, _Entry[K]]] = []
        # Keys in workers' hands, each exactly once.
        self._held: dict[K, _Holding] = {}
        # Workers asleep in get(), in order of arrival. Only the first one minds the clock for _delayed.
        self._sleepers: deque[_Sleeper] = deque()
        self._sequence = 0
        self._ready_count = 0  # entries of _waiting that are neither delayed nor held back
        self._closed = False  # once True no key enters any more; never False again
        # Set when the last key is given back; exists only while somebody waits for that.
        self._idle: anyio.Event | None = None
        # Set when the last ready key is taken; exists only while somebody waits for that.
        self._none_ready: anyio.Event | None = None

    # Adding

    def add(self, key: K, *, priority: int = 0, after: float = 0.0) -> None:
        """Let the key be handed out, at once or after that many seconds. Ignored once the queue is shut down."""
        if self._closed:
            return
        delayed = after > 0
        if delayed and self._observer:
            self._observer.retried()
        due = self._clock.monotonic() + max(0.0, after)
        known = self._waiting.get(key)
        if known is None:
            self._enter(_Entry(key, priority, due, delayed))
        elif known.delayed or priority > known.priority:
            self._merge(known, priority, due, delayed)
        self._wake_first()

    def add_rate_limited(self, key: K, *, priority: int = 0) -> float:
        """Add the key after its next backoff pause, because it failed; returns the pause in seconds."""
        pause = self._backoff.next_pause(key)
        self.add(key, priority=priority, after=pause)
        return pause

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure waits the shortest pause again."""
        self._backoff.forget(key)

    def failures(self, key: K) -> int:
        """How often the key failed since it was last forgotten."""
        return self._backoff.failures(key)

    def _merge(self, known: _Entry[K], priority: int, due: float, delayed: bool) -> None:
        """Replace a key's entry by one with the earlier time and the higher priority."""
        priority = max(priority, known.priority)
        if not known.delayed:  # ready or held back: only the priority rises
            if known.key not in self._held:
                self._ready_count -= 1
                if self._observer:
                    self._observer.promoted(known.priority, priority)
            self._enter(_Entry(known.key, priority, known.due, delayed=False), announce=False)
        elif delayed and known.due <= due:
            known.priority = priority
        else:
            self._enter(_Entry(known.key, priority, due, delayed))

    def _enter(self, entry: _Entry[K], *, announce: bool = True) -> None:
        """Make this the key's current entry and put it where it belongs."""
        self._waiting[entry.key] = entry
        if entry.delayed:
            heapq.heappush(self._delayed, (entry.due, self._next_sequence(), entry))
            self._drop_stale_delays()
            return
        if entry.key not in self._held:
            self._ready_count += 1
            rank = entry.due - entry.priority * self._ageing
            heapq.heappush(self._ready, (rank, self._next_sequence(), entry))
            if announce and self._observer:
                self._observer.added(entry.priority)

    # Taking

    async def get(self) -> K:
        """Wait for a key and take it. ``done`` must follow.

        Raises:
            QueueClosed: the queue was shut down, and drained if that was asked for.
        """
        await anyio.lowlevel.checkpoint()
        sleeper = _Sleeper()
        self._sleepers.append(sleeper)
        try:
            while (key := self.get_nowait()) is None:
                if self._closed:
                    raise QueueClosed
                await self._sleep(sleeper)
            return key
        finally:
            # However this ends, somebody else must mind the clock now and take what this worker was woken for.
            self._sleepers.remove(sleeper)
            self._wake_first()

    def get_nowait(self) -> K | None:
        """Take a key that is ready, or None. ``done`` must follow a key."""
        self._promote_due()
        return self._take() if self._ready_count else None

    def _take(self) -> K:
        while True:
            _, _, entry = heapq.heappop(self._ready)
            if self._waiting.get(entry.key) is entry:
                break
        assert entry.key not in self._held, f"{entry.key} would be in two workers at once"
        del self._waiting[entry.key]
        self._ready_count -= 1
        now = self._clock.monotonic()
        self._held[entry.key] = _Holding(entry.priority, now)
        self._note_none_ready()
        if self._observer:
            self._observer.taken(entry.priority, now - entry.due)
        return entry.key

    async def _sleep(self, sleeper: "_Sleeper") -> None:
        """Wait to be woken or, as the first sleeper, for the next delayed key."""
        sleeper.woken = anyio.Event()
        if self._sleepers[0] is sleeper and (due := self._next_due()) is not None:
            with anyio.move_on_after(max(0.0, due - self._clock.monotonic())):
                await sleeper.woken.wait()
        else:
            await sleeper.woken.wait()

    def done(self, key: K) -> None:
        """Give a key back; if it was added meanwhile it becomes ready now.

        Raises:
            ValueError: the key was not handed out.
        """
        held = self._held.pop(key, None)
        if held is None:
            raise ValueError(f"done({key!r}) for a key that no worker holds")
        now = self._clock.monotonic()
        if self._observer:
            self._observer.finished(now - held.since)
        again = self._waiting.get(key)
        if again is not None and not again.delayed:
            again.due = max(again.due, now)
            self._enter(again)
            self._wake_first()
        if not self._held and self._idle is not None:
            self._idle.set()

    def priority_of(self, key: K) -> int:
        """The priority with which a key in a worker's hands was handed out; a requeue keeps it."""
        return self._held[key].priority

    # Ending

    def shut_down(self, *, drain: bool = False) -> None:
        """Take no more keys. Delayed ones are forgotten; ready ones too, unless ``drain`` lets workers finish them."""
        self._closed = True
        for key, entry in list(self._waiting.items()):
            if entry.delayed or not drain:
                del self._waiting[key]
                if not entry.delayed and key not in self._held:
                    self._ready_count -= 1
                    if self._observer:
                        self._observer.dropped(entry.priority)
        self._note_none_ready()
        for sleeper in self._sleepers:
            sleeper.woken.set()

    async def wait_until_idle(self) -> None:
        """Wait until no worker holds a key."""
        while self._held:
            if self._idle is None or self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    async def wait_until_none_ready(self) -> None:
        """Wait until every key that could be taken has been."""
        while len(self):
            if self._none_ready is None or self._none_ready.is_set():
                self._none_ready = anyio.Event()
            await self._none_ready.wait()

    def _note_none_ready(self) -> None:
        if not self._ready_count and self._none_ready is not None:
            self._none_ready.set()

    # Looking

    def __len__(self) -> int:
        """How many keys could be taken now."""
        self._promote_due()
        return self._ready_count

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return sum(entry.delayed for entry in self._waiting.values())

    @property
    def in_work(self) -> frozenset[K]:
        """The keys in workers' hands."""
        return frozenset(self._held)

    def unfinished_seconds(self) -> float:
        """Sum over the keys in workers' hands of the time since they were taken."""
        now = self._clock.monotonic()
        return sum(now - held.since for held in self._held.values())

    def longest_running_seconds(self) -> float:
        """The longest time that a key has been in a worker's hands."""
        now = self._clock.monotonic()
        return max((now - held.since for held in self._held.values()), default=0.0)

    # Time and sleepers

    def _promote_due(self) -> None:
        """Make ready what was delayed until now."""
        while self._delayed and self._delayed[0][0] <= self._clock.monotonic():
            _, _, entry = heapq.heappop(self._delayed)
            if self._waiting.get(entry.key) is entry:
                entry.delayed = False
                self._enter(entry)

    def _next_due(self) -> float | None:
        while self._delayed and self._waiting.get(self._delayed[0][2].key) is not self._delayed[0][2]:
            heapq.heappop(self._delayed)
        return self._delayed[0][0] if self._delayed else None

    def _drop_stale_delays(self) -> None:
        """Keep the heap in proportion to what really waits: keys requeued hourly and woken each second leave one stale
        entry each time."""
        if len(self._delayed) > 64 + 2 * len(self._waiting):
            self._delayed = [item for item in self._delayed if self._waiting.get(item[2].key) is item[2]]
            heapq.heapify(self._delayed)

    def _wake_first(self) -> None:
        if self._sleepers and (self._ready_count or self._delayed):
            self._sleepers[0].woken.set()

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence
