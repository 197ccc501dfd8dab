"""One object at one revision, as bytes; it never changes."""

from functools import cached_property
from typing import Any, NamedTuple

import msgspec

_DECODER = msgspec.json.Decoder(dict[str, Any])


class Key(NamedTuple):
    """Where an object lives.

    Attributes:
        bucket: ``plural.group`` of the kind as it is stored; all versions of a kind share it.
        namespace: empty for cluster-wide kinds.
        name: the object's name.
    """

    bucket: str
    namespace: str
    name: str


class Stored:
    """One object at one revision: its JSON, with ``metadata.resourceVersion`` set."""

    def __init__(self, key: Key, revision: int, raw: bytes) -> None:
        self.key = key
        self.revision = revision
        self.raw = raw

    @classmethod
    def encode(cls, key: Key, revision: int, value: dict[str, Any]) -> "Stored":
        """Stamp the revision into the object and freeze it."""
        value["metadata"]["resourceVersion"] = str(revision)
        # People read this: what it is comes first.
        ordered = {"apiVersion": value["apiVersion"], "kind": value["kind"], "metadata": value["metadata"]} | value
        return cls(key, revision, msgspec.json.encode(ordered))

    def copy(self) -> dict[str, Any]:
        """The object decoded afresh: the caller may change it."""
        return _DECODER.decode(self.raw)

    @cached_property
    def value(self) -> dict[str, Any]:
        """The object decoded once and shared: never change it."""
        return _DECODER.decode(self.raw)

    @property
    def metadata(self) -> dict[str, Any]:
        """The object's metadata: never change it."""
        metadata: dict[str, Any] = self.value["metadata"]
        return metadata

    @property
    def uid(self) -> str:
        """The object's UID."""
        uid: str = self.metadata.get("uid", "")
        return uid
