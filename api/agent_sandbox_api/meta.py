"""What every Kubernetes object has: pydantic models of metadata, conditions and selectors.

Unknown fields are kept: a newer server's field survives a read-modify-write through these models.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel


def format_time(moment: datetime) -> str:
    """Write a moment as Kubernetes does: RFC 3339, UTC, whole seconds, ``Z``."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _require_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone: write it as RFC 3339, for example 2026-01-31T12:00:00Z")
    return moment


Time = Annotated[datetime, AfterValidator(_require_zone), PlainSerializer(format_time, return_type=str)]
"""A moment with a zone; serialised as RFC 3339 in UTC with whole seconds, as ``metav1.Time``."""

JsonObject = dict[str, Any]
"""A JSON object kept as it came, for example a PodSpec: its schema belongs to Kubernetes, not to us."""


class ApiModel(BaseModel):
    """Base of all models: camelCase on the wire, snake_case in Python, unknown fields kept."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", use_enum_values=True)

    def to_json(self) -> JsonObject:
        """The wire form: camelCase keys, without fields that are unset or ``None``."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(ApiModel):
    """Names an object that owns this one; the garbage collector deletes the dependant after its owners."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(ApiModel):
    """Standard object metadata."""

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None


class Condition(ApiModel):
    """One aspect of an object's state, in the form of metav1.Condition."""

    type: str = Field(description="The aspect, in CamelCase, for example Ready.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the aspect holds.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="The metadata.generation that this condition was computed from."
    )
    last_transition_time: Time = Field(description="When the status last changed.")
    reason: str = Field(min_length=1, max_length=1024, description="Why, as one CamelCase word for programs.")
    message: str = Field(default="", max_length=32768, description="Why and what to do, as a sentence for people.")


Conditions = Annotated[
    list[Condition],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
"""Conditions of an object, at most one of each type."""


class LabelSelector(ApiModel):
    """Selects objects by their labels; both parts must hold."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[JsonObject] | None = None


class KubeModel(ApiModel):
    """Base of a whole object: its kind, its metadata and, in subclasses, spec and status."""

    api_version: str
    kind: str
    metadata: ObjectMeta

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read an object from JSON text.

        Raises:
            pydantic.ValidationError: the text is not such an object; the error names the fields.
        """
        return cls.model_validate_json(data)


class EmbeddedMetadata(ApiModel):
    """The labels and annotations that a template gives to what is made from it."""

    labels: dict[str, str] | None = Field(default=None, description="Labels of what is made from this.")
    annotations: dict[str, str] | None = Field(default=None, description="Annotations of what is made from this.")
