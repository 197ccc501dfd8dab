"""Where keys come from: a kind, a filter, and a mapping from its changes to the keys that they concern."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from agent_sandbox.runtime.predicates import Predicate
from agent_sandbox.runtime.reconcile import Request
from agent_sandbox.runtime.store import Change
from agent_sandbox_api.resource import Resource, V

Mapper: TypeAlias = Callable[[Change[V]], Iterable[Request]]


@dataclass(frozen=True)
class Source(Generic[V]):
    """One watched kind of a controller.

    Attributes:
        resource: the kind.
        mapper: makes keys of its changes.
        predicate: which changes count; all if None.
        label_selector: only matching objects.
        field_selector: only matching objects.
        pause: seconds by which the keys are held back, so that many changes make one reconcile.
    """

    resource: Resource[V]
    mapper: Mapper[V]
    predicate: Predicate[V] | None = None
    label_selector: str = ""
    field_selector: str = ""
    pause: float = 0.0

    def requests(self, change: Change[V]) -> Iterable[Request]:
        """The keys that a change concerns."""
        if self.predicate is not None and not self.predicate(change):
            return ()
        return self.mapper(change)


def own_key(change: Change[Any]) -> Iterable[Request]:
    """The object itself."""
    metadata = change.object.metadata
    return (Request(metadata.namespace, metadata.name),)


def owner_key(owner: Resource[Any], *, controller_only: bool = True) -> Mapper[Any]:
    """The owner of that group and kind, before and after the change: an object that changes hands concerns both.

    Owners are compared by group and kind, not by version: a new version of the same kind is the same owner.
    """

    def requests(change: Change[Any]) -> Iterable[Request]:
        keys: dict[Request, None] = {}
        for metadata in (view.metadata for view in (change.old, change.new) if view is not None):
            for reference in metadata.owner_references:
                if (reference.group, reference.kind) != (owner.group, owner.kind):
                    continue
                if reference.controller or not controller_only:
                    keys[Request(metadata.namespace if owner.namespaced else "", reference.name)] = None
        return keys

    return requests
