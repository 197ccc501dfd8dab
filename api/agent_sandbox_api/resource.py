"""Where a kind lives in an API server, and which view its objects decode into."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import msgspec

from agent_sandbox_api.views import View

V = TypeVar("V", bound=View)


class ListMetaView(msgspec.Struct, rename="camel", frozen=True):
    """``metadata`` of a list."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


@dataclass(frozen=True)
class Resource(Generic[V]):
    """A kind as an API server serves it.

    Attributes:
        group: API group; empty for the core group.
        version: served version.
        plural: the path segment, for example ``sandboxes``.
        kind: the CamelCase name, for example ``Sandbox``.
        view: the view that its objects decode into.
        namespaced: False for cluster-wide kinds.
    """

    group: str
    version: str
    plural: str
    kind: str
    view: type[V] = field(repr=False)
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or the bare version in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of one object, or of one of its subresources."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)

    @cached_property
    def decoder(self) -> "msgspec.json.Decoder[V]":
        """Decodes one object of this kind from JSON bytes."""
        return msgspec.json.Decoder(self.view)

    def decode(self, data: bytes | msgspec.Raw) -> V:
        """Decode one object.

        Raises:
            msgspec.ValidationError: the JSON is not an object of this shape.
        """
        return self.decoder.decode(data)
