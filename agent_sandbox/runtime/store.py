"""What an informer knows: objects by key and by index, read by everybody, written by one.

``StoreWriter`` merges three sources that arrive in any order: lists, watch events, and the answers to this process's
own writes. Its rule is one sentence: the newest resourceVersion of the newest object of a name wins, and what was
deleted does not come back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias

from agent_sandbox.clock import Clock
from agent_sandbox_api.resource import V
from agent_sandbox_api.views import View, key_of

Key: TypeAlias = tuple[str, str]
"""(namespace, name)"""

IndexFunction: TypeAlias = Callable[[V], Iterable[str]]

TOMBSTONE_LIFETIME: Final = 600.0
"""Seconds after which a tombstone is dropped even if no watch confirmed the delete: longer than any watch lives."""


@dataclass(frozen=True, slots=True)
class Change(Generic[V]):
    """One step of one object, as handlers see it.

    Attributes:
        old: what the store held before; None if it is new here.
        new: what it holds now; None if it is gone.
        initial: part of what existed when the store was first filled (or the handler was added).
        own: made by a write of this process: whoever wrote it knows it already. What others changed meanwhile may come
            with it, unless the write was conditional.
    """

    old: V | None
    new: V | None
    initial: bool = False
    own: bool = False

    @property
    def object(self) -> V:
        """The object now, or its last known state if it is gone."""
        view = self.new if self.new is not None else self.old
        assert view is not None, "a change without any object"
        return view

    @property
    def is_resync(self) -> bool:
        """True if nothing changed and the object is only shown again."""
        return self.old is self.new


class _Index(Generic[V]):
    """One index. Invariant: ``entries[value]`` holds key → view exactly for the stored views that ``function`` maps
    to it.
    """

    def __init__(self, function: IndexFunction[V]) -> None:
        self.function = function
        self.entries: dict[str, dict[Key, V]] = {}
        self._values: dict[Key, tuple[str, ...]] = {}

    def put(self, key: Key, view: V) -> None:
        values = tuple(self.function(view))
        if (before := self._values.get(key)) is not None and before != values:
            self.drop(key)
        if values:
            self._values[key] = values
        for value in values:
            self.entries.setdefault(value, {})[key] = view

    def drop(self, key: Key) -> None:
        for value in self._values.pop(key, ()):
            bucket = self.entries[value]
            bucket.pop(key, None)
            if not bucket:
                del self.entries[value]


class Store(Generic[V]):
    """The objects of one informer, read-only.

    Views are values shared by all readers: never change one. Reading never waits; before the informer is synced the
    store is incomplete.
    """

    def __init__(self) -> None:
        self._objects: dict[Key, V] = {}
        self._indexes: dict[str, _Index[V]] = {}

    def get(self, namespace: str, name: str) -> V | None:
        """The object of that name; the namespace is empty for cluster-wide kinds."""
        return self._objects.get((namespace, name))

    def by_index(self, index: str, value: str) -> list[V]:
        """The objects that the index maps to that value.

        Raises:
            KeyError: no index of that name was added to the informer.
        """
        if index not in self._indexes:
            raise KeyError(f"no index {index!r}; this store has {sorted(self._indexes)}")
        return [*self._indexes[index].entries.get(value, {}).values()]

    def index_values(self, index: str) -> list[str]:
        """All values that have at least one object in the index."""
        return [*self._indexes[index].entries]

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[V]:
        return iter([*self._objects.values()])

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    # Last, because below it `list` means this method.

    def list(self, namespace: str | None = None, selector: Mapping[str, str] | None = None) -> list[V]:
        """All objects, or those of one namespace, or those that carry all of these labels.

        Looks at every object: for what a reconcile asks each time, add an index.
        """
        wanted = selector.items() if selector else ()
        return [
            view
            for (where, _), view in self._objects.items()
            if (namespace is None or where == namespace)
            and all(view.metadata.labels.get(key) == value for key, value in wanted)
        ]


@dataclass(frozen=True, slots=True)
class _Tombstone:
    """Versions of this UID up to ``floor`` must not enter the store; None: no version at all, it was deleted."""

    floor: int | None
    laid: float


class StoreWriter(Generic[V]):
    """The one who writes a store.

    Flow:
        ``replace`` after a list; ``apply`` and ``remove`` for watch events; ``remember`` and ``bury`` for own writes.
        Each returns the changes that it made, for handlers.
    Guarantees:
        An object in the store is never replaced by an older version of itself or by its predecessor of the same name.
        What was removed by an own delete, or by a watch event that already passed, is not brought back by a late
        answer.
    Assumptions:
        Events of one scope arrive in the order of their resourceVersions, and these compare as integers, as
        Kubernetes promises since 1.35 and always did. Versions that are no integers are taken as they come.
    """

    def __init__(self, *, clock: Clock, admits: Callable[[V], bool] | None = None, admits_unknown: bool = True) -> None:
        """
        Args:
            clock: ages tombstones.
            admits: whether an own write still belongs here, as the informer's label selector says.
            admits_unknown: False if a field selector forbids to judge objects that the watch has not shown.
        """
        self.store: Store[V] = Store()
        self._clock = clock
        self._admits = admits
        self._admits_unknown = admits_unknown
        # By scope (a namespace, or "" for all): every change up to this version has been seen. Never falls.
        self._progress: dict[str, int] = {}
        # By UID, never by name: a name may come back, a UID does not.
        self._tombstones: dict[str, _Tombstone] = {}
        # By name: the version of the object that an own delete took out. Older news of that name is of its
        # predecessors.
        self._floors: dict[Key, int] = {}

    def add_index(self, name: str, function: IndexFunction[V]) -> None:
        """Keep an index from now on, over what is stored already as well.

        Raises:
            ValueError: the name is taken by another function.
        """
        known = self.store._indexes.get(name)  # noqa: SLF001 - the writer is the store's other half
        if known is not None and known.function is not function:
            raise ValueError(f"there is an index {name!r} with another function")
        if known is None:
            index = self.store._indexes[name] = _Index(function)  # noqa: SLF001
            for key, view in self.store._objects.items():  # noqa: SLF001
                index.put(key, view)

    # From the server

    def replace(self, scope: str, views: Sequence[V], resource_version: str, *, began: float) -> list[Change[V]]:
        """The server's whole list of a scope, asked for at ``began`` (monotonic)."""
        listed = {view.metadata.uid for view in views}
        version = parse_version(resource_version)
        for uid, stone in list(self._tombstones.items()):
            if uid not in listed and stone.laid < began:
                del self._tombstones[uid]
        # What the list shows but we have deleted since does not stand for its name: a predecessor must go as well.
        present = {key_of(view) for view in views if not self._is_buried(view)}
        changes = [
            self._take_out(key)
            for key, view in list(self.store._objects.items())  # noqa: SLF001
            if key not in present and scope in ("", key[0]) and not _is_newer(view, version)
        ]
        changes += [change for view in views for change in self._put_if_newer(view)]
        self.advance(scope, resource_version)
        return changes

    def apply(self, scope: str, view: V) -> list[Change[V]]:
        """The watch says: this is the object now."""
        if self._is_repeated(scope, view):
            return []
        self.advance(scope, view.metadata.resource_version)
        return self._put_if_newer(view)

    def remove(self, scope: str, view: V) -> list[Change[V]]:
        """The watch says: the object was deleted, or left the selector, in this last state."""
        if self._is_repeated(scope, view):
            return []
        self.advance(scope, view.metadata.resource_version)
        self._tombstones.pop(view.metadata.uid, None)
        known = self.store.get(*key_of(view))
        if known is None or _is_newer(known, parse_version(view.metadata.resource_version)):
            return []
        return [self._take_out(key_of(view))]

    def _is_repeated(self, scope: str, view: V) -> bool:
        """True for an event that was delivered before: it must not bring back what was deleted since."""
        version = parse_version(view.metadata.resource_version)
        return version is not None and version <= self._progress.get(scope, 0)

    def advance(self, scope: str, resource_version: str) -> None:
        """Every change of the scope up to this version has been seen."""
        version = parse_version(resource_version)
        if version is not None:
            self._progress[scope] = max(version, self._progress.get(scope, 0))

    @property
    def progress(self) -> int:
        """The version up to which every scope has been seen; 0 before the first list."""
        return min(self._progress.values(), default=0)

    # From this process's own writes

    def remember(self, view: V) -> list[Change[V]]:
        """An own write was answered with this object."""
        version = parse_version(view.metadata.resource_version)
        if version is None or version <= self._seen_in(view.metadata.namespace):
            return []  # the watch has passed it: the store holds this, something newer, or rightly nothing
        known = self.store.get(*key_of(view))
        if self._admits is not None and not self._admits(view):
            self._tombstones[view.metadata.uid] = _Tombstone(version, self._clock.monotonic())
            gone = known is not None and known.metadata.uid == view.metadata.uid
            return [self._take_out(key_of(view))] if gone else []
        if known is None and not self._admits_unknown:
            return []
        return self._put_if_newer(view)

    def bury(self, namespace: str, name: str, uid: str) -> list[Change[V]]:
        """An own delete was answered: the object of this UID is gone."""
        self._forget_old_graves()
        self._tombstones[uid] = _Tombstone(None, self._clock.monotonic())
        known = self.store.get(namespace, name)
        if known is None or known.metadata.uid != uid:
            return []
        self._floors[namespace, name] = parse_version(known.metadata.resource_version) or 0
        return [self._take_out((namespace, name))]

    def _forget_old_graves(self) -> None:
        now = self._clock.monotonic()
        for uid, stone in list(self._tombstones.items()):
            if now - stone.laid > TOMBSTONE_LIFETIME:
                del self._tombstones[uid]
        for key, floor in list(self._floors.items()):
            if floor <= self._seen_in(key[0]):
                del self._floors[key]

    def _seen_in(self, namespace: str) -> int:
        return max(self._progress.get(namespace, 0), self._progress.get("", 0))

    # Inside

    def _put_if_newer(self, view: V) -> list[Change[V]]:
        if self._is_buried(view):
            return []
        self._tombstones.pop(view.metadata.uid, None)
        key, version = key_of(view), parse_version(view.metadata.resource_version)
        known = self.store.get(*key)
        if known is not None:
            same = known.metadata.resource_version == view.metadata.resource_version
            if same or _is_newer(known, version):
                return []
        self.store._objects[key] = view  # noqa: SLF001
        for index in self.store._indexes.values():  # noqa: SLF001
            index.put(key, view)
        return [Change(known, view)]

    def _is_buried(self, view: V) -> bool:
        """True if this version of this object, or its whole name at this version, is known to be gone."""
        version = parse_version(view.metadata.resource_version)
        stone = self._tombstones.get(view.metadata.uid)
        if stone is not None and (stone.floor is None or (version is not None and version <= stone.floor)):
            return True
        return version is not None and version <= self._floors.get(key_of(view), 0)

    def _take_out(self, key: Key) -> Change[V]:
        view = self.store._objects.pop(key)  # noqa: SLF001
        for index in self.store._indexes.values():  # noqa: SLF001
            index.drop(key)
        return Change(view, None)


def parse_version(text: str) -> int | None:
    """A resourceVersion as the integer that it is, or None."""
    return int(text) if text.isdecimal() else None


def _is_newer(view: View, version: int | None) -> bool:
    own = parse_version(view.metadata.resource_version)
    return own is not None and version is not None and own > version
