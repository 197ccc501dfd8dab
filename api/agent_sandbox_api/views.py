"""The lean form in which caches keep objects: msgspec structs decoded once from the wire.

A view carries the metadata and only those parts of spec and status that somebody reads; managedFields never enter
memory. Views are values: never change one, ask the server to. What a view does not decode stays as raw JSON
(``msgspec.Raw``) or is dropped, as its class says.
"""

import sys
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol, get_args, get_type_hints

import msgspec


class OwnerReferenceView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """One entry of ``metadata.ownerReferences``."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False

    @property
    def group(self) -> str:
        """The API group, without the version; owners are compared by group, kind and UID."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""


class MetaView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """``metadata`` without managedFields."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReferenceView, ...] = ()
    finalizers: tuple[str, ...] = ()
    generate_name: str = ""

    @property
    def controller(self) -> OwnerReferenceView | None:
        """The owner that manages this object, if one does."""
        for reference in self.owner_references:
            if reference.controller:
                return reference
        return None

    @property
    def deleting(self) -> bool:
        """True once a delete was accepted and the object waits for finalizers or its grace period."""
        return self.deletion_timestamp is not None


class ConditionView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """One condition; Pods lack some of the fields that ``metav1.Condition`` requires."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    observed_generation: int | None = None


class View(Protocol):
    """Anything that a cache can keep: it has metadata."""

    @property
    def metadata(self) -> MetaView:
        """The object's metadata."""


def find_condition(conditions: "tuple[ConditionView, ...]", kind: str) -> ConditionView | None:
    """The condition of that type, or None."""
    for condition in conditions:
        if condition.type == kind:
            return condition
    return None


def is_condition_true(conditions: "tuple[ConditionView, ...]", kind: str) -> bool:
    """True if a condition of that type exists and holds."""
    condition = find_condition(conditions, kind)
    return condition is not None and condition.status == "True"


def key_of(view: View) -> tuple[str, str]:
    """The (namespace, name) under which a view is cached; the namespace is empty for cluster-wide kinds."""
    return (view.metadata.namespace, view.metadata.name)


def raw_object(raw: msgspec.Raw | None) -> dict[str, Any]:
    """Decode a part that a view kept raw; an absent part is an empty object."""
    if raw is None or not bytes(raw):
        return {}
    decoded: dict[str, Any] = msgspec.json.decode(raw)
    return decoded


def raw_fields(view: type) -> Iterator[tuple[str, ...]]:
    """Attribute paths, through nested structs, of a view's ``msgspec.Raw`` fields."""
    for name, hint in get_type_hints(view).items():
        for kind in (hint, *get_args(hint)):
            if kind is msgspec.Raw:
                yield (name,)
            elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is hint:
                for path in raw_fields(kind):
                    yield (name, *path)


def detach_raw(view: Any, path: tuple[str, ...]) -> None:
    """Make a raw part own its bytes; as decoded it is a slice that keeps the whole received buffer alive.

    Equal parts share theirs: the members of a pool have one spec. Only for a view that was just decoded and that nobody
    else has seen: it is changed in place.
    """
    for name in path[:-1]:
        view = getattr(view, name)
    raw: msgspec.Raw | None = getattr(view, path[-1])
    if raw is not None:
        msgspec.structs.force_setattr(view, path[-1], _shared(bytes(raw)))


@lru_cache(maxsize=512)
def _shared(data: bytes) -> msgspec.Raw:
    return msgspec.Raw(data)


def share_keys(metadata: MetaView) -> None:
    """Let the keys of labels and annotations be the same strings in all objects: they are a tenth of a small view.

    Only for metadata that was just decoded and that nobody else has seen: it is changed in place.
    """
    for part in ("labels", "annotations"):
        known: dict[str, str] = getattr(metadata, part)
        if known:
            msgspec.structs.force_setattr(metadata, part, {sys.intern(key): value for key, value in known.items()})


def without_nulls(tree: Any, view: type) -> Any:
    """A JSON object without the members that are ``null``, as deep as the view decodes; raw parts stay as they are."""
    if not isinstance(tree, dict):
        return tree
    nested = {
        field.encode_name: kind
        for field in msgspec.structs.fields(view)
        for kind in (field.type, *get_args(field.type))
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }
    return {
        key: (
            [without_nulls(entry, nested[key]) for entry in value]
            if key in nested and isinstance(value, list)
            else without_nulls(value, nested[key])
            if key in nested
            else value
        )
        for key, value in tree.items()
        if value is not None
    }
