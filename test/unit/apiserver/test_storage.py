"""The store: what readers see, what survives, what happens when the disk refuses."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.local.apiserver.errors import StorageError
from agent_sandbox.local.apiserver.storage import JournalRecord, Key, MemoryJournal, ObjectStore, SqliteJournal
from agent_sandbox.local.apiserver.storage.journal import FIRST_REVISION


def _object(name: str, value: int = 0) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": name}, "value": value}


def _key(name: str) -> Key:
    return Key("things", "default", name)


class SlowJournal(MemoryJournal):
    """Commits when it is told to, or refuses."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.batches: list[list[str]] = []
        self.full = False

    async def append(self, records: Sequence[JournalRecord]) -> None:
        await self.gate.wait()
        if self.full:
            raise StorageError("no space left on device")
        self.batches.append([record.key.name for record in records])


async def test_a_write_is_visible_once_the_journal_has_it() -> None:
    """Until then only other writers see it."""
    journal = SlowJournal()
    store = ObjectStore(journal)
    await store.open()
    async with anyio.create_task_group() as group:
        group.start_soon(store.write, _key("a"), _object("a"))
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert store.get(_key("a")) is None
        assert store.latest(_key("a")) is not None
        journal.gate.set()

    assert store.get(_key("a")) is not None


async def test_writers_who_wait_commit_together() -> None:
    """Fewer transactions than writes, in the order of the writes."""
    journal = SlowJournal()
    store = ObjectStore(journal)
    await store.open()
    async with anyio.create_task_group() as group:
        for name in "abcd":
            group.start_soon(store.write, _key(name), _object(name))
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        journal.gate.set()

    assert [name for batch in journal.batches for name in batch] == ["a", "b", "c", "d"]
    assert len(journal.batches) <= 2
    assert [stored.key.name for stored in store.objects("things")] == ["a", "b", "c", "d"]


async def test_a_refused_write_leaves_nothing_behind() -> None:
    """Every writer who waited is told, and the next write works."""
    journal = SlowJournal()
    journal.full = True
    journal.gate.set()
    store = ObjectStore(journal)
    await store.open()
    with pytest.raises(StorageError, match="nothing was changed"):
        await store.write(_key("a"), _object("a"))
    assert store.latest(_key("a")) is None
    journal.full = False
    await store.write(_key("a"), _object("a"))

    assert store.get(_key("a")) is not None


async def test_writes_after_a_refused_one_fail_with_it() -> None:
    """They may have been computed from it."""
    journal = SlowJournal()
    journal.full = True
    store = ObjectStore(journal)
    await store.open()
    failed: list[str] = []

    async def write(name: str) -> None:
        try:
            await store.write(_key(name), _object(name))
        except StorageError:
            failed.append(name)

    async with anyio.create_task_group() as group:
        for name in "ab":
            group.start_soon(write, name)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        journal.gate.set()

    assert failed == ["a", "b"]
    assert store.objects("things") == []


async def test_a_cancelled_writer_does_not_tear_the_batch() -> None:
    """Its write is committed all the same."""
    journal = SlowJournal()
    store = ObjectStore(journal)
    await store.open()
    async with anyio.create_task_group() as group:
        group.start_soon(store.write, _key("a"), _object("a"))
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        journal.gate.set()

    assert store.get(_key("a")) is not None


async def test_writers_whose_clients_hang_up_are_committed_all_the_same() -> None:
    """An HTTP server cancels the task itself, which passes shields: the object was on disk and for nobody to see, or
    lay in the queue until somebody else wrote.
    """
    journal = SlowJournal()
    store = ObjectStore(journal)
    await store.open()
    loop = asyncio.get_running_loop()
    writers = [loop.create_task(store.write(_key(name), _object(name))) for name in "ab"]
    for _ in range(5):
        await asyncio.sleep(0)
    for writer in writers:
        writer.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    journal.gate.set()
    results = await asyncio.gather(*writers, return_exceptions=True)

    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert [name for batch in journal.batches for name in batch] == ["a", "b"]
    assert [stored.key.name for stored in store.objects("things")] == ["a", "b"]


