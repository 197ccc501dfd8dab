"""What Kubernetes' API says about its core types and kubernetes_asyncio's metadata does not.

The client's models carry names, types and required fields. List types, quantities, 64-bit integers and defaults were
lost when the client was generated; here they are again, as the API reference of Kubernetes 1.36 has them.
"""

from typing import Any, Final

LIST_MAP_KEYS: Final[dict[tuple[str, str], list[str]]] = {
    ("V1PodSpec", "containers"): ["name"],
    ("V1PodSpec", "initContainers"): ["name"],
    ("V1PodSpec", "ephemeralContainers"): ["name"],
    ("V1PodSpec", "volumes"): ["name"],
    ("V1PodSpec", "hostAliases"): ["ip"],
    ("V1PodSpec", "imagePullSecrets"): ["name"],
    ("V1PodSpec", "resourceClaims"): ["name"],
    ("V1PodSpec", "schedulingGates"): ["name"],
    ("V1PodSpec", "topologySpreadConstraints"): ["topologyKey", "whenUnsatisfiable"],
    ("V1Container", "ports"): ["containerPort", "protocol"],
    ("V1Container", "env"): ["name"],
    ("V1Container", "volumeMounts"): ["mountPath"],
    ("V1Container", "volumeDevices"): ["devicePath"],
    ("V1ResourceRequirements", "claims"): ["name"],
}
"""Lists that server-side apply merges by key. A V1EphemeralContainer follows V1Container. All others are atomic."""

QUANTITIES: Final[set[tuple[str, str]]] = {
    ("V1EmptyDirVolumeSource", "sizeLimit"),
    ("V1ResourceFieldSelector", "divisor"),
}

QUANTITY_MAPS: Final[set[tuple[str, str]]] = {
    ("V1PodSpec", "overhead"),
    ("V1ResourceRequirements", "limits"),
    ("V1ResourceRequirements", "requests"),
    ("V1VolumeResourceRequirements", "limits"),
    ("V1VolumeResourceRequirements", "requests"),
}

INT_OR_STRING: Final[set[tuple[str, str]]] = {
    ("V1HTTPGetAction", "port"),
    ("V1TCPSocketAction", "port"),
    ("V1NetworkPolicyPort", "port"),
}

INT64: Final[set[str]] = {
    "activeDeadlineSeconds",
    "deletionGracePeriodSeconds",
    "expirationSeconds",
    "fsGroup",
    "generation",
    "runAsGroup",
    "runAsUser",
    "seconds",
    "supplementalGroups",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
}
"""Integers of 64 bits wherever they appear; all others have 32."""

ATOMIC_MAPS: Final[set[str]] = {
    "V1ConfigMapKeySelector",
    "V1FileKeySelector",
    "V1LabelSelector",
    "V1LocalObjectReference",
    "V1NodeSelector",
    "V1NodeSelectorTerm",
    "V1ObjectFieldSelector",
    "V1ResourceFieldSelector",
    "V1SecretKeySelector",
    "V1SecretReference",
    "V1TypedLocalObjectReference",
}
"""Types that server-side apply replaces as a whole."""

EXTRA: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("V1PodSpec", "containers"): {"minItems": 1},
    ("V1ContainerPort", "protocol"): {"default": "TCP"},
    ("V1LocalObjectReference", "name"): {"default": ""},
}
"""Defaults and limits. ``protocol`` and the reference's ``name`` are keys of list maps, which need a default."""

EMBEDDED_METADATA_FIELDS: Final = ("annotations", "labels")
"""What of an ObjectMeta makes sense inside a template (``ephemeral.volumeClaimTemplate``)."""

QUANTITY_PATTERN: Final = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)


def int_or_string() -> dict[str, Any]:
    """The schema of an IntOrString, such as a port."""
    return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}


def quantity() -> dict[str, Any]:
    """The schema of a resource quantity, such as ``500m`` or ``2Gi``."""
    return {**int_or_string(), "pattern": QUANTITY_PATTERN}
