"""Writes Kubernetes' own types as OpenAPI definitions that refer to each other, for the embedded API server.

In: the metadata of the installed kubernetes_asyncio and the rules in ``core_rules``. Out: one definition per type that
can be reached from the kinds the server knows, under the name that Kubernetes' own OpenAPI documents use.
"""

import re
from typing import Any, Final

from kubernetes_asyncio.client import models

from crdgen.core_rules import ATOMIC_MAPS, EXTRA, INT64, INT_OR_STRING, LIST_MAP_KEYS, QUANTITIES, QUANTITY_MAPS
from crdgen.core_types import _is_required

Definition = dict[str, Any]

KINDS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "": (
        "io.k8s.api.core.v1",
        "v1",
        (
            "V1Pod",
            "V1Namespace",
            "V1Service",
            "V1PersistentVolumeClaim",
            "V1PersistentVolume",
            "V1ConfigMap",
            "V1Secret",
            "V1ServiceAccount",
            "CoreV1Event",
            "V1Node",
            "V1Endpoints",
            "V1Binding",
            "V1PodTemplateSpec",
        ),
    ),
    "apps": ("io.k8s.api.apps.v1", "v1", ("V1Deployment", "V1ReplicaSet", "V1StatefulSet")),
    "networking.k8s.io": ("io.k8s.api.networking.v1", "v1", ("V1NetworkPolicy",)),
    "coordination.k8s.io": ("io.k8s.api.coordination.v1", "v1", ("V1Lease",)),
    "events.k8s.io": ("io.k8s.api.events.v1", "v1", ("EventsV1Event",)),
    "apiextensions.k8s.io": (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        "v1",
        ("V1CustomResourceDefinition",),
    ),
    "authentication.k8s.io": (
        "io.k8s.api.authentication.v1",
        "v1",
        ("V1TokenReview", "V1SelfSubjectReview", "AuthenticationV1TokenRequest"),
    ),
    "authorization.k8s.io": (
        "io.k8s.api.authorization.v1",
        "v1",
        (
            "V1SubjectAccessReview",
            "V1SelfSubjectAccessReview",
            "V1LocalSubjectAccessReview",
            "V1SelfSubjectRulesReview",
        ),
    ),
    "storage.k8s.io": ("io.k8s.api.storage.v1", "v1", ("V1StorageClass",)),
    "scheduling.k8s.io": ("io.k8s.api.scheduling.v1", "v1", ("V1PriorityClass",)),
    "rbac.authorization.k8s.io": (
        "io.k8s.api.rbac.v1",
        "v1",
        ("V1Role", "V1RoleBinding", "V1ClusterRole", "V1ClusterRoleBinding"),
    ),
    "policy": ("io.k8s.api.policy.v1", "v1", ("V1Eviction",)),
    "autoscaling": ("io.k8s.api.autoscaling.v1", "v1", ("V1Scale",)),
    "meta": (
        "io.k8s.apimachinery.pkg.apis.meta.v1",
        "v1",
        ("V1Status", "V1DeleteOptions", "V1ListMeta", "V1Condition"),
    ),
}
"""Group -> package of its types, version, and the types to start from."""

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
_META_TYPES: Final = frozenset(
    {
        "V1Condition",
        "V1DeleteOptions",
        "V1LabelSelector",
        "V1LabelSelectorRequirement",
        "V1FieldSelectorRequirement",
        "V1ListMeta",
        "V1ManagedFieldsEntry",
        "V1ObjectMeta",
        "V1OwnerReference",
        "V1Preconditions",
        "V1Status",
        "V1StatusCause",
        "V1StatusDetails",
    }
)
_CORE_TYPES: Final = frozenset(
    {"V1EventSource", "V1ObjectReference", "V1PodTemplateSpec", "V1Toleration", "V1TopologySelectorTerm"}
)
_GENERATED_PREFIX: Final = re.compile(r"^(Core|Events|Authentication|Storage|Rbac|Discovery)?V1")

