"""Where committed writes go so that they survive: the contract, and the one that forgets.

``ObjectStore`` hands batches of records over in revision order; when ``append`` returns they are safe.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from agent_sandbox.local.apiserver.storage.stored import Key

FIRST_REVISION: Final = 100
"""Where an empty store begins. Not at 1: clients that ask for a revision before anything was there get 410, as in a
cluster, whose first objects are its own.
"""


class JournalRecord(NamedTuple):
    """One write: the object's new JSON, or None if it is gone."""

    key: Key
    revision: int
    raw: bytes | None


class Journal(Protocol):
    """Durable memory of the store."""

    async def load(self) -> tuple[int, Iterable[JournalRecord]]:
        """The highest revision ever given out, and every living object."""

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Make the records durable, all or none.

        Raises:
            StorageError: the disk refuses; nothing of the batch was kept.
        """

    async def aclose(self) -> None:
        """Release the files."""


class MemoryJournal:
    """Keeps nothing and never leaves the event loop, so tests run in virtual time."""

    async def load(self) -> tuple[int, Iterable[JournalRecord]]:
        """Nothing, from the first revision on."""
        return FIRST_REVISION, ()

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Accept and forget."""

    async def aclose(self) -> None:
        """Nothing to release."""
