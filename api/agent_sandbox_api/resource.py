"""Where a kind lives in an API server, and which view its objects decode into."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from agent_sandbox_api.views import View, detach_raw, raw_fields, share_keys, without_nulls

V = TypeVar("V", bound=View)


class ListMetaView(msgspec.Struct, rename="camel", frozen=True):
    """``metadata`` of a list."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


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
        """Decodes one object of this kind from JSON bytes. Most readers want ``decode``, which also tidies up."""
        return msgspec.json.Decoder(self.view)

    @cached_property
    def raw_paths(self) -> tuple[tuple[str, ...], ...]:
        """Attribute paths of the parts that the view keeps as raw JSON."""
        return tuple(raw_fields(self.view))

    def decode(self, data: bytes | msgspec.Raw) -> V:
        """Decode one object.

        The view owns its memory: raw parts are copied out of ``data``, which may be a whole page of a list. Fields
        that are ``null``, as some servers and clients write empty lists and maps, count as absent.

        Raises:
            msgspec.ValidationError: the JSON is not an object of this shape.
        """
        try:
            view = self.decoder.decode(data)
        except msgspec.ValidationError:
            view = self.decoder.decode(self._cleaned(data))
        for path in self.raw_paths:
            detach_raw(view, path)
        share_keys(view.metadata)
        return view

    def decode_list(
        self, data: bytes, on_error: Callable[[msgspec.ValidationError, msgspec.Raw], None] | None = None
    ) -> tuple[list[V], ListMetaView]:
        """Decode a list, or one page of it, into its objects and its metadata.

        Args:
            data: the list.
            on_error: told of each object that is not of this shape, which is then left out.

        Raises:
            msgspec.ValidationError: the JSON is no list or, without ``on_error``, an object is not of this shape.
        """
        page = _page_decoder.decode(data)
        views: list[V] = []
        for item in page.items or ():
            try:
                views.append(self.decode(item))
            except msgspec.ValidationError as error:
                if on_error is None:
                    raise
                on_error(error, item)
        return views, page.metadata

    def _cleaned(self, data: bytes | msgspec.Raw) -> bytes:
        tree: Any = msgspec.json.decode(data)
        return msgspec.json.encode(without_nulls(tree, self.view))


class _Page(msgspec.Struct):
    items: list[msgspec.Raw] | None = None
    metadata: ListMetaView = ListMetaView()


_page_decoder = msgspec.json.Decoder(_Page)
