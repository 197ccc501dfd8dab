"""A kind as this server serves it: where it lives, what its objects look like, and what happens on their way in.

Built-in kinds are declared in ``builtin``; CustomResourceDefinitions turn into the same values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.http import UserInfo

if TYPE_CHECKING:
    from agent_sandbox.local.apiserver.schema import Schema

JsonObject = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``.

    Attributes:
        name: the heading.
        read: gives the cell from an object; returns text, a number, a boolean or None.
        type: ``string``, ``integer``, ``date``...
        format: ``name`` for the name column.
        description: what the column shows.
        priority: 0 is always shown, others only with ``-o wide``.
        relative: True if the cell is a time to show as an age.
    """

    name: str
    read: Callable[[JsonObject], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    relative: bool = False


@dataclass(frozen=True)
class WriteContext:
    """What a strategy may know beside the object.

    Attributes:
        now: RFC 3339 time of the request.
        user: who writes.
    """

    now: str
    user: UserInfo


def _nothing(_value: JsonObject) -> None:
    return


def _nothing_on_create(_value: JsonObject, _context: WriteContext) -> None:
    return


def _nothing_on_update(_value: JsonObject, _old: JsonObject, _context: WriteContext) -> None:
    return


def _no_causes(_value: JsonObject, _old: JsonObject | None) -> list[Cause]:
    return []


def _no_schema() -> None:
    return None


def _no_grace(_value: JsonObject, _asked: int | None) -> int | None:
    return None


@dataclass(frozen=True)
class Strategy:
    """What is particular about a kind when it is written.

    Attributes:
        name_causes: what is wrong with a name; the default rule is a DNS subdomain.
        default: fills in defaults, in place.
        prepare_create: sets what the server owns in a new object (status, addresses), in place.
        prepare_update: keeps what the server owns, in place.
        validate: lists what is wrong; ``old`` is None on create.
        grace_seconds: seconds between a delete and the end, given what the client asked for; None for kinds that end
            at once, unmarked.
        prepare_delete: changes an object whose deletion begins, in place.
        unconditional_update: whether a PUT without resourceVersion is allowed.
        generation: whether ``metadata.generation`` counts changes outside metadata and status.
        returns_deleted: whether a delete answers with the object instead of a Status.
    """

    name_causes: Callable[[str], Sequence[str]] | None = None
    default: Callable[[JsonObject], None] = _nothing
    prepare_create: Callable[[JsonObject, WriteContext], None] = _nothing_on_create
    prepare_update: Callable[[JsonObject, JsonObject, WriteContext], None] = _nothing_on_update
    validate: Callable[[JsonObject, JsonObject | None], list[Cause]] = _no_causes
    grace_seconds: Callable[[JsonObject, int | None], int | None] = _no_grace
    prepare_delete: Callable[[JsonObject], None] = _nothing
    unconditional_update: bool = True
    generation: bool = False
    returns_deleted: bool = False


@dataclass(frozen=True)
class ScalePaths:
    """Where a kind keeps its replica counts, as dotted JSON paths."""

    spec: str
    status: str
    selector: str = ""


@dataclass(frozen=True)
class Conversion:
    """How the served form of an object differs from the stored one, for kinds that share a bucket."""

    to_stored: Callable[[JsonObject], JsonObject]
    to_served: Callable[[JsonObject], JsonObject]


@dataclass(frozen=True)
class ResourceType:
    """One served kind in one version.

    Attributes:
        bucket: where its objects are kept; versions and aliases of a kind share it.
        storage_api_version: the apiVersion under which objects are stored.
        field_selectors: selectable field -> how to read it; name and namespace are always selectable.
        conversion: set when the served form is not the stored one.
        load_schema: gives the structural schema; it is asked for when the first object is written.
        custom: True for kinds defined by a CustomResourceDefinition.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: frozenset[str] = frozenset()
    strategy: Strategy = field(default_factory=Strategy)
    columns: tuple[Column, ...] = ()
    field_selectors: Mapping[str, Callable[[JsonObject], str]] = field(default_factory=dict)
    bucket: str = ""
    storage_api_version: str = ""
    conversion: Conversion | None = None
    load_schema: "Callable[[], Schema | None]" = _no_schema
    scale: ScalePaths | None = None
    custom: bool = False

    def __post_init__(self) -> None:
        fill = object.__setattr__
        if not self.singular:
            fill(self, "singular", self.kind.lower())
        if not self.list_kind:
            fill(self, "list_kind", self.kind + "List")
        if not self.bucket:
            fill(self, "bucket", f"{self.plural}.{self.group}" if self.group else self.plural)
        if not self.storage_api_version:
            fill(self, "storage_api_version", self.api_version)

    @property
    def schema(self) -> "Schema | None":
        """The structural schema; None leaves objects as they came."""
        return self.load_schema()

    @property
    def api_version(self) -> str:
        """``group/version``, or the bare version in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> tuple[str, str]:
        """Group and kind, by which owners are compared."""
        return (self.group, self.kind)

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own subresource only."""
        return "status" in self.subresources
