"""Keeps the objects: in memory for reading, in a journal for good."""

from agent_sandbox.local.apiserver.storage.history import Change, History
from agent_sandbox.local.apiserver.storage.journal import Journal, JournalRecord, MemoryJournal
from agent_sandbox.local.apiserver.storage.object_store import ObjectStore
from agent_sandbox.local.apiserver.storage.sqlite import SqliteJournal
from agent_sandbox.local.apiserver.storage.stored import Key, Stored

__all__ = [
    "Change",
    "History",
    "Journal",
    "JournalRecord",
    "Key",
    "MemoryJournal",
    "ObjectStore",
    "SqliteJournal",
    "Stored",
]
