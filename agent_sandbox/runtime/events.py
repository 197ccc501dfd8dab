"""Tells users what controllers did, as Kubernetes Events, without flooding anybody.

In: ``event()``, synchronous, never fails, never waits. Out: events.k8s.io/v1 objects, written by ``run`` in the
background. What is repeated becomes a series, what is similar is combined, what is too much is dropped and counted:
the numbers are client-go's. Events are best effort: nothing may depend on them.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import anyio
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient, KubeError, MergePatch, NotFoundError, UnreachableError
from agent_sandbox.runtime.errors import LeadershipLostError
from agent_sandbox.runtime.leases import micro_time
from agent_sandbox.runtime.token_bucket import TokenBucket
from agent_sandbox_api.core import EVENTS
from agent_sandbox_api.meta import KubeModel
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import View

log = structlog.get_logger(__name__)

EventType: TypeAlias = Literal["Normal", "Warning"]

SIMILAR_LIMIT: Final = 10
"""Events that differ in their note only, within ``SIMILAR_WINDOW``, before further ones are combined into one."""
SIMILAR_WINDOW: Final = 600.0
BURST: Final = 25
"""Events that one object may have at once; then one per ``REFILL`` seconds."""
REFILL: Final = 300.0
REMEMBERED: Final = 4096
"""Objects and events remembered for these limits; the least recently used are forgotten."""
QUEUE_LIMIT: Final = 1000
"""Events waiting to be written. Beyond, the newest are dropped: an unreachable server must not fill the memory."""
COMBINED: Final = "(combined from similar events): "

A = TypeVar("A")


@dataclass(frozen=True)
class Occurrence:
    """One thing to tell. Equal occurrences are the same event, happening again."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    type: EventType
    reason: str
    action: str
    note: str

    @property
    def object(self) -> tuple[str, ...]:
        """What it is about."""
        return (self.api_version, self.kind, self.namespace, self.name, self.uid)


@dataclass
class _Series:
    """An event that was written, and how often it happened."""

    event_name: str
    count: int
    last: float


class _Recent(Generic[A]):
    """The most recently used values of up to ``REMEMBERED`` keys."""

    def __init__(self) -> None:
        self._entries: OrderedDict[object, A] = OrderedDict()

    def get_or_make(self, key: object, make: Callable[[], A]) -> A:
        """The key's value, made if it is not remembered."""
        if key not in self._entries:
            self._entries[key] = make()
            if len(self._entries) > REMEMBERED:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]

    def drop(self, key: object) -> None:
        """Forget a key."""
        self._entries.pop(key, None)


