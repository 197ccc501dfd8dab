"""The client of reconcilers: what it writes is in the stores before the write returns.

Reads go to the server; cached reads are those of ``manager.cache.informer(...).store``.
"""

from typing import Final

from agent_sandbox.kube import Body, KubeClient, Patch, Propagation
from agent_sandbox.kube.patches import wire
from agent_sandbox.runtime.cache import Cache
from agent_sandbox_api.resource import Resource, V

_WHOLE_OBJECT: Final = frozenset({None, "status"})
"""Subresources whose answer is the object itself; ``scale`` or ``eviction`` answer with another kind."""


class CachedClient(KubeClient):
    """A ``KubeClient`` that reads its own writes.

    Guarantees:
        After create, update, patch or delete has returned, the stores of the cache hold the answered object, or no
        longer hold the deleted one, and never fall behind it.
    Caveats:
        A write whose outcome is unknown has entered nothing: read the object live before trying again.
    """

    def __init__(self, client: KubeClient, cache: Cache) -> None:
        super().__init__(
            client.transport,
            field_manager=client.field_manager,
            request_timeout=client.request_timeout,
            clock=client.clock,
        )
        self._cache = cache

    async def create(self, resource: Resource[V], body: Body, namespace: str | None = None) -> V:
        """As ``KubeClient.create``; the object enters the stores."""
        metadata = wire(body).get("metadata") or {}
        with self._cache.writing(resource, namespace or metadata.get("namespace") or "", metadata.get("name") or ""):
            view = await super().create(resource, body, namespace)
            self._cache.remember(resource, view)
        return view

    async def update(
        self, resource: Resource[V], body: Body, namespace: str | None = None, *, subresource: str | None = None
    ) -> V:
        """As ``KubeClient.update``; the object enters the stores."""
        metadata = wire(body).get("metadata") or {}
        with self._cache.writing(resource, namespace or metadata.get("namespace") or "", metadata.get("name") or ""):
            view = await super().update(resource, body, namespace, subresource=subresource)
            if subresource in _WHOLE_OBJECT:
                self._cache.remember(resource, view)
        return view

    async def patch(
        self,
        resource: Resource[V],
        name: str,
        patch: Patch,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> V:
        """As ``KubeClient.patch``; the object enters the stores."""
        with self._cache.writing(resource, namespace or "", name):
            view = await super().patch(resource, name, patch, namespace, subresource=subresource)
            if subresource in _WHOLE_OBJECT:
                self._cache.remember(resource, view)
        return view

    async def delete_and_read(
        self,
        resource: Resource[V],
        name: str,
        namespace: str | None = None,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
        grace_period_seconds: int | None = None,
    ) -> V | None:
        """As ``KubeClient.delete_and_read``; the object leaves the stores, or enters them as deleting."""
        with self._cache.writing(resource, namespace or "", name):
            view = await super().delete_and_read(
                resource,
                name,
                namespace,
                uid=uid,
                resource_version=resource_version,
                propagation=propagation,
                grace_period_seconds=grace_period_seconds,
            )
            if view is None:
                self._cache.bury(resource, namespace or "", name, uid)
            else:
                self._cache.remember(resource, view)
        return view
