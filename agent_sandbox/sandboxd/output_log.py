"""The output of one command, numbered piece by piece, so that a reader that lost its connection goes on where it was.

In: pieces as they are read. Out: pieces behind a number. Memory is bounded: a full log either holds the command up
(nothing is lost) or forgets its oldest pieces (and says which).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import anyio

ATTACH_GRACE: Final = 60.0
"""Seconds that a command is held up for a reader that went away and may come back."""


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
    """A place in the log: everything up to `position` was delivered."""

    position: int


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
        # Everything up to here was delivered to some reader at some time.
        self._delivered = 0
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
        self.last += 1
        self._pieces.append(Piece(self.last, channel, data))
        self._size += len(data)
        self._make_room()
        self.wake()

    def attach(self, after: int) -> Reader:
        """Begin to read behind piece number `after`."""
        reader = Reader(min(after, self.last))
        self._readers.add(reader)
        return reader

    def detach(self, reader: Reader) -> None:
        """Stop reading."""
        self._readers.discard(reader)
        if not self._readers:
            self._left_at = anyio.current_time()
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
        """The next piece for the reader, or None; `delivered` goes on to the one behind it."""
        if not self._pieces or reader.position >= self.last:
            return None
        return self._pieces[reader.position + 1 - self._pieces[0].sequence]

    def delivered(self, reader: Reader, piece: Piece) -> None:
        """The reader has that piece."""
        reader.position = piece.sequence
        self._delivered = max(self._delivered, piece.sequence)
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
        if full and not self._readers and self._overflow is Overflow.AUTO:
            # Nothing is appended while the command is held up, so somebody must look when the grace is over.
            asyncio.get_running_loop().call_later(ATTACH_GRACE / 2, self._make_room)

    def _may_forget(self, piece: Piece) -> bool:
        if any(reader.position < piece.sequence for reader in self._readers):
            return self._overflow is Overflow.DROP
        if piece.sequence <= self._delivered or self._overflow is Overflow.DROP:
            return True
        if self._overflow is Overflow.BLOCK:
            return False
        return self._left_at is None or anyio.current_time() - self._left_at > ATTACH_GRACE
