"""Composes the server's own workers and feeds them with what changes."""

import anyio
from anyio.abc import TaskStatus

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.background.definitions import DefinitionCleaner
from agent_sandbox.local.apiserver.background.event_expiry import EventExpiry
from agent_sandbox.local.apiserver.background.garbage_collector import GarbageCollector
from agent_sandbox.local.apiserver.background.namespaces import NamespaceKeeper
from agent_sandbox.local.apiserver.objects import Objects
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.storage import Change, ObjectStore


class Background:
    """The server's own workers."""

    def __init__(self, store: ObjectStore, registry: Registry, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._collector = GarbageCollector(store, registry, objects, clock)
        self._namespaces = NamespaceKeeper(store, registry, objects, clock)
        self._definitions = DefinitionCleaner(store, registry, objects, clock)
        self._expiry = EventExpiry(store, objects, clock)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the workers until cancelled."""
        for bucket in self._store.buckets():
            for stored in self._store.objects(bucket):
                self._notice(Change(stored.revision, None, stored, deleted=False))
        unsubscribe = self._store.subscribe(self._notice)
        try:
            async with anyio.create_task_group() as group:
                for worker in (self._collector, self._namespaces, self._definitions, self._expiry):
                    group.start_soon(worker.run, name=type(worker).__name__)
                task_status.started()
        finally:
            unsubscribe()

    def _notice(self, change: Change) -> None:
        self._collector.notice(change)
        self._namespaces.notice(change)
        self._definitions.notice(change)
