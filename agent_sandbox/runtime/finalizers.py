"""Clean-up that must happen before an object may go.

In: an object, and what to clean up. Out: the finalizer is there before it is needed and goes only when the clean-up
is done.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Generic

from agent_sandbox.kube import KubeClient, MergePatch, NotFoundError
from agent_sandbox_api.resource import Resource, V


class FinalizerState(StrEnum):
    """What ``Finalizer.ensure`` found and did."""

    ADDED = "added"
    PRESENT = "present"
    REMOVED = "removed"
    ABSENT = "absent"


class Finalizer(Generic[V]):
    """One finalizer of one kind.

    Flow:
        Call ``ensure`` first in each reconcile. ADDED or PRESENT: go on. REMOVED or ABSENT: the object goes, be done.
    Guarantees:
        The finalizer is written before ``ensure`` returns ADDED, so what is made afterwards is cleaned up. It is
        removed only after ``cleanup`` has returned.
    Assumptions:
        ``cleanup`` may be called again after it has succeeded: the removal of the finalizer may fail.
    Errors:
        An exception of ``cleanup``, terminal or not, keeps the finalizer: nothing outside leaks. ``ConflictError`` if
        the object changed meanwhile.
    """

    def __init__(
        self, client: KubeClient, resource: Resource[V], name: str, cleanup: Callable[[V], Awaitable[None]]
    ) -> None:
        self._client = client
        self._resource = resource
        self._name = name
        self._cleanup = cleanup

    async def ensure(self, view: V) -> FinalizerState:
        """Add the finalizer to a live object; clean up for a deleted one, and let it go."""
        metadata = view.metadata
        present = self._name in metadata.finalizers
        if not metadata.deleting:
            if present:
                return FinalizerState.PRESENT
            await self._write(view, [*metadata.finalizers, self._name])
            return FinalizerState.ADDED
        if not present:
            return FinalizerState.ABSENT
        await self._cleanup(view)
        try:
            await self._write(view, [name for name in metadata.finalizers if name != self._name])
        except NotFoundError:
            return FinalizerState.ABSENT
        return FinalizerState.REMOVED

    async def _write(self, view: V, finalizers: list[str]) -> None:
        metadata = view.metadata
        # Conditional on version and UID: a list is replaced whole, and must not lose somebody else's entry.
        change = {"resourceVersion": metadata.resource_version, "uid": metadata.uid, "finalizers": finalizers}
        patch = MergePatch({"metadata": change})
        await self._client.patch(self._resource, metadata.name, patch, metadata.namespace or None)
