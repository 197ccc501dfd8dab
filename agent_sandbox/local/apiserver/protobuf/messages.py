"""The field numbers of the messages that are read, as the ``generated.proto`` files of Kubernetes assign them.

The numbers never change there; a number missing here is a field that is skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Scalar(Enum):
    """Types without fields of their own."""

    STRING = auto()
    BYTES = auto()
    """Base64 in JSON."""
    RAW = auto()
    """Bytes that this room itself reads on."""
    INT = auto()
    BOOL = auto()


class Shape(Enum):
    """How often a field occurs."""

    ONE = auto()
    LIST = auto()
    MAP = auto()
    """From strings to the field's type."""


@dataclass(frozen=True)
class Entry:
    """One field: its name in JSON, its type and how often it occurs."""

    name: str
    type: "Scalar | Message" = Scalar.STRING
    shape: Shape = Shape.ONE


Message = Mapping[int, Entry]
"""The fields of a message by their number."""
ANY_VERSION: Final = "*"


def _list(name: str, of: Scalar | Message = Scalar.STRING) -> Entry:
    return Entry(name, of, Shape.LIST)


def _map(name: str, of: Scalar = Scalar.STRING) -> Entry:
    return Entry(name, of, Shape.MAP)


TIME_PARTS: Final[Message] = {1: Entry("seconds", Scalar.INT), 2: Entry("nanos", Scalar.INT)}
TIME: Final[Message] = dict(TIME_PARTS)
"""``metav1.Time``: text in JSON."""
FIELDS_V1: Final[Message] = {1: Entry("Raw", Scalar.RAW)}
"""``metav1.FieldsV1``: in JSON, the JSON that it carries."""

UNKNOWN: Final[Message] = {
    1: Entry("typeMeta", {1: Entry("apiVersion"), 2: Entry("kind")}),
    2: Entry("raw", Scalar.RAW),
    3: Entry("contentEncoding"),
    4: Entry("contentType"),
}
"""``runtime.Unknown``, the envelope."""

_OWNER_REFERENCE: Final[Message] = {
    1: Entry("kind"),
    3: Entry("name"),
    4: Entry("uid"),
    5: Entry("apiVersion"),
    6: Entry("controller", Scalar.BOOL),
    7: Entry("blockOwnerDeletion", Scalar.BOOL),
}
_MANAGED_FIELDS_ENTRY: Final[Message] = {
    1: Entry("manager"),
    2: Entry("operation"),
    3: Entry("apiVersion"),
    4: Entry("time", TIME),
    6: Entry("fieldsType"),
    7: Entry("fieldsV1", FIELDS_V1),
    8: Entry("subresource"),
}
_METADATA: Final = Entry(
    "metadata",
    {
        1: Entry("name"),
        2: Entry("generateName"),
        3: Entry("namespace"),
        4: Entry("selfLink"),
        5: Entry("uid"),
        6: Entry("resourceVersion"),
        7: Entry("generation", Scalar.INT),
        8: Entry("creationTimestamp", TIME),
        9: Entry("deletionTimestamp", TIME),
        10: Entry("deletionGracePeriodSeconds", Scalar.INT),
        11: _map("labels"),
        12: _map("annotations"),
        13: _list("ownerReferences", _OWNER_REFERENCE),
        14: _list("finalizers"),
        17: _list("managedFields", _MANAGED_FIELDS_ENTRY),
    },
)
_OBJECT_REFERENCE: Final[Message] = {
    1: Entry("kind"),
    2: Entry("namespace"),
    3: Entry("name"),
    4: Entry("uid"),
    5: Entry("apiVersion"),
    6: Entry("resourceVersion"),
    7: Entry("fieldPath"),
}
_NAMESPACE_CONDITION: Final[Message] = {
    1: Entry("type"),
    2: Entry("status"),
    4: Entry("lastTransitionTime", TIME),
    5: Entry("reason"),
    6: Entry("message"),
}
_POLICY_RULE: Final[Message] = {
    1: _list("verbs"),
    2: _list("apiGroups"),
    3: _list("resources"),
    4: _list("resourceNames"),
    5: _list("nonResourceURLs"),
}
_ROLE: Final[Message] = {1: _METADATA, 2: _list("rules", _POLICY_RULE)}
_LABEL_SELECTOR: Final[Message] = {
    1: _map("matchLabels"),
    2: _list("matchExpressions", {1: Entry("key"), 2: Entry("operator"), 3: _list("values")}),
}
_ROLE_BINDING: Final[Message] = {
    1: _METADATA,
    2: _list("subjects", {1: Entry("kind"), 2: Entry("apiGroup"), 3: Entry("name"), 4: Entry("namespace")}),
    3: Entry("roleRef", {1: Entry("apiGroup"), 2: Entry("kind"), 3: Entry("name")}),
}
_DELETE_OPTIONS: Final[Message] = {
    1: Entry("gracePeriodSeconds", Scalar.INT),
    2: Entry("preconditions", {1: Entry("uid"), 2: Entry("resourceVersion")}),
    3: Entry("orphanDependents", Scalar.BOOL),
    4: Entry("propagationPolicy"),
    5: _list("dryRun"),
    6: Entry("ignoreStoreReadErrorWithClusterBreakingPotential", Scalar.BOOL),
}

MESSAGES: Final[Mapping[tuple[str, str], Message]] = {
    ("v1", "Namespace"): {
        1: _METADATA,
        2: Entry("spec", {1: _list("finalizers")}),
        3: Entry("status", {1: Entry("phase"), 2: _list("conditions", _NAMESPACE_CONDITION)}),
    },
    ("v1", "ConfigMap"): {
        1: _METADATA,
        2: _map("data"),
        3: _map("binaryData", Scalar.BYTES),
        4: Entry("immutable", Scalar.BOOL),
    },
    ("v1", "Secret"): {
        1: _METADATA,
        2: _map("data", Scalar.BYTES),
        3: Entry("type"),
        4: _map("stringData"),
        5: Entry("immutable", Scalar.BOOL),
    },
    ("v1", "ServiceAccount"): {
        1: _METADATA,
        2: _list("secrets", _OBJECT_REFERENCE),
        3: _list("imagePullSecrets", {1: Entry("name")}),
        4: Entry("automountServiceAccountToken", Scalar.BOOL),
    },
    ("rbac.authorization.k8s.io/v1", "Role"): _ROLE,
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): {
        **_ROLE,
        3: Entry("aggregationRule", {1: _list("clusterRoleSelectors", _LABEL_SELECTOR)}),
    },
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): _ROLE_BINDING,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): _ROLE_BINDING,
    ("policy/v1", "Eviction"): {1: _METADATA, 2: Entry("deleteOptions", _DELETE_OPTIONS)},
    (ANY_VERSION, "DeleteOptions"): _DELETE_OPTIONS,
}
"""The kinds that are read, by apiVersion and kind."""
