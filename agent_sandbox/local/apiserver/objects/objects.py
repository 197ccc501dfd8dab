"""Create, update and delete objects of any kind.

Flow: read ``latest``, compute and check the next state without awaiting, write. Nothing can come in between, so there
is no retry loop: two writers of one object are ordered by who called first.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.builtin import NAMESPACES
from agent_sandbox.local.apiserver.errors import (
    AlreadyExistsError,
    Cause,
    ForbiddenError,
    NotFoundError,
    StatusError,
)
from agent_sandbox.local.apiserver.managed_fields import Writer, apply_configuration, record_change
from agent_sandbox.local.apiserver.objects.decoding import normalize
from agent_sandbox.local.apiserver.objects.deletes import DeleteOptions, mark_deleting, may_go
from agent_sandbox.local.apiserver.objects.writes import (
    WriteOptions,
    check_identity,
    check_valid,
    fill_defaults,
    prepare_create,
    prepare_update,
    report_unknown,
)
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType, WriteContext
from agent_sandbox.local.apiserver.storage import Key, ObjectStore, Stored
from agent_sandbox_api.meta import format_time

_NAME_ATTEMPTS = 8
Transform = Callable[[JsonObject], JsonObject]


class Objects:
    """The objects of all kinds, with Kubernetes' rules for changing them."""

    def __init__(self, store: ObjectStore, registry: Registry, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock

    def get(self, resource: ResourceType, namespace: str, name: str) -> Stored:
        """The committed object.

        Raises:
            NotFoundError: there is none.
        """
        stored = self._store.get(Key(resource.bucket, namespace, name))
        if stored is None:
            raise NotFoundError(resource, name)
        return stored

    def latest(self, resource: ResourceType, namespace: str, name: str) -> Stored:
        """The object including writes under way.

        Raises:
            NotFoundError: there is none.
        """
        stored = self._store.latest(Key(resource.bucket, namespace, name))
        if stored is None:
            raise NotFoundError(resource, name)
        return stored

    async def create(
        self, resource: ResourceType, namespace: str, value: JsonObject, options: WriteOptions
    ) -> JsonObject:
        """Create an object; the value is changed in place.

        Raises:
            StatusError: refused; nothing was created.
        """
        self._check_creatable(resource, namespace, value)
        context = self._context(options)
        check_identity(resource, value, namespace, "")
        report_unknown(resource, normalize(resource, value), options)
        fill_defaults(resource, value)
        wished = value["metadata"].get("name")
        key = self._free_key(resource, value, context)
        resource.strategy.prepare_create(value, context)
        check_valid(resource, value, None)
        if not options.applied:
            value["metadata"].pop("managedFields", None)
            self._record(resource, {}, value, options, context)
        if self._store.latest(key) is not None:
            raise AlreadyExistsError(resource, wished or key.name)
        return await self._store_object(resource, key, value, options)

    def _free_key(self, resource: ResourceType, value: JsonObject, context: WriteContext) -> Key:
        """Prepare the object; a generated name is tried again while it is taken."""
        wished = value["metadata"].get("name")
        key = Key(resource.bucket, "", "")
        for _ in range(_NAME_ATTEMPTS):
            value["metadata"]["name"] = wished
            prepare_create(resource, value, context)
            metadata = value["metadata"]
            if not metadata.get("name"):
                metadata.pop("name", None)
            key = Key(resource.bucket, metadata.get("namespace", ""), metadata.get("name", ""))
            if wished or self._store.latest(key) is None:
                break
        return key

    def _check_creatable(self, resource: ResourceType, namespace: str, value: JsonObject) -> None:
        if (value.get("metadata") or {}).get("resourceVersion"):
            raise StatusError(500, "", "resourceVersion should not be set on objects to be created")
        if not resource.namespaced:
            return
        stored = self._store.latest(Key(NAMESPACES.bucket, "", namespace))
        if stored is None:
            raise NotFoundError(NAMESPACES, namespace)
        if stored.metadata.get("deletionTimestamp"):
            name = (value.get("metadata") or {}).get("name", "")
            detail = f"unable to create new content in namespace {namespace} because it is being terminated"
            message = f"namespace {namespace} is being terminated"
            causes = [Cause("NamespaceTerminating", "metadata.namespace", message)]
            raise ForbiddenError(resource, name, detail, causes)

    async def update(
        self, resource: ResourceType, namespace: str, name: str, transform: Transform, options: WriteOptions
    ) -> JsonObject:
        """Replace an object by what ``transform`` makes of a copy of it (in the served version).

        Raises:
            NotFoundError: there is none.
            StatusError: refused; nothing was changed.
        """
        stored = self.latest(resource, namespace, name)
        old = self._served(resource, stored.copy())
        # Decoding again is several times faster than a deep copy.
        value = transform(self._served(resource, stored.copy()))
        context = self._context(options)
        check_identity(resource, value, namespace, name)
        report_unknown(resource, normalize(resource, value), options)
        fill_defaults(resource, value)
        prepare_update(resource, value, old, options, context)
        check_valid(resource, value, old, options.subresource)
        if not options.applied:
            self._record(resource, old, value, options, context)
        value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if value == old:
            return old
        if may_go(value) and old["metadata"].get("deletionTimestamp"):
            return await self._remove(resource, stored.key, value, options.dry_run)
        return await self._store_object(resource, stored.key, value, options)

    async def delete(
        self, resource: ResourceType, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[JsonObject, bool]:
        """Delete an object, or start its deletion.

        Returns:
            The object's last or present state, and whether it is gone.

        Raises:
            NotFoundError: there is none.
            ConflictError: a precondition does not hold.
        """
        stored = self.latest(resource, namespace, name)
        options.preconditions.check(resource, stored.metadata)
        value = stored.copy()
        before = copy.deepcopy(value)
        gone = mark_deleting(value, resource, options, self._clock.now())
        if resource.bucket == NAMESPACES.bucket and not gone:
            value["status"] = {**(value.get("status") or {}), "phase": "Terminating"}
        if value != before and not options.dry_run:
            # Also if it goes at once: watchers see the mark, and then the end.
            stored = await self._store.write(stored.key, value)
            value = stored.copy()
        if gone:
            present = self._store.latest(stored.key)
            if present is None or present.uid != stored.uid:
                return self._served(resource, value), True  # somebody else ended it meanwhile
            last = await self._remove(resource, stored.key, self._served(resource, value), options.dry_run)
            return last, True
        return self._served(resource, value), False

    def now(self) -> datetime:
        """The server's time."""
        return self._clock.now()

    def served(self, resource: ResourceType, stored: Stored) -> JsonObject:
        """A stored object in the version that a kind serves; a fresh copy."""
        return self._served(resource, stored.copy())

    async def apply(
        self,
        resource: ResourceType,
        namespace: str,
        name: str,
        configuration: JsonObject,
        options: WriteOptions,
        *,
        force: bool,
    ) -> tuple[JsonObject, bool]:
        """Server-side apply.

        Returns:
            The object, and whether it was created.

        Raises:
            StatusError: refused; nothing was changed. 409 if others own fields that would change.
        """
        writer = Writer(options.field_manager, "Apply", resource.api_version, options.subresource)
        now = format_time(self._clock.now())
        check_identity(resource, configuration, namespace, name)
        unknown = normalize(resource, configuration)
        if unknown:
            about = f"({namespace}/{name}; {resource.api_version}, Kind={resource.kind})"
            detail = f".{unknown[0]}: field not declared in schema"
            raise StatusError(500, "", f"failed to create typed patch object {about}: {detail}")
        options = replace(options, applied=True)

        def applied(live: JsonObject) -> JsonObject:
            return apply_configuration(resource, live, configuration, writer, now, force=force)

        if self._store.latest(Key(resource.bucket, namespace, name)) is None:
            if options.subresource:
                raise NotFoundError(resource, name)
            return await self.create(resource, namespace, applied({}), options), True
        return await self.update(resource, namespace, name, applied, options), False

    def _record(
        self, resource: ResourceType, old: JsonObject, value: JsonObject, options: WriteOptions, context: WriteContext
    ) -> None:
        """Note who wrote which fields; ``managedFields: [{}]`` from a client forgets all owners."""
        given = value["metadata"].get("managedFields")
        if given == [{}]:
            del value["metadata"]["managedFields"]
            return
        if not given and old:
            value["metadata"]["managedFields"] = old["metadata"].get("managedFields")
        writer = Writer(options.field_manager, "Update", resource.api_version, options.subresource)
        record_change(resource, old, value, writer, context.now)

    async def _store_object(
        self, resource: ResourceType, key: Key, value: JsonObject, options: WriteOptions
    ) -> JsonObject:
        if options.dry_run:
            return value
        stored = await self._store.write(key, self._to_stored(resource, value))
        return self._served(resource, stored.copy())

    async def _remove(self, resource: ResourceType, key: Key, value: JsonObject, dry_run: bool) -> JsonObject:
        if dry_run:
            return value
        stored = await self._store.remove(key, self._to_stored(resource, value))
        return self._served(resource, stored.copy())

    def _served(self, resource: ResourceType, value: dict[str, Any]) -> JsonObject:
        return resource.conversion.to_served(value) if resource.conversion else value

    def _to_stored(self, resource: ResourceType, value: dict[str, Any]) -> JsonObject:
        return resource.conversion.to_stored(value) if resource.conversion else value

    def _context(self, options: WriteOptions) -> WriteContext:
        return WriteContext(format_time(self._clock.now()), options.user)