class Correlator:
    """Decides what becomes of an occurrence: itself, a combined one, or nothing. Keeps no event, only counts."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._buckets: _Recent[TokenBucket] = _Recent()
        # Per object, type, reason and action: when each distinct note was last seen.
        self._notes: _Recent[dict[str, float]] = _Recent()

    def admit(self, occurrence: Occurrence) -> Occurrence | None:
        """The occurrence to write, or None if there were too many of its object."""
        now = self._clock.monotonic()
        occurrence = self._combined(occurrence, now)
        bucket = self._buckets.get_or_make(occurrence.object, lambda: TokenBucket(burst=BURST, refill=REFILL, now=now))
        return occurrence if bucket.take(now) else None

    def _combined(self, occurrence: Occurrence, now: float) -> Occurrence:
        group = (*occurrence.object, occurrence.type, occurrence.reason, occurrence.action)
        notes = self._notes.get_or_make(group, dict)
        for note, seen in list(notes.items()):
            if now - seen > SIMILAR_WINDOW:
                del notes[note]
        if occurrence.note in notes or len(notes) < SIMILAR_LIMIT:
            notes[occurrence.note] = now
            return occurrence
        return replace(occurrence, note=COMBINED + occurrence.reason)


class EventRecorder:
    """Records events for one component.

    Guarantees:
        ``event`` returns at once and never raises for what the server does. At most ``QUEUE_LIMIT`` events wait.
    Caveats:
        Events may be dropped, combined and late. ``dropped`` counts those that were never tried.
    """

    def __init__(
        self, client: KubeClient, *, component: str, instance: str, clock: Clock, random: random.Random
    ) -> None:
        self.dropped = 0
        self._client = client
        self._component = component
        self._instance = instance
        self._clock = clock
        self._random = random
        self._correlator = Correlator(clock=clock)
        self._pending: deque[tuple[Occurrence, datetime]] = deque()
        self._arrived = anyio.Event()
        self._flushed = anyio.Event()
        self._series: _Recent[_Series] = _Recent()

    def event(
        self,
        regarding: View | KubeModel,
        *,
        type: EventType,
        reason: str,
        action: str,
        note: str,
        resource: Resource[Any],
    ) -> None:
        """Tell that something happened to an object.

        Args:
            regarding: the object, as a view or a model.
            type: ``Warning`` for what needs somebody's attention.
            reason: one CamelCase word for programs.
            action: what was done or tried, one CamelCase word.
            note: a sentence for people; cut at 1024 bytes, the server's limit.
            resource: the object's kind.
        """
        metadata = regarding.metadata
        occurrence = Occurrence(
            resource.api_version,
            resource.kind,
            metadata.namespace or "",
            metadata.name or "",
            metadata.uid or "",
            type,
            reason,
            action,
            note.encode()[:1024].decode(errors="ignore"),
        )
        admitted = self._correlator.admit(occurrence)
        if admitted is None or len(self._pending) >= QUEUE_LIMIT:
            self.dropped += 1
            return
        self._pending.append((admitted, self._clock.now()))
        self._arrived.set()

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            while self._pending:
                occurrence, moment = self._pending[0]
                await self._write(occurrence, moment)
                self._pending.popleft()
            self._flushed.set()
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def flush(self) -> None:
        """Wait until everything recorded so far is written or given up; ``run`` must be running."""
        if self._pending:
            self._flushed = anyio.Event()
            await self._flushed.wait()

    async def _write(self, occurrence: Occurrence, moment: datetime) -> None:
        try:
            try:
                await self._write_once(occurrence, moment)
            except UnreachableError:
                await self._clock.sleep(1.0)  # one more try: the most common cause is a restarting server
                await self._write_once(occurrence, moment)
        except (KubeError, LeadershipLostError) as error:
            self.dropped += 1
            log.warning("an event was not written", reason=occurrence.reason, note=occurrence.note, error=str(error))

    async def _write_once(self, occurrence: Occurrence, moment: datetime) -> None:
        now = self._clock.monotonic()
        series = self._series.get_or_make(occurrence, lambda: _Series("", 0, now))
        fresh = series.count == 0 or now - series.last > SIMILAR_WINDOW
        if not fresh:
            series.count += 1
            series.last = now
            try:
                await self._continue(occurrence, series, moment)
            except NotFoundError:
                fresh = True  # it has expired on the server
            else:
                return
        self._series.drop(occurrence)
        name = await self._begin(occurrence, moment)
        self._series.get_or_make(occurrence, lambda: _Series(name, 1, now))

    async def _begin(self, occurrence: Occurrence, moment: datetime) -> str:
        # Cut so that the whole stays within the 253 characters of a name.
        name = f"{occurrence.name[:230].rstrip('.-')}.{self._random.getrandbits(64):016x}"
        namespace = occurrence.namespace or "default"  # as client-go, for events about cluster-wide objects
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro_time(moment),
            "reportingController": self._component,
            "reportingInstance": self._instance[:128],
            "type": occurrence.type,
            "reason": occurrence.reason,
            "action": occurrence.action,
            "note": occurrence.note,
            "regarding": {
                "apiVersion": occurrence.api_version,
                "kind": occurrence.kind,
                "name": occurrence.name,
                "namespace": occurrence.namespace,
                "uid": occurrence.uid,
            },
        }
        await self._client.create(EVENTS, body)
        return name

    async def _continue(self, occurrence: Occurrence, series: _Series, moment: datetime) -> None:
        patch = MergePatch({"series": {"count": series.count, "lastObservedTime": micro_time(moment)}})
        await self._client.patch(EVENTS, series.event_name, patch, occurrence.namespace or "default")