_LIST: Final = re.compile(r"list\[(.+)\]")
_MAP: Final = re.compile(r"dict\(str, (.+)\)")
_SCALARS: Final[dict[str, Definition]] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "float": {"type": "number", "format": "double"},
    "datetime": {"$ref": f"#/components/schemas/{_META}.Time"},
    "object": {},
}
_MICRO_TIMES: Final = frozenset({"acquireTime", "renewTime", "eventTime", "lastObservedTime"})
_QUANTITY: Final = {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"}
_INT_OR_STRING: Final = {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString"}

_MORE_QUANTITY_MAPS: Final = frozenset(
    {
        ("V1PersistentVolumeSpec", "capacity"),
        ("V1PersistentVolumeClaimStatus", "capacity"),
        ("V1PersistentVolumeClaimStatus", "allocatedResources"),
        ("V1NodeStatus", "capacity"),
        ("V1NodeStatus", "allocatable"),
        ("V1ContainerStatus", "allocatedResources"),
        ("V1PodStatus", "allocatedResources"),
    }
)
_MORE_INT_OR_STRING: Final = frozenset(
    {
        ("V1ServicePort", "targetPort"),
        ("V1RollingUpdateDeployment", "maxSurge"),
        ("V1RollingUpdateDeployment", "maxUnavailable"),
        ("V1RollingUpdateStatefulSetStrategy", "maxUnavailable"),
    }
)
_MORE_LIST_KEYS: Final[dict[tuple[str, str], list[str]]] = {
    ("V1ObjectMeta", "ownerReferences"): ["uid"],
    ("V1ServiceSpec", "ports"): ["port", "protocol"],
    ("V1ServiceAccount", "secrets"): ["name"],
    ("V1PodStatus", "podIPs"): ["ip"],
    ("V1NodeStatus", "addresses"): ["type"],
    ("V1PodStatus", "resourceClaimStatuses"): ["name"],
}
_SETS: Final = frozenset({("V1ObjectMeta", "finalizers"), ("V1NodeSpec", "podCIDRs"), ("V1PodStatus", "hostIPs")})
_MERGE_ONLY: Final[dict[tuple[str, str], str]] = {
    ("V1PodStatus", "hostIPs"): "ip",
    ("V1ContainerStatus", "volumeMounts"): "mountPath",
    ("V1ServiceAccount", "imagePullSecrets"): "name",
}
_PORT_MERGE_KEYS: Final = {"V1ServiceSpec": "port", "V1Container": "containerPort"}
_RETAIN_KEYS: Final = frozenset({("V1PodSpec", "volumes"), ("V1DeploymentSpec", "strategy")})
_BYTES: Final = frozenset({("V1Secret", "data"), ("V1ConfigMap", "binaryData")})


def definitions() -> dict[str, Definition]:
    """Every definition by its OpenAPI name."""
    found: dict[str, Definition] = dict(_fixed())
    for group, (package, version, kinds) in KINDS.items():
        for type_name in kinds:
            _define(type_name, package, found)
            name = _name(type_name, package)
            # A kind says of itself which kind it is; a type that is only a part does not.
            if "kind" in found[name].get("properties", {}) and group != "meta":
                kind = {"group": group, "kind": name.rpartition(".")[2], "version": version}
                found[name]["x-kubernetes-group-version-kind"] = [kind]
    return dict(sorted(found.items()))


def _fixed() -> dict[str, Definition]:
    return {
        f"{_META}.Time": {"type": "string", "format": "date-time", "description": "A moment, as RFC 3339."},
        f"{_META}.MicroTime": {
            "type": "string",
            "format": "date-time",
            "description": "A moment with microseconds, as RFC 3339.",
        },
        f"{_META}.FieldsV1": {"type": "object", "description": "A set of fields, as a trie."},
        "io.k8s.apimachinery.pkg.api.resource.Quantity": {
            "description": "A fixed-point number with a suffix, such as 500m or 2Gi.",
            "oneOf": [{"type": "string"}, {"type": "number"}],
        },
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
            "description": "A number or a name or percentage.",
            "format": "int-or-string",
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        },
    }


def _name(type_name: str, package: str) -> str:
    if type_name in _META_TYPES:
        package = _META
    elif type_name in _CORE_TYPES:
        package = "io.k8s.api.core.v1"
    return f"{package}.{_GENERATED_PREFIX.sub('', type_name)}"


def _define(type_name: str, package: str, found: dict[str, Definition]) -> str:
    """Add a type and all that it refers to; returns its OpenAPI name."""
    name = _name(type_name, package)
    if name in found:
        return name
    # A type of another package that was found first keeps its name there.
    short = name.rpartition(".")[2]
    core = f"io.k8s.api.core.v1.{short}"
    if core in found and package != "io.k8s.api.core.v1" and type_name not in _META_TYPES and not _is_kind(type_name):
        return core
    package = name.rpartition(".")[0]
    model = getattr(models, type_name)
    found[name] = {}
    properties: Definition = {}
    required = []
    for attribute, field_type in model.openapi_types.items():
        wire = model.attribute_map[attribute]
        schema = _field(type_name, wire, field_type, package, found)
        text = _text(getattr(model, attribute).__doc__ or "")
        properties[wire] = _described(schema, text)
        if _is_required(model, attribute):
            required.append(wire)
    definition: Definition = {"type": "object", "properties": properties}
    if required:
        definition["required"] = sorted(required)
    if type_name in ATOMIC_MAPS:
        definition["x-kubernetes-map-type"] = "atomic"
    description = _type_text(short, properties)
    found[name] = {"description": description, **definition} if description else definition
    return name


def _is_kind(type_name: str) -> bool:
    return any(type_name in kinds for _, _, kinds in KINDS.values())


def _described(schema: Definition, text: str) -> Definition:
    if not text:
        return schema
    if "$ref" in schema:
        # OpenAPI ignores what stands beside a reference.
        return {"description": text, "allOf": [schema]}
    return {"description": text, **schema}


def _field(owner: str, name: str, field_type: str, package: str, found: dict[str, Definition]) -> Definition:
    rules_of = "V1Container" if owner == "V1EphemeralContainer" else owner
    key = (rules_of, name)
    if key in INT_OR_STRING or key in _MORE_INT_OR_STRING:
        return dict(_INT_OR_STRING)
    if key in QUANTITIES:
        return dict(_QUANTITY)
    if key in QUANTITY_MAPS or key in _MORE_QUANTITY_MAPS:
        return {"type": "object", "additionalProperties": dict(_QUANTITY)}
    if name == "fieldsV1":
        return {"$ref": f"#/components/schemas/{_META}.FieldsV1"}
    if field_type == "datetime" and name in _MICRO_TIMES:
        return {"$ref": f"#/components/schemas/{_META}.MicroTime"}
    schema = _type(name, field_type, package, found)
    if key in _BYTES:
        schema["additionalProperties"] = {"type": "string", "format": "byte"}
    if schema.get("type") == "array":
        schema |= _list_rules(key)
    if key in _RETAIN_KEYS:
        schema["x-kubernetes-patch-strategy"] = "merge,retainKeys" if schema.get("type") == "array" else "retainKeys"
    extra = {rule: value for rule, value in EXTRA.get(key, {}).items() if rule == "default"}
    return {**schema, **extra}


def _list_rules(key: tuple[str, str]) -> Definition:
    rules: Definition = {}
    keys = LIST_MAP_KEYS.get(key) or _MORE_LIST_KEYS.get(key)
    if key[1] == "conditions":
        keys = ["type"]
    if keys is not None:
        rules |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    elif key in _SETS:
        rules["x-kubernetes-list-type"] = "set"
    else:
        rules["x-kubernetes-list-type"] = "atomic"
    merge_key = _PORT_MERGE_KEYS.get(key[0]) if key[1] == "ports" else (keys[0] if keys else _MERGE_ONLY.get(key))
    if merge_key is not None:
        rules |= {"x-kubernetes-patch-merge-key": merge_key, "x-kubernetes-patch-strategy": "merge"}
    elif key == ("V1ObjectMeta", "finalizers"):
        rules["x-kubernetes-patch-strategy"] = "merge"
    return rules


def _type(name: str, field_type: str, package: str, found: dict[str, Definition]) -> Definition:
    if field_type == "int":
        return {"type": "integer", "format": "int64" if name in INT64 or name == "observedGeneration" else "int32"}
    if field_type in _SCALARS:
        return dict(_SCALARS[field_type])
    if match := _LIST.fullmatch(field_type):
        return {"type": "array", "items": _type(name, match[1], package, found)}
    if match := _MAP.fullmatch(field_type):
        return {"type": "object", "additionalProperties": _type(name, match[1], package, found)}
    return {"$ref": f"#/components/schemas/{_define(field_type, package, found)}"}


def _text(docstring: str) -> str:
    """All that Kubernetes says about a field."""
    paragraphs = [part.replace("# noqa: E501", "").strip() for part in docstring.split("\n\n")]
    if len(paragraphs) < 3 or paragraphs[1].startswith(":return:"):
        return ""
    return " ".join(paragraphs[1].split())


def _type_text(short: str, properties: Definition) -> str:
    """The client's metadata has no texts of types; the field that holds one usually says enough."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", short)
    return f"{short} is a kind of the Kubernetes API." if "kind" in properties else f"{words}, a part of other types."
