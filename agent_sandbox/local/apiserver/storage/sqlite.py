"""The journal on disk: SQLite in WAL mode, written by one thread.

One transaction per batch. A kill at any moment leaves either the whole batch or nothing of it; SQLite repairs itself
when the file is opened again.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from agent_sandbox.local.apiserver.errors import StorageError
from agent_sandbox.local.apiserver.storage.journal import FIRST_REVISION, JournalRecord
from agent_sandbox.local.apiserver.storage.stored import Key

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (bucket, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
"""
_FIRST: Final = "INSERT OR IGNORE INTO counter VALUES (1, ?)"
_PUT: Final = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)"
_DROP: Final = "DELETE FROM objects WHERE bucket = ? AND namespace = ? AND name = ?"


class SqliteJournal:
    """Keeps the objects in one SQLite file."""

    def __init__(self, path: Path, *, synchronous: str = "FULL") -> None:
        """
        Args:
            path: the database file; it and its folder are made with access for the owner only.
            synchronous: SQLite's setting. FULL survives a power cut; NORMAL survives kill -9 and costs no fsync per
                write.
        """
        self._path = path
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        # One thread at a time ever touches the connection.
        self._limiter: anyio.CapacityLimiter | None = None

    async def load(self) -> tuple[int, Iterable[JournalRecord]]:
        """Open the file, or make it, and read everything.

        Raises:
            StorageError: the file cannot be opened, is no database, or is of a newer version.
        """
        self._limiter = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(self._open, limiter=self._limiter)

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Commit a batch in one transaction.

        Raises:
            StorageError: the disk refuses; nothing of the batch was kept.
        """
        assert self._limiter is not None, "append before load"
        await anyio.to_thread.run_sync(self._append, records, limiter=self._limiter)

    async def aclose(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        if self._connection is not None and self._limiter is not None:
            await anyio.to_thread.run_sync(self._connection.close, limiter=self._limiter)
            self._connection = None

    def _open(self) -> tuple[int, list[JournalRecord]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._check_version(connection)
            connection.executescript(_SCHEMA)
            connection.execute(_FIRST, (FIRST_REVISION,))
            (revision,) = connection.execute("SELECT revision FROM counter").fetchone()
            rows = connection.execute("SELECT bucket, namespace, name, revision, body FROM objects")
            return revision, [JournalRecord(Key(*row[:3]), row[3], row[4]) for row in rows]
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot open {self._path}: {error}; move the file away to start empty") from error

    def _check_version(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StorageError(
                f"{self._path} was written by a newer version; use that version, or another state folder"
            )
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _append(self, records: Sequence[JournalRecord]) -> None:
        connection = self._connection
        assert connection is not None, "append after close"
        try:
            connection.execute("BEGIN IMMEDIATE")
            for record in records:
                if record.raw is None:
                    connection.execute(_DROP, record.key)
                else:
                    connection.execute(_PUT, (*record.key, record.revision, record.raw))
            connection.execute("UPDATE counter SET revision = ?", (records[-1].revision,))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise StorageError(f"{self._path}: {error}") from error
