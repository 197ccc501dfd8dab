"""Deletes the objects of a CustomResourceDefinition that is being deleted, then lets it go."""

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.background.work import KeyWorker
from agent_sandbox.local.apiserver.custom import CLEANUP_FINALIZER, CUSTOM_RESOURCE_DEFINITIONS
from agent_sandbox.local.apiserver.errors import ConflictError, NotFoundError
from agent_sandbox.local.apiserver.objects import DeleteOptions, Objects, Preconditions, WriteOptions
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.storage import Change, Key, ObjectStore, Stored

_WRITE = WriteOptions(field_manager="custom-resource-cleanup")


class DefinitionCleaner:
    """Handles definitions that are on their way out."""

    def __init__(self, store: ObjectStore, registry: Registry, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._objects = objects
        self._worker = KeyWorker("definitions", self._clean, clock)
        self._ending: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._worker.run()

    def notice(self, change: Change) -> None:
        """Follow one change; a definition's name is the bucket of its objects."""
        if change.key.bucket == CUSTOM_RESOURCE_DEFINITIONS.bucket:
            if change.deleted:
                self._ending.discard(change.key.name)
            elif change.current.metadata.get("deletionTimestamp"):
                self._worker.add(change.key)
        elif change.key.bucket in self._ending:
            self._worker.add(self._registry.definition_key(change.key.bucket))

    async def _clean(self, key: Key) -> None:
        stored = self._store.latest(key)
        if stored is None or CLEANUP_FINALIZER not in (stored.metadata.get("finalizers") or ()):
            return
        self._ending.add(key.name)
        resource = self._registry.by_bucket(key.name)
        if resource is not None:
            for instance in self._store.objects(key.name):
                if not instance.metadata.get("deletionTimestamp"):
                    await self._delete(resource, instance)
        if not self._store.objects(key.name):
            await self._objects.update(CUSTOM_RESOURCE_DEFINITIONS, "", key.name, _without_finalizer, _WRITE)

    async def _delete(self, resource: ResourceType, instance: Stored) -> None:
        options = DeleteOptions(propagation="Background", preconditions=Preconditions(uid=instance.uid))
        try:
            await self._objects.delete(resource, instance.key.namespace, instance.key.name, options)
        except (NotFoundError, ConflictError):
            return  # somebody was faster


def _without_finalizer(value: JsonObject) -> JsonObject:
    finalizers = value["metadata"].get("finalizers") or []
    value["metadata"]["finalizers"] = [entry for entry in finalizers if entry != CLEANUP_FINALIZER]
    return value
