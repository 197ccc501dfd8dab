"""CEL rules that API servers check for us, written beside the fields they guard.

A rule costs the API server time: lists and strings that a rule walks over need an upper bound in the schema.
"""

from typing import Any, Final

MAX_VOLUME_CLAIM_TEMPLATES: Final = 64
"""Upper bound of a list of volume claim templates; it bounds the cost of the rules over it."""

DNS_LABEL: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """Extra JSON schema for a model: the CEL rules that its objects obey."""
    return {"x-kubernetes-validations": list(rules)}


def rule(expression: str, message: str, field_path: str | None = None) -> dict[str, str]:
    """One CEL rule; ``field_path`` is the field that the refusal names, relative to the object of the rule."""
    found = {"rule": expression, "message": message}
    if field_path is not None:
        found["fieldPath"] = field_path
    return found


VOLUME_CLAIM_TEMPLATES_ARE_IMMUTABLE: Final = rule(
    "has(self.volumeClaimTemplates) == has(oldSelf.volumeClaimTemplates) && "
    "(!has(self.volumeClaimTemplates) || self.volumeClaimTemplates == oldSelf.volumeClaimTemplates)",
    "volumeClaimTemplates is immutable: create a new object instead",
    ".volumeClaimTemplates",
)

VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE: Final = rule(
    "!has(self.volumeClaimTemplates) || self.volumeClaimTemplates.all(t, "
    "self.volumeClaimTemplates.exists_one(u, u.metadata.name == t.metadata.name))",
    "volumeClaimTemplates need metadata.name, each a different one",
    ".volumeClaimTemplates",
)

VOLUME_CLAIMS_HAVE_ROOM_FOR_THEIR_NAME: Final = rule(
    "!has(self.spec.volumeClaimTemplates) || self.spec.volumeClaimTemplates.all(t, "
    "size(t.metadata.name) + size(self.metadata.name) <= 252)",
    "is too long: a PersistentVolumeClaim is called <template>-<name>, at most 253 characters",
    ".metadata.name",
)

NAME_CAN_BE_A_SERVICE: Final = rule(
    "(has(self.spec.service) && !self.spec.service) || "
    "(size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
    "cannot become the name of a Service: use at most 63 characters of a-z, 0-9 and '-', starting with a letter and "
    "ending with a letter or digit, or set spec.service to false",
    ".metadata.name",
)
