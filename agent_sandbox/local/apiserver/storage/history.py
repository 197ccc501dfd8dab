"""The recent past of one bucket: what changed, in order, for watches and for lists at an older revision.

Changes flow in at their commit; watchers read by cursor, so a slow one costs no memory and learns that it fell behind.
"""

from dataclasses import dataclass

import anyio

from agent_sandbox.local.apiserver.storage.stored import Key, Stored


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write.

    Attributes:
        revision: the store's revision that this write made.
        previous: the object before; None if it was created.
        current: the object after; for a delete, its last state stamped with this revision.
        deleted: True if the object is gone.
    """

    revision: int
    previous: Stored | None
    current: Stored
    deleted: bool

    @property
    def key(self) -> Key:
        """The object's place."""
        return self.current.key


class History:
    """The last changes of one bucket.

    Invariants: ``changes`` is ordered by revision; every change with a revision above ``floor`` is still here.
    """

    def __init__(self, floor: int, capacity: int) -> None:
        self.floor = floor
        self._capacity = capacity
        self._changes: list[Change] = []
        self._first = 0
        self._changed = anyio.Event()

    @property
    def end(self) -> int:
        """The cursor after the newest change."""
        return self._first + len(self._changes)

    def append(self, change: Change) -> None:
        """Add a committed change and forget the oldest ones beyond capacity; call ``wake`` after the batch."""
        self._changes.append(change)
        if len(self._changes) > self._capacity * 2:
            forgotten = len(self._changes) - self._capacity
            self.floor = self._changes[forgotten - 1].revision
            del self._changes[:forgotten]
            self._first += forgotten

    def wake(self) -> None:
        """Wake every waiting watcher."""
        self._changed.set()
        self._changed = anyio.Event()

    def cursor_after(self, revision: int) -> int | None:
        """The cursor of the first change above a revision; None if some of those are forgotten."""
        if revision < self.floor:
            return None
        low, high = 0, len(self._changes)
        while low < high:
            middle = (low + high) // 2
            if self._changes[middle].revision <= revision:
                low = middle + 1
            else:
                high = middle
        return self._first + low

    def since(self, cursor: int) -> list[Change] | None:
        """The changes from a cursor on; None if some of them are forgotten."""
        if cursor < self._first:
            return None
        return self._changes[cursor - self._first :]

    async def wait(self, cursor: int) -> None:
        """Return once there is a change at or after the cursor, or at a wake-up."""
        if cursor >= self.end:
            await self._changed.wait()