async def test_revisions_order_all_kinds() -> None:
    """One counter for everything."""
    store = ObjectStore(MemoryJournal())
    await store.open()
    first = await store.write(_key("a"), _object("a"))
    second = await store.write(Key("others", "", "b"), _object("b"))

    assert (first.revision, second.revision) == (FIRST_REVISION + 1, FIRST_REVISION + 2)
    assert store.revision == second.revision


async def test_the_past_can_be_listed() -> None:
    """By undoing what happened since."""
    store = ObjectStore(MemoryJournal())
    await store.open()
    first = await store.write(_key("a"), _object("a", 1))
    await store.write(_key("a"), _object("a", 2))
    await store.write(_key("b"), _object("b"))
    await store.remove(_key("a"), _object("a", 2))
    past = store.objects_at("things", first.revision)

    assert past is not None
    assert [(stored.key.name, stored.value["value"]) for stored in past] == [("a", 1)]


async def test_the_far_past_is_forgotten() -> None:
    """Beyond twice the capacity."""
    store = ObjectStore(MemoryJournal(), history_capacity=2)
    await store.open()
    first = await store.write(_key("a"), _object("a"))
    for value in range(8):
        await store.write(_key("a"), _object("a", value))

    assert store.objects_at("things", first.revision) is None
    assert store.history("things").cursor_after(first.revision) is None
    assert store.history("things").cursor_after(store.revision) == store.history("things").end


async def test_sqlite_keeps_objects_and_the_counter(tmp_path: Path) -> None:
    """Deleted objects stay deleted, and no revision comes twice."""
    path = tmp_path / "state" / "objects.db"
    store = ObjectStore(SqliteJournal(path))
    await store.open()
    await store.write(_key("a"), _object("a", 7))
    await store.write(_key("b"), _object("b"))
    last = await store.remove(_key("b"), _object("b"))
    await store.aclose()
    again = ObjectStore(SqliteJournal(path))
    await again.open()

    assert [stored.value["value"] for stored in again.objects("things")] == [7]
    assert again.revision == last.revision
    assert path.stat().st_mode & 0o777 == 0o600
    await again.aclose()


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """The message says what to do."""
    path = tmp_path / "objects.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 20)
    with pytest.raises(StorageError, match=r"cannot open .*objects\.db.*move the file away"):
        await ObjectStore(SqliteJournal(path)).open()


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Rather than read wrongly."""
    import sqlite3

    path = tmp_path / "objects.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="newer version"):
        await ObjectStore(SqliteJournal(path)).open()


async def test_a_full_database_refuses_and_stays_whole(tmp_path: Path) -> None:
    """SQLite's own limit of pages stands in for a full disk."""
    journal = SqliteJournal(tmp_path / "objects.db")
    store = ObjectStore(journal)
    await store.open()
    await store.write(_key("a"), _object("a"))
    connection = journal._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StorageError):
        await store.write(_key("big"), {**_object("big"), "text": "x" * 200_000})
    assert store.get(_key("big")) is None
    connection.execute("PRAGMA max_page_count = 1000000")
    await store.write(_key("b"), _object("b"))

    assert [stored.key.name for stored in store.objects("things")] == ["a", "b"]
    await store.aclose()


def _names(records: Iterable[JournalRecord]) -> list[str]:
    return [record.key.name for record in records]


async def test_a_batch_is_kept_whole(tmp_path: Path) -> None:
    """One transaction."""
    journal = SqliteJournal(tmp_path / "objects.db")
    await journal.load()
    await journal.append([JournalRecord(_key(name), number, b"{}") for number, name in enumerate("abc", 200)])
    await journal.aclose()
    revision, records = await SqliteJournal(tmp_path / "objects.db").load()

    assert revision == 202
    assert _names(records) == ["a", "b", "c"]
