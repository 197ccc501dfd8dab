"""The table of built-in kinds."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from agent_sandbox.local.apiserver.builtin import columns
from agent_sandbox.local.apiserver.builtin.events import EVENT_CONVERSION
from agent_sandbox.local.apiserver.builtin.namespaces import NAMESPACE_STRATEGY
from agent_sandbox.local.apiserver.builtin.network import NETWORK_POLICY_STRATEGY
from agent_sandbox.local.apiserver.builtin.pods import POD_STRATEGY
from agent_sandbox.local.apiserver.builtin.reviews import REVIEW_KINDS
from agent_sandbox.local.apiserver.builtin.secrets import CONFIG_MAP_STRATEGY, SECRET_STRATEGY
from agent_sandbox.local.apiserver.builtin.services import SERVICE_STRATEGY
from agent_sandbox.local.apiserver.builtin.storage import PV_STRATEGY, PVC_STRATEGY
from agent_sandbox.local.apiserver.custom.definition import CUSTOM_RESOURCE_DEFINITIONS
from agent_sandbox.local.apiserver.jsonpath import first_at
from agent_sandbox.local.apiserver.metadata import path_segment_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType, ScalePaths, Strategy
from agent_sandbox.local.apiserver.schema.builtin_types import builtin_schema

_STATUS = frozenset({"status"})
_RETURNS_DELETED = Strategy(returns_deleted=True)


def _fields(*paths: str) -> dict[str, Callable[[JsonObject], str]]:
    def reader(path: str) -> Callable[[JsonObject], str]:
        return lambda value: str(first_at(value, f".{path}") or "")

    return {path: reader(path) for path in paths}


def _with_schema(kind: ResourceType) -> ResourceType:
    return replace(kind, load_schema=partial(builtin_schema, kind.group, kind.version, kind.kind))


NAMESPACES = ResourceType(
    "",
    "v1",
    "namespaces",
    "Namespace",
    namespaced=False,
    short_names=("ns",),
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    subresources=frozenset({"status", "finalize"}),
    strategy=NAMESPACE_STRATEGY,
    columns=columns.NAMESPACE,
    field_selectors=_fields("status.phase"),
)
PODS = ResourceType(
    "",
    "v1",
    "pods",
    "Pod",
    short_names=("po",),
    categories=("all",),
    subresources=frozenset({"status", "log", "exec", "attach", "portforward", "binding", "eviction"}),
    strategy=POD_STRATEGY,
    columns=columns.POD,
    field_selectors=_fields(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
)
SERVICE_ACCOUNTS = ResourceType(
    "",
    "v1",
    "serviceaccounts",
    "ServiceAccount",
    short_names=("sa",),
    subresources=frozenset({"token"}),
    strategy=_RETURNS_DELETED,
    columns=columns.SERVICE_ACCOUNT,
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
EVENTS = ResourceType(
    "",
    "v1",
    "events",
    "Event",
    short_names=("ev",),
    columns=columns.EVENT,
    field_selectors=_fields(*_EVENT_FIELDS),
)
_NEW_EVENTS = replace(
    EVENTS,
    group="events.k8s.io",
    bucket=EVENTS.bucket,
    storage_api_version="v1",
    conversion=EVENT_CONVERSION,
    columns=columns.EVENT,
)
_SCALE = ScalePaths(".spec.replicas", ".status.replicas", ".status.selector")
_WORKLOAD = Strategy(generation=True)
_RBAC = Strategy(name_causes=path_segment_errors)


def _workload(plural: str, kind: str, short: str) -> ResourceType:
    return ResourceType(
        "apps",
        "v1",
        plural,
        kind,
        short_names=(short,),
        categories=("all",),
        subresources=frozenset({"status", "scale"}),
        strategy=_WORKLOAD,
        scale=_SCALE,
        columns=columns.WORKLOAD,
    )


NAMESPACES, PODS, SERVICE_ACCOUNTS, EVENTS = (
    _with_schema(kind) for kind in (NAMESPACES, PODS, SERVICE_ACCOUNTS, EVENTS)
)
_KINDS: tuple[ResourceType, ...] = (
    NAMESPACES,
    PODS,
    ResourceType(
        "",
        "v1",
        "services",
        "Service",
        short_names=("svc",),
        categories=("all",),
        subresources=_STATUS,
        strategy=SERVICE_STRATEGY,
        columns=columns.SERVICE,
        field_selectors=_fields("spec.clusterIP", "spec.type"),
    ),
    ResourceType(
        "",
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        short_names=("pvc",),
        subresources=_STATUS,
        strategy=PVC_STRATEGY,
        columns=columns.PVC,
    ),
    ResourceType(
        "",
        "v1",
        "persistentvolumes",
        "PersistentVolume",
        namespaced=False,
        short_names=("pv",),
        subresources=_STATUS,
        strategy=PV_STRATEGY,
        columns=columns.PV,
    ),
    ResourceType(
        "",
        "v1",
        "configmaps",
        "ConfigMap",
        short_names=("cm",),
        strategy=CONFIG_MAP_STRATEGY,
        columns=columns.CONFIG_MAP,
    ),
    ResourceType(
        "", "v1", "secrets", "Secret", strategy=SECRET_STRATEGY, columns=columns.SECRET, field_selectors=_fields("type")
    ),
    SERVICE_ACCOUNTS,
    EVENTS,
    ResourceType(
        "",
        "v1",
        "nodes",
        "Node",
        namespaced=False,
        short_names=("no",),
        subresources=_STATUS,
        columns=columns.NODE,
        field_selectors=_fields("spec.unschedulable"),
    ),
    ResourceType("", "v1", "endpoints", "Endpoints", short_names=("ep",), columns=columns.ENDPOINTS),
    _workload("deployments", "Deployment", "deploy"),
    _workload("replicasets", "ReplicaSet", "rs"),
    _workload("statefulsets", "StatefulSet", "sts"),
    ResourceType(
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        "NetworkPolicy",
        singular="networkpolicy",
        short_names=("netpol",),
        strategy=NETWORK_POLICY_STRATEGY,
        columns=columns.NETWORK_POLICY,
    ),
    ResourceType("coordination.k8s.io", "v1", "leases", "Lease", columns=columns.LEASE),
    _NEW_EVENTS,
    CUSTOM_RESOURCE_DEFINITIONS,
    ResourceType(
        "storage.k8s.io",
        "v1",
        "storageclasses",
        "StorageClass",
        singular="storageclass",
        namespaced=False,
        short_names=("sc",),
        strategy=_RETURNS_DELETED,
        columns=columns.STORAGE_CLASS,
    ),
    ResourceType(
        "scheduling.k8s.io",
        "v1",
        "priorityclasses",
        "PriorityClass",
        namespaced=False,
        short_names=("pc",),
        strategy=Strategy(generation=True),
        columns=columns.PRIORITY_CLASS,
    ),
    ResourceType("rbac.authorization.k8s.io", "v1", "roles", "Role", strategy=_RBAC, columns=columns.ROLE),
    ResourceType(
        "rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", strategy=_RBAC, columns=columns.ROLE_BINDING
    ),
    ResourceType(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterroles",
        "ClusterRole",
        namespaced=False,
        strategy=_RBAC,
        columns=columns.ROLE,
    ),
    ResourceType(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        namespaced=False,
        strategy=_RBAC,
        columns=columns.ROLE_BINDING,
    ),
    *REVIEW_KINDS,
)


BUILTIN_KINDS = tuple(_with_schema(kind) for kind in _KINDS)
