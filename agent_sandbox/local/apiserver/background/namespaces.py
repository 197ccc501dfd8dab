"""Gives each namespace its service account, and empties those that are being deleted."""

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.background.work import KeyWorker
from agent_sandbox.local.apiserver.builtin import NAMESPACES, PODS, SERVICE_ACCOUNTS
from agent_sandbox.local.apiserver.errors import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError
from agent_sandbox.local.apiserver.objects import DeleteOptions, Objects, Preconditions, WriteOptions
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.storage import Change, Key, ObjectStore

_WRITE = WriteOptions(field_manager="namespace-controller", subresource="finalize")


class NamespaceKeeper:
    """Handles namespaces as they come and go."""

    def __init__(self, store: ObjectStore, registry: Registry, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._objects = objects
        self._worker = KeyWorker("namespaces", self._keep, clock)
        self._ending: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._worker.run()

    def notice(self, change: Change) -> None:
        """Follow one change: of a namespace, or of something that one waits for."""
        if change.key.bucket == NAMESPACES.bucket:
            if change.deleted:
                self._ending.discard(change.key.name)
            elif change.previous is None or change.current.metadata.get("deletionTimestamp"):
                self._worker.add(change.key)
        elif change.key.namespace in self._ending:
            self._worker.add(Key(NAMESPACES.bucket, "", change.key.namespace))

    async def _keep(self, key: Key) -> None:
        stored = self._store.latest(key)
        if stored is None:
            return
        if not stored.metadata.get("deletionTimestamp"):
            await self._ensure_service_account(key.name)
            return
        self._ending.add(key.name)
        if await self._empty(key.name):
            await self._finish(key.name)

    async def _ensure_service_account(self, namespace: str) -> None:
        if self._store.latest(Key(SERVICE_ACCOUNTS.bucket, namespace, "default")) is not None:
            return
        try:
            await self._objects.create(SERVICE_ACCOUNTS, namespace, {"metadata": {"name": "default"}}, WriteOptions())
        except (AlreadyExistsError, ForbiddenError, NotFoundError):
            # It is there, or the namespace has gone again.
            return

    async def _empty(self, namespace: str) -> bool:
        """Delete everything in a namespace; True once nothing is left.

        Pods go first, and the rest waits until the last has gone, as Kubernetes does it since 1.34 (KEP-5080): a Pod
        in its grace period must not lose its NetworkPolicy.
        """
        if self._store.objects(PODS.bucket, namespace):
            await self._delete_all(PODS, namespace)
            return False
        kinds = [resource for resource in self._registry.storage_kinds() if resource.namespaced]
        for resource in kinds:
            await self._delete_all(resource, namespace)
        return not any(self._store.objects(resource.bucket, namespace) for resource in kinds)

    async def _delete_all(self, resource: ResourceType, namespace: str) -> None:
        for stored in self._store.objects(resource.bucket, namespace):
            if stored.metadata.get("deletionTimestamp"):
                continue
            options = DeleteOptions(propagation="Background", preconditions=Preconditions(uid=stored.uid))
            try:
                await self._objects.delete(resource, namespace, stored.key.name, options)
            except (NotFoundError, ConflictError):
                continue  # somebody was faster

    async def _finish(self, namespace: str) -> None:
        def finalized(value: JsonObject) -> JsonObject:
            value["spec"]["finalizers"] = []
            return value

        await self._objects.update(NAMESPACES, "", namespace, finalized, _WRITE)
