"""The output of one command, numbered piece by piece, so that a reader that lost its connection goes on where it was.

In: pieces as they are read. Out: pieces behind a number. Memory is bounded: a full log either holds the command up
(nothing is lost) or forgets its oldest pieces (and says which).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import anyio

ATTACH_GRACE: Final = 60.0
"""Seconds that a command is held up for a reader that went away and may come back, and that readers which go on wait
for one that does not."""


class Overflow(StrEnum):
    """What happens when the log is full."""

    AUTO = "auto"
    """Hold the command up while somebody reads, or did a moment ago; forget the oldest otherwise."""

    BLOCK = "block"
    """Hold the command up until somebody reads."""

    DROP = "drop"
    """Forget the oldest."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of one channel (1 stdout, 2 stderr; a terminal has only 1)."""

    sequence: int
    channel: int
    data: bytes


@dataclass(eq=False)
class Reader:
    """A place in the log.

    Attributes:
        position: everything up to this number was sent.
        name: the reader's own name. One that has a name confirms what arrived; of one without, what was sent counts.
        confirmed: everything up to this number has arrived.
        moved_at: when `confirmed` last changed, or fell behind.
        replaced: set when the same reader has come anew, over another connection.
    """

    position: int
    name: str | None
    confirmed: int
    moved_at: float
    replaced: anyio.Event = field(default_factory=anyio.Event)


class OutputLog:
    """Numbered pieces, the newest always within reach.

    Args:
        limit: bytes held.
        hold: called to stop reading from the command, and `go_on` to read again.

    Attributes:
        last: number of the newest piece; 0 before the first.
    """

    def __init__(self, *, limit: int, overflow: Overflow, hold: Callable[[], None], go_on: Callable[[], None]) -> None:
        self.last = 0
        self._limit = limit
        self._overflow = overflow
        self._hold = hold
        self._go_on = go_on
        self._held = False
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._readers: set[Reader] = set()
        self._left_at: float | None = None
        # Everything up to here has arrived at some reader at some time.
        self._delivered = 0
        self._looking_again = False
        self._changed = anyio.Event()

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    @property
    def held(self) -> bool:
        """Whether the command is held up."""
        return self._held

    @property
    def attached(self) -> bool:
        """Whether somebody reads."""
        return bool(self._readers)

    def append(self, channel: int, data: bytes) -> None:
        """Take the next piece."""
        now = _now()
        for reader in self._readers:
            if reader.confirmed == self.last:
                reader.moved_at = now
        self.last += 1
        self._pieces.append(Piece(self.last, channel, data))
        self._size += len(data)
        self._make_room()
        self.wake()

    def attach(self, after: int, name: str | None = None) -> Reader:
        """Begin to read behind piece number `after`.

        Args:
            name: names a reader that confirms what arrived. Its earlier place, left behind by a connection of whose end
                nobody has heard, is given up.
        """
        for earlier in [reader for reader in self._readers if name is not None and reader.name == name]:
            self._readers.discard(earlier)
            earlier.replaced.set()
        place = min(after, self.last)
        reader = Reader(place, name, place, _now())
        self._readers.add(reader)
        self._confirm(reader, place)
        return reader

    def detach(self, reader: Reader) -> None:
        """Stop reading."""
        self._readers.discard(reader)
        if not self._readers:
            self._left_at = _now()
        self._make_room()

    def gap(self, reader: Reader) -> tuple[int, int] | None:
        """Numbers of the first and last piece that the reader missed because they are forgotten."""
        first = self._pieces[0].sequence if self._pieces else self.last + 1
        if reader.position + 1 >= first:
            return None
        missed = (reader.position + 1, first - 1)
        reader.position = first - 1
        return missed

    def following(self, reader: Reader) -> Piece | None:
        """The next piece for the reader, or None; `sent` goes on to the one behind it."""
        if not self._pieces or reader.position >= self.last:
            return None
        return self._pieces[reader.position + 1 - self._pieces[0].sequence]

    def sent(self, reader: Reader, piece: Piece) -> None:
        """That piece is on its way to the reader."""
        reader.position = piece.sequence
        if reader.name is None:
            self._confirm(reader, piece.sequence)

    def confirm(self, reader: Reader, sequence: int) -> None:
        """The reader says that it has everything up to that number."""
        self._confirm(reader, min(sequence, reader.position))

    def _confirm(self, reader: Reader, sequence: int) -> None:
        if sequence > reader.confirmed:
            reader.confirmed = sequence
            reader.moved_at = _now()
        self._delivered = max(self._delivered, sequence)
        if self._held:
            self._make_room()

    async def wait(self) -> None:
        """Wait until a piece was added, or `wake` was called."""
        self._changed = self._changed if not self._changed.is_set() else anyio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        """Let waiting readers look again."""
        self._changed.set()

    def _make_room(self) -> None:
        """Forget what may be forgotten while too much is held; hold the command up if that is not enough."""
        while self._size > self._limit and len(self._pieces) > 1 and self._may_forget(self._pieces[0]):
            self._size -= len(self._pieces.popleft().data)
        full = self._size > self._limit
        if full != self._held:
            self._held = full
            (self._hold if full else self._go_on)()
        if full and not self._looking_again and (self._overflow is Overflow.AUTO or len(self._readers) > 1):
            # Nothing is appended while the command is held up, so somebody must look when the grace is over.
            self._looking_again = True
            asyncio.get_running_loop().call_later(ATTACH_GRACE / 2, self._look_again)

    def _look_again(self) -> None:
        self._looking_again = False
        self._make_room()

    def _may_forget(self, piece: Piece) -> bool:
        if self._overflow is Overflow.DROP:
            return True
        now = _now()
        behind = [reader for reader in self._readers if reader.confirmed < piece.sequence]
        if behind:
            # One that takes nothing, because its machine or its network died, must not stop those that go on.
            return len(behind) < len(self._readers) and all(now - reader.moved_at > ATTACH_GRACE for reader in behind)
        if piece.sequence <= self._delivered:
            return True
        if self._overflow is Overflow.BLOCK:
            return False
        return self._left_at is None or now - self._left_at > ATTACH_GRACE


def _now() -> float:
    """The loop's time. Not asked of anyio: output comes in by callbacks, between tasks, where anyio does not know which
    loop runs if sniffio is installed."""
    return asyncio.get_running_loop().time()
