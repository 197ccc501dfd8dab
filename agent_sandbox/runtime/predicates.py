"""Which changes are worth a reconcile. Predicates filter keys, not memory: to cache less, use selectors.

A predicate is a function from a change to a bool. New and deleted objects pass all of these.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from agent_sandbox.runtime.store import Change
from agent_sandbox_api.resource import V

Predicate: TypeAlias = Callable[[Change[V]], bool]


def generation_changed(change: Change[V]) -> bool:
    """The spec changed. Resyncs pass, or they would be of no use; writes to status and metadata do not."""
    if change.old is None or change.new is None or change.is_resync:
        return True
    return change.old.metadata.generation != change.new.metadata.generation or (
        change.old.metadata.deletion_timestamp != change.new.metadata.deletion_timestamp
    )


def labels_changed(change: Change[V]) -> bool:
    """The labels changed."""
    if change.old is None or change.new is None or change.is_resync:
        return True
    return change.old.metadata.labels != change.new.metadata.labels


def annotations_changed(change: Change[V]) -> bool:
    """The annotations changed."""
    if change.old is None or change.new is None or change.is_resync:
        return True
    return change.old.metadata.annotations != change.new.metadata.annotations


def not_own_status(change: Change[V]) -> bool:
    """All but a status write of this process. For the kind whose status only its own reconciler writes:
    what it has just computed and written needs no second look. A status that somebody else wrote passes.
    """
    if not change.own or change.old is None or change.new is None:
        return True
    old, new = change.old.metadata, change.new.metadata
    return msgspec.structs.replace(old, resource_version=new.resource_version) != new


def any_of(*predicates: Predicate[V]) -> Predicate[V]:
    """Passes what at least one of them passes."""
    return lambda change: any(predicate(change) for predicate in predicates)


def all_of(*predicates: Predicate[V]) -> Predicate[V]:
    """Passes what all of them pass."""
    return lambda change: all(predicate(change) for predicate in predicates)
