"""All objects of the server: read at once, written through the journal, watched through histories.

Flow: a handler reads ``latest``, computes the next state without awaiting, and calls ``write`` or ``remove``; the call
returns when the journal has committed.

Guarantees:
    - Readers and watchers see committed state only: what they saw survives a kill.
    - Revisions are given out in the order in which changes become visible, and are never reused.
    - Several writers commit together: whoever holds the lock commits for all who queued meanwhile.
    - If the journal refuses, every write that was waiting fails and nothing of it becomes visible.
"""

from collections.abc import Callable, Iterable
from typing import Any

import anyio

from agent_sandbox.local.apiserver.errors import StorageError
from agent_sandbox.local.apiserver.storage.history import Change, History
from agent_sandbox.local.apiserver.storage.journal import Journal, JournalRecord
from agent_sandbox.local.apiserver.storage.stored import Key, Stored
from agent_sandbox.shielding import unbroken

_HISTORY_CAPACITY = 4096


class _Bucket:
    """The committed objects of one kind by namespace and name, and their recent past."""

    def __init__(self, floor: int, capacity: int) -> None:
        self.objects: dict[tuple[str, str], Stored] = {}
        self.history = History(floor, capacity)
        self._order: list[tuple[str, str]] | None = []

    def put(self, stored: Stored) -> None:
        place = (stored.key.namespace, stored.key.name)
        if place not in self.objects:
            self._order = None
        self.objects[place] = stored

    def drop(self, key: Key) -> None:
        if self.objects.pop((key.namespace, key.name), None) is not None:
            self._order = None

    def ordered(self) -> list[tuple[str, str]]:
        if self._order is None:
            self._order = sorted(self.objects)
        return self._order


class ObjectStore:
    """The objects, their revisions and their recent past."""

    def __init__(self, journal: Journal, *, history_capacity: int = _HISTORY_CAPACITY) -> None:
        """
        Args:
            journal: makes writes durable.
            history_capacity: changes per kind that watches can go back; at least as many are kept, at most twice.
        """
        self._journal = journal
        self._capacity = history_capacity
        self._buckets: dict[str, _Bucket] = {}
        self._under_way: dict[Key, Change] = {}
        self._queue: list[Change] = []
        self._commit_lock = anyio.Lock()
        self._listeners: list[Callable[[Change], None]] = []
        self._next = 1
        self._floor = 1
        self.revision = 1
        """The newest revision that readers can see."""

    async def open(self) -> None:
        """Load what the journal kept; changes from before are forgotten, so older watches get 410."""
        self.revision, records = await self._journal.load()
        self._next = self._floor = self.revision
        self._buckets.clear()
        for record in records:
            if record.raw is not None:
                self._bucket(record.key.bucket).put(Stored(record.key, record.revision, record.raw))

    async def aclose(self) -> None:
        """Close the journal; the store must not be written any more."""
        await self._journal.aclose()

    def get(self, key: Key) -> Stored | None:
        """The committed object."""
        return self._bucket(key.bucket).objects.get((key.namespace, key.name))

    def latest(self, key: Key) -> Stored | None:
        """The object with the writes that are still on their way to the journal: decide on this before writing."""
        change = self._under_way.get(key)
        if change is not None:
            return None if change.deleted else change.current
        return self.get(key)

    def objects(self, bucket: str, namespace: str | None = None) -> list[Stored]:
        """The committed objects, ordered by namespace and name; all namespaces if none is given."""
        rows = self._bucket(bucket)
        if namespace is None:
            return [rows.objects[place] for place in rows.ordered()]
        return [rows.objects[place] for place in rows.ordered() if place[0] == namespace]

    def objects_at(self, bucket: str, revision: int) -> list[Stored] | None:
        """The objects as they were at a revision, ordered; None if that is forgotten."""
        history = self.history(bucket)
        cursor = history.cursor_after(revision)
        changes = history.since(cursor) if cursor is not None else None
        if changes is None:
            return None
        objects = dict(self._bucket(bucket).objects)
        for change in reversed(changes):
            place = (change.key.namespace, change.key.name)
            if change.previous is None:
                objects.pop(place, None)
            else:
                objects[place] = change.previous
        return [objects[place] for place in sorted(objects)]

    def buckets(self) -> Iterable[str]:
        """The buckets that hold or held objects."""
        return list(self._buckets)

    def history(self, bucket: str) -> History:
        """The recent past of a bucket."""
        return self._bucket(bucket).history

    async def write(self, key: Key, value: dict[str, Any]) -> Stored:
        """Commit an object's next state; the caller decided on ``latest`` without awaiting in between.

        Raises:
            StorageError: the journal refused; nothing was changed.
        """
        return await self._commit(key, value, deleted=False)

    async def remove(self, key: Key, value: dict[str, Any]) -> Stored:
        """Commit an object's end; ``value`` is its last state, as watchers shall see it.

        Raises:
            StorageError: the journal refused; nothing was changed.
        """
        return await self._commit(key, value, deleted=True)

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call a function with every change right after its commit; it must not block. Returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def wake_watchers(self) -> None:
        """Wake every watcher, so that it notices that the server stops."""
        for bucket in self._buckets.values():
            bucket.history.wake()

    async def _commit(self, key: Key, value: dict[str, Any], *, deleted: bool) -> Stored:
        previous = self.latest(key)
        self._next += 1
        change = Change(self._next, previous, Stored.encode(key, self._next, value), deleted=deleted)
        self._queue.append(change)
        self._under_way[key] = change
        # From here on it is in a batch, perhaps beside other clients' writes: one who goes away must neither tear that
        # nor leave it without somebody who commits it. HTTP servers tell of it by Task.cancel(), which passes shields.
        await unbroken(lambda: self._commit_in_turn(change))
        return change.current

    async def _commit_in_turn(self, change: Change) -> None:
        async with self._commit_lock:
            if change.revision <= self.revision:
                return
            if change not in self._queue:
                raise StorageError("a write before it failed; try again")
            await self._commit_queue()

    async def _commit_queue(self) -> None:
        batch, self._queue = self._queue, []
        records = [
            JournalRecord(change.key, change.revision, None if change.deleted else change.current.raw)
            for change in batch
        ]
        try:
            await self._journal.append(records)
        except StorageError:
            # Later writes may have been computed from these, so they fail with them.
            self._queue.clear()
            self._under_way.clear()
            raise
        self._publish(batch)

    def _publish(self, batch: list[Change]) -> None:
        touched: dict[str, History] = {}
        for change in batch:
            bucket = self._bucket(change.key.bucket)
            if change.deleted:
                bucket.drop(change.key)
            else:
                bucket.put(change.current)
            bucket.history.append(change)
            touched[change.key.bucket] = bucket.history
            if self._under_way.get(change.key) is change:
                del self._under_way[change.key]
            self.revision = change.revision
        for history in touched.values():
            history.wake()
        for change in batch:
            for listener in self._listeners:
                listener(change)

    def _bucket(self, name: str) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._floor, self._capacity)
        return bucket
