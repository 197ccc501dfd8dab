"""What a plan wants written, as values: plans stay pure, tests compare them, one function carries them out.

Every patch of an existing object carries its UID and every delete has it as a precondition: an action hits the object
that was looked at, or nothing. Where a race decides something, the resourceVersion goes along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from agent_sandbox.kube import MergePatch, NotFoundError, Propagation
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView, View


@dataclass(frozen=True)
class Create:
    """Make an object. ``body`` is its wire form with name and namespace."""

    resource: Resource[Any]
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the new object."""
        return str(self.body["metadata"]["name"])


@dataclass(frozen=True)
class Change:
    """Merge ``body`` into an object; it carries the UID and, if the change is conditional, the resourceVersion."""

    resource: Resource[Any]
    namespace: str
    name: str
    body: Mapping[str, Any]
    subresource: str | None = None


@dataclass(frozen=True)
class Remove:
    """Delete exactly the object of that UID."""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: str
    resource_version: str | None = None
    propagation: Propagation | None = None


Action: TypeAlias = Create | Change | Remove


def change(
    resource: Resource[Any],
    target: MetaView,
    body: Mapping[str, Any],
    *,
    locked: bool = False,
    subresource: str | None = None,
) -> Change:
    """A change of exactly this object, and if ``locked`` of exactly this version of it."""
    metadata = {**body.get("metadata", {}), "uid": target.uid}
    if locked:
        metadata["resourceVersion"] = target.resource_version
    return Change(resource, target.namespace, target.name, {**body, "metadata": metadata}, subresource)


def remove(resource: Resource[Any], target: MetaView, *, locked: bool = False) -> Remove:
    """The removal of exactly this object, and if ``locked`` only if it is still in this version."""
    version = target.resource_version if locked else None
    return Remove(resource, target.namespace, target.name, target.uid, version)


class Writer(Protocol):
    """The part of a client that actions need."""

    async def create(self, resource: Resource[Any], body: Mapping[str, Any], namespace: str | None = None) -> Any: ...

    async def patch(
        self,
        resource: Resource[Any],
        name: str,
        patch: MergePatch,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Any: ...

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str | None = None,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
    ) -> None: ...


async def perform(client: Writer, action: Action) -> View | None:
    """Carry out one action; the object as the server answered, None for a removal. What is gone already counts as
    removed.

    Raises:
        KubeError: the server refuses, or the outcome is unknown.
    """
    match action:
        case Create():
            created: View = await client.create(action.resource, action.body)
            return created
        case Change():
            changed: View = await client.patch(
                action.resource, action.name, MergePatch(action.body), action.namespace, subresource=action.subresource
            )
            return changed
        case Remove():
            try:
                await client.delete(
                    action.resource,
                    action.name,
                    action.namespace,
                    uid=action.uid,
                    resource_version=action.resource_version,
                    propagation=action.propagation,
                )
            except NotFoundError:
                return None
            return None
