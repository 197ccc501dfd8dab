"""The three ways to change part of an object, each with the media type that selects it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import msgspec

from agent_sandbox_api.meta import ApiModel

Body: TypeAlias = Mapping[str, Any] | ApiModel
"""An object to write: a mapping in wire form (camelCase), or one of our models."""


def wire(body: Body) -> Mapping[str, Any]:
    """The wire form of a body."""
    return body.to_json() if isinstance(body, ApiModel) else body


@dataclass(frozen=True)
class MergePatch:
    """RFC 7396: what is given replaces, ``None`` removes, lists are replaced whole.

    With ``metadata.resourceVersion`` or ``metadata.uid`` in the body the patch is conditional: it fails with a
    ``ConflictError`` if the object is another one or has changed.
    """

    content_type: ClassVar[str] = "application/merge-patch+json"
    body: Mapping[str, Any]

    def encode(self) -> bytes:
        """The request body."""
        return msgspec.json.encode(self.body)


@dataclass(frozen=True)
class JsonPatch:
    """RFC 6902: a list of operations; a failing ``test`` operation fails the whole patch."""

    content_type: ClassVar[str] = "application/json-patch+json"
    operations: Sequence[Mapping[str, Any]]

    def encode(self) -> bytes:
        """The request body."""
        return msgspec.json.encode(self.operations)


@dataclass(frozen=True)
class ApplyPatch:
    """Server-side apply: the body is everything that this field manager wants, and creates the object if needed.

    Attributes:
        body: the wanted fields; ``apiVersion`` and ``kind`` are filled in.
        force: take fields from other managers instead of failing with a ``ConflictError``.
    """

    content_type: ClassVar[str] = "application/apply-patch+yaml"
    body: Body
    force: bool = False

    def encode(self) -> bytes:
        """The request body; JSON is YAML."""
        return msgspec.json.encode(wire(self.body))


Patch: TypeAlias = MergePatch | JsonPatch | ApplyPatch
