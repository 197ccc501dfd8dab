"""Reads a URL path into what it asks for."""

from dataclasses import dataclass

_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True)
class ResourcePath:
    """A path below /api or /apis that names a resource.

    Attributes:
        namespace: empty for cluster-wide kinds and for all namespaces.
        name: empty for a collection.
        subresource: empty for the object itself.
        rest: what follows the subresource, as in ``proxy/some/path``.
    """

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


def parse_resource_path(path: str) -> ResourcePath | None:
    """The resource that a path names; None if it names none.

    >>> parse_resource_path("/api/v1/namespaces/a/pods/b/log")
    ResourcePath(group='', version='v1', plural='pods', namespace='a', name='b', subresource='log', rest='')
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return None
    if not all(parts):
        return None
    namespace = ""
    if parts[0] == "namespaces" and not group and len(parts) >= 2:
        # /namespaces/x and /namespaces/x/status are about the Namespace; anything longer is inside it.
        if len(parts) == 2 or (len(parts) == 3 and parts[2] in _NAMESPACE_SUBRESOURCES):
            return ResourcePath(group, version, "namespaces", "", parts[1], parts[2] if len(parts) == 3 else "")
        namespace, parts = parts[1], parts[2:]
    elif parts[0] == "namespaces" and len(parts) >= 3:
        namespace, parts = parts[1], parts[2:]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    return ResourcePath(group, version, parts[0], namespace, name, subresource, "/".join(parts[3:]))
