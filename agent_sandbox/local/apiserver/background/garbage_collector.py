"""Deletes what nobody owns any more, as Kubernetes' garbage collector does.

Flow: changes come in; an object whose owners may have gone is judged; its end brings its own dependents in.

Guarantees:
    - An owner is the object with the named UID; another object of the same name is none.
    - Background: dependents go after their owner. Foreground: an owner waits, marked, until the dependents that block
      it are gone. Orphan: dependents lose the reference and stay.
    - An object with another living owner only loses the reference to the dead one.
    - Owners of a kind that is not served are left alone until it is.
"""

from dataclasses import dataclass, field
from typing import Any

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.background.dependents import Dependents
from agent_sandbox.local.apiserver.background.work import KeyWorker
from agent_sandbox.local.apiserver.custom import CUSTOM_RESOURCE_DEFINITIONS
from agent_sandbox.local.apiserver.errors import ConflictError, NotFoundError
from agent_sandbox.local.apiserver.objects import DeleteOptions, Objects, Preconditions, WriteOptions
from agent_sandbox.local.apiserver.objects.deletes import FOREGROUND, ORPHAN
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.storage import Change, Key, ObjectStore, Stored

_WRITE = WriteOptions(field_manager="garbage-collector")


@dataclass
class _Owners:
    """An object's owners, sorted by what became of them."""

    solid: list[JsonObject] = field(default_factory=list)
    gone: list[JsonObject] = field(default_factory=list)
    waiting: list[JsonObject] = field(default_factory=list)
    unknown: list[JsonObject] = field(default_factory=list)


class GarbageCollector:
    """Judges objects with owners, and owners that wait for their dependents."""

    def __init__(self, store: ObjectStore, registry: Registry, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._objects = objects
        self._dependents = Dependents()
        self._worker = KeyWorker("garbage-collector", self._judge, clock)
        # Objects with an owner of a kind that is not served; judged again when a definition changes.
        self._undecided: set[Key] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._worker.run()

    def notice(self, change: Change) -> None:
        """Follow one change."""
        self._dependents.notice(change)
        metadata = change.current.metadata
        if change.key.bucket == CUSTOM_RESOURCE_DEFINITIONS.bucket:
            for key in self._undecided:
                self._worker.add(key)
        if change.deleted:
            self._undecided.discard(change.key)
            self._wake_owners(metadata)
            for key in self._dependents.of(change.current.uid):
                self._worker.add(key)
        elif metadata.get("ownerReferences") or metadata.get("deletionTimestamp"):
            self._worker.add(change.key)
            self._wake_owners(metadata)

    def _wake_owners(self, metadata: JsonObject) -> None:
        """An owner may be waiting for just this dependent."""
        for owner in metadata.get("ownerReferences") or ():
            found = self._find(owner, metadata.get("namespace", ""))
            if isinstance(found, Stored) and _waits(found):
                self._worker.add(found.key)

    async def _judge(self, key: Key) -> None:
        stored = self._store.latest(key)
        resource = self._kind_of(stored) if stored is not None else None
        if stored is None or resource is None:
            return
        if stored.metadata.get("deletionTimestamp"):
            await self._progress(resource, stored)
            return
        owners = self._owners_of(stored)
        if owners.unknown:
            self._undecided.add(key)
        elif owners.solid:
            await self._drop_references(resource, stored, owners.gone + owners.waiting)
        elif owners.gone or owners.waiting:
            await self._delete(resource, stored, foreground=bool(owners.waiting))

    async def _progress(self, resource: ResourceType, stored: Stored) -> None:
        """Bring an object that is being deleted one step on."""
        finalizers = stored.metadata.get("finalizers") or []
        dependents = self._dependents.of(stored.uid)
        if ORPHAN in finalizers:
            for key in dependents:
                await self._orphan(key, stored.uid)
            await self._drop_finalizer(resource, stored, ORPHAN)
        elif FOREGROUND in finalizers:
            blocking = [key for key in dependents if self._blocks(key, stored.uid)]
            if not blocking:
                await self._drop_finalizer(resource, stored, FOREGROUND)
            for key in dependents:
                self._worker.add(key)

    def _blocks(self, key: Key, uid: str) -> bool:
        dependent = self._store.latest(key)
        if dependent is None:
            return False
        owners = dependent.metadata.get("ownerReferences") or []
        return any(owner.get("uid") == uid and owner.get("blockOwnerDeletion") for owner in owners)

    async def _orphan(self, key: Key, uid: str) -> None:
        dependent = self._store.latest(key)
        resource = self._kind_of(dependent) if dependent is not None else None
        if dependent is not None and resource is not None:
            await self._drop_references(resource, dependent, [{"uid": uid}])

    def _owners_of(self, stored: Stored) -> _Owners:
        owners = _Owners()
        for owner in stored.metadata.get("ownerReferences") or ():
            found = self._find(owner, stored.key.namespace)
            if found is _UNKNOWN_KIND:
                owners.unknown.append(owner)
            elif not isinstance(found, Stored):
                owners.gone.append(owner)
            elif _waits(found):
                owners.waiting.append(owner)
            else:
                owners.solid.append(owner)
        return owners

    def _find(self, owner: JsonObject, namespace: str) -> Any:
        group = owner["apiVersion"].rpartition("/")[0]
        resource = self._registry.by_group_kind(group, owner["kind"])
        if resource is None or (resource.namespaced and not namespace):
            return _UNKNOWN_KIND
        key = Key(resource.bucket, namespace if resource.namespaced else "", owner["name"])
        found = self._store.latest(key)
        return found if found is not None and found.uid == owner["uid"] else None

    def _kind_of(self, stored: Stored) -> ResourceType | None:
        return self._registry.by_bucket(stored.key.bucket)

    async def _drop_references(self, resource: ResourceType, stored: Stored, owners: list[JsonObject]) -> None:
        uids = {owner["uid"] for owner in owners}
        if not uids:
            return

        def without(value: JsonObject) -> JsonObject:
            kept = [owner for owner in value["metadata"].get("ownerReferences") or [] if owner["uid"] not in uids]
            value["metadata"]["ownerReferences"] = kept
            return value

        await self._objects.update(resource, stored.key.namespace, stored.key.name, without, _WRITE)

    async def _drop_finalizer(self, resource: ResourceType, stored: Stored, finalizer: str) -> None:
        def without(value: JsonObject) -> JsonObject:
            kept = [entry for entry in value["metadata"].get("finalizers") or [] if entry != finalizer]
            value["metadata"]["finalizers"] = kept
            return value

        await self._objects.update(resource, stored.key.namespace, stored.key.name, without, _WRITE)

    async def _delete(self, resource: ResourceType, stored: Stored, *, foreground: bool) -> None:
        finalizers = stored.metadata.get("finalizers") or []
        if ORPHAN in finalizers:
            propagation = "Orphan"
        elif FOREGROUND in finalizers or (foreground and self._dependents.of(stored.uid)):
            propagation = "Foreground"
        else:
            propagation = "Background"
        options = DeleteOptions(propagation=propagation, preconditions=Preconditions(uid=stored.uid))
        try:
            await self._objects.delete(resource, stored.key.namespace, stored.key.name, options)
        except (NotFoundError, ConflictError):
            # Another object took its place, or somebody was faster.
            return


_UNKNOWN_KIND = object()


def _waits(stored: Stored) -> bool:
    metadata = stored.metadata
    return bool(metadata.get("deletionTimestamp")) and FOREGROUND in (metadata.get("finalizers") or ())
