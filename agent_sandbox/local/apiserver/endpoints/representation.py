"""In which form a client wants to see objects: as they are, as a table, or as metadata only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from agent_sandbox.local.apiserver.errors import NotAcceptableError
from agent_sandbox.local.apiserver.http import JSON, ApiRequest, ApiResponse, parse_accept
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.storage import Stored
from agent_sandbox.local.apiserver.table import make_table, partial_metadata

_ACCEPTED = ("application/json", "application/yaml")
_META_VERSIONS = frozenset({"v1", "v1beta1"})


@dataclass(frozen=True)
class Representation:
    """The form of the answer.

    Attributes:
        shape: ``Object``, ``Table`` or ``PartialObjectMetadata``.
        include: what the rows of a table carry of their objects.
    """

    shape: str = "Object"
    include: str = "Metadata"
    content_type: str = JSON

    @classmethod
    def of(cls, request: ApiRequest) -> "Representation":
        """Choose by the ``Accept`` header.

        Raises:
            NotAcceptableError: the client accepts nothing that is served.
        """
        accepted = parse_accept(request.headers.get("accept", ""))
        include = request.parameter("includeObject", "Metadata") or "Metadata"
        for media, parameters in accepted:
            if media not in {"application/json", "application/*", "*/*", "application/yaml"}:
                continue
            shape = parameters.get("as", "Object")
            if shape == "Object":
                return cls("Object", include)
            shape = shape.removesuffix("List") if shape == "PartialObjectMetadataList" else shape
            known = shape in {"Table", "PartialObjectMetadata"} and parameters.get("g") == "meta.k8s.io"
            if known and parameters.get("v") in _META_VERSIONS:
                return cls(shape, include)
        if not accepted:
            return cls("Object", include)
        raise NotAcceptableError(_ACCEPTED)

    def one(self, resource: ResourceType, value: JsonObject, now: datetime) -> JsonObject:
        """One object in this form."""
        match self.shape:
            case "Table":
                metadata = {"resourceVersion": value["metadata"].get("resourceVersion", "")}
                return make_table(resource, [value], now, list_metadata=metadata, include=self.include)
            case "PartialObjectMetadata":
                return partial_metadata(value)
            case _:
                return value

    def answer(self, resource: ResourceType, value: JsonObject, now: datetime, status: int = 200) -> ApiResponse:
        """The HTTP answer of one object in this form."""
        return ApiResponse.json(self.one(resource, value, now), status)

    def many(
        self, resource: ResourceType, objects: Iterable[Stored], list_metadata: JsonObject, now: datetime
    ) -> ApiResponse:
        """The HTTP answer of a list in this form."""
        if self.shape == "Table":
            values = [served_value(resource, stored) for stored in objects]
            return ApiResponse.json(
                make_table(resource, values, now, list_metadata=list_metadata, include=self.include)
            )
        if self.shape == "PartialObjectMetadata":
            items = [partial_metadata(stored.value) for stored in objects]
            partial: JsonObject = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return ApiResponse.json({**partial, "metadata": list_metadata, "items": items})
        head: JsonObject = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": list_metadata}
        # The objects are JSON already: join them instead of decoding and encoding each.
        parts = b",".join(served_raw(resource, stored) for stored in objects)
        return ApiResponse.raw(msgspec.json.encode(head)[:-1] + b',"items":[' + parts + b"]}")


def served_value(resource: ResourceType, stored: Stored) -> JsonObject:
    """A stored object in the served version; shared, never change it."""
    return resource.conversion.to_served(stored.value) if resource.conversion else stored.value


def served_raw(resource: ResourceType, stored: Stored) -> bytes:
    """A stored object's JSON in the served version."""
    if resource.conversion is None:
        return stored.raw
    return msgspec.json.encode(resource.conversion.to_served(stored.value))
