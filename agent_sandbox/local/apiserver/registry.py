"""Which kinds are served right now: the built-in ones and those of established CustomResourceDefinitions."""

from collections.abc import Iterable

import structlog

from agent_sandbox.local.apiserver.builtin import BUILTIN_KINDS
from agent_sandbox.local.apiserver.custom import CUSTOM_RESOURCE_DEFINITIONS, kinds_of
from agent_sandbox.local.apiserver.resource_type import ResourceType
from agent_sandbox.local.apiserver.storage import Key, ObjectStore, Stored

_log = structlog.get_logger(__name__)


class Registry:
    """Finds kinds; follows the store's definitions by itself."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._builtin = {(kind.group, kind.version, kind.plural): kind for kind in BUILTIN_KINDS}
        self._custom: dict[tuple[str, str, str], ResourceType] = {}
        self._compiled: dict[str, tuple[int, list[ResourceType]]] = {}
        self._seen = -1
        self.generation = 0
        """Counts changes of the set of kinds; whoever caches something derived compares it."""

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        """The kind at a path, or None."""
        found = self._builtin.get((group, version, plural))
        if found is not None:
            return found
        self._refresh()
        return self._custom.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> ResourceType | None:
        """The kind of an object by its apiVersion and kind, or None."""
        return next((entry for entry in self.all() if entry.kind == kind and entry.api_version == api_version), None)

    def by_group_kind(self, group: str, kind: str) -> ResourceType | None:
        """The stored version of a kind, or any other version of it, or None."""
        served = [entry for entry in self.all() if entry.group_kind == (group, kind)]
        return next((entry for entry in served if entry.conversion is None), served[0] if served else None)

    def by_bucket(self, bucket: str) -> ResourceType | None:
        """The kind under whose version a bucket's objects are stored, or None."""
        return next((kind for kind in self.storage_kinds() if kind.bucket == bucket), None)

    def all(self) -> list[ResourceType]:
        """Every served kind in every version, built-in ones first."""
        self._refresh()
        return [*self._builtin.values(), *self._custom.values()]

    def storage_kinds(self) -> Iterable[ResourceType]:
        """One kind per bucket: the version under which its objects are stored."""
        by_bucket: dict[str, ResourceType] = {}
        for kind in self.all():
            if "list" not in kind.verbs:
                continue
            if kind.bucket not in by_bucket or kind.conversion is None:
                by_bucket[kind.bucket] = kind
        return by_bucket.values()

    def definition_key(self, name: str) -> Key:
        """Where a CustomResourceDefinition is kept."""
        return Key(CUSTOM_RESOURCE_DEFINITIONS.bucket, "", name)

    def _refresh(self) -> None:
        bucket = CUSTOM_RESOURCE_DEFINITIONS.bucket
        end = self._store.history(bucket).end
        if end == self._seen:
            return
        self._seen = end
        self.generation += 1
        compiled = {}
        for stored in self._store.objects(bucket):
            known = self._compiled.get(stored.key.name)
            if known is None or known[0] != stored.revision:
                known = (stored.revision, _kinds_of(stored))
            compiled[stored.key.name] = known
        self._compiled = compiled
        # Discovery lists groups in this order, and kubectl prints categories in it: by name, as Kubernetes does.
        served = sorted((kind for _, kinds in compiled.values() for kind in kinds), key=lambda kind: kind.group)
        self._custom = {(kind.group, kind.version, kind.plural): kind for kind in served}


def _kinds_of(definition: Stored) -> list[ResourceType]:
    """The kinds of a definition; none of one that cannot be served, which must not keep all others from being."""
    try:
        return kinds_of(definition.copy())
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
        _log.error("a CustomResourceDefinition cannot be served", name=definition.key.name, error=repr(error))
        return []
