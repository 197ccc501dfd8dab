"""Tells clients what is served: versions, groups and resources, one by one or all at once (aggregated)."""

from collections import defaultdict
from typing import Any

from agent_sandbox.local.apiserver.errors import UnknownPathError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, parse_accept
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.4+agent-sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SUBRESOURCE_VERBS = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "log": ("get",),
    "exec": ("create", "get"),
    "attach": ("create", "get"),
    "portforward": ("create", "get"),
    "binding": ("create",),
    "eviction": ("create",),
    "finalize": ("update",),
    "token": ("create",),
}
_SUBRESOURCE_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "exec": ("", "", "PodExecOptions"),
    "attach": ("", "", "PodAttachOptions"),
    "portforward": ("", "", "PodPortForwardOptions"),
    "binding": ("", "", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}


class Discovery:
    """Answers /version, /api, /apis and the documents below."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def answer(self, request: ApiRequest) -> ApiResponse | None:
        """The document at a path, or None if the path is none of discovery's.

        Raises:
            UnknownPathError: a group or version that is not served.
        """
        parts = request.path.strip("/").split("/")
        match parts:
            case ["version"]:
                return ApiResponse.json(VERSION)
            case ["api"]:
                return self._aggregated(request, core=True) or ApiResponse.json(_core_versions())
            case ["apis"]:
                return self._aggregated(request, core=False) or ApiResponse.json(self._group_list())
            case ["apis", group]:
                return ApiResponse.json({"kind": "APIGroup", "apiVersion": "v1", **self._group(group)})
            case ["api", version]:
                return ApiResponse.json(self._resource_list("", version))
            case ["apis", group, version]:
                return ApiResponse.json(self._resource_list(group, version))
            case _:
                return None

    def _versions(self) -> dict[str, list[str]]:
        """Group -> its versions, the preferred one first."""
        versions: dict[str, list[str]] = defaultdict(list)
        for kind in self._registry.all():
            if kind.version not in versions[kind.group]:
                versions[kind.group].append(kind.version)
        return {group: sorted(found, key=version_order, reverse=True) for group, found in versions.items()}

    def _group(self, group: str) -> JsonObject:
        versions = self._versions().get(group)
        if not versions or not group:
            raise UnknownPathError
        listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
        return {"name": group, "versions": listed, "preferredVersion": listed[0]}

    def _group_list(self) -> JsonObject:
        groups = [self._group(group) for group in self._versions() if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _resource_list(self, group: str, version: str) -> JsonObject:
        kinds = [kind for kind in self._registry.all() if (kind.group, kind.version) == (group, version)]
        if not kinds:
            raise UnknownPathError
        resources = [entry for kind in sorted(kinds, key=lambda kind: kind.plural) for entry in _resource_entries(kind)]
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}

    def _aggregated(self, request: ApiRequest, *, core: bool) -> ApiResponse | None:
        """The aggregated form, if the client prefers it."""
        for media, parameters in parse_accept(request.headers.get("accept", "")):
            if media != "application/json":
                continue
            if parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("v") in {"v2", "v2beta1"}:
                version = parameters["v"]
                return ApiResponse.json(
                    self._aggregated_list(core=core, version=version), content_type=_AGGREGATED.replace("v2", version)
                )
            if "as" not in parameters:
                return None
        return None

    def _aggregated_list(self, *, core: bool, version: str) -> JsonObject:
        items = [
            self._aggregated_group(group, versions)
            for group, versions in self._versions().items()
            if (not group) == core
        ]
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }

    def _aggregated_group(self, group: str, versions: list[str]) -> JsonObject:
        metadata: JsonObject = {"creationTimestamp": None}
        if group:
            metadata["name"] = group
        kinds = sorted(self._registry.all(), key=lambda kind: kind.plural)
        return {
            "metadata": metadata,
            "versions": [
                {
                    "version": version,
                    "resources": [
                        _aggregated_resource(kind) for kind in kinds if (kind.group, kind.version) == (group, version)
                    ],
                    "freshness": "Current",
                }
                for version in versions
            ],
        }


def version_order(version: str) -> tuple[int, int, int]:
    """Sorts versions by how stable they are: v2, v1, v1beta2, v1beta1, v1alpha1."""
    body = version.removeprefix("v")
    for rank, word in ((1, "beta"), (0, "alpha")):
        if word in body:
            major, _, minor = body.partition(word)
            return (rank, int(major or 0), int(minor or 0))
    return (2, int(body) if body.isdecimal() else 0, 0)


def _core_versions() -> JsonObject:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
    }


def _resource_entries(kind: ResourceType) -> list[JsonObject]:
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return [entry, *(_subresource_entry(kind, name) for name in sorted(kind.subresources))]


def _subresource_entry(kind: ResourceType, name: str) -> JsonObject:
    group, version, answer_kind = _SUBRESOURCE_KINDS.get(name, ("", "", kind.kind))
    entry: JsonObject = {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced}
    if group:
        entry |= {"group": group, "version": version}
    return entry | {"kind": answer_kind, "verbs": list(_SUBRESOURCE_VERBS[name])}


def _aggregated_resource(kind: ResourceType) -> JsonObject:
    entry: JsonObject = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [_aggregated_subresource(kind, name) for name in sorted(kind.subresources)]
    return entry


def _aggregated_subresource(kind: ResourceType, name: str) -> JsonObject:
    group, version, answer_kind = _SUBRESOURCE_KINDS.get(name, (kind.group, kind.version, kind.kind))
    return {
        "subresource": name,
        "responseKind": {"group": group, "version": version or kind.version, "kind": answer_kind},
        "verbs": list(_SUBRESOURCE_VERBS[name]),
    }
