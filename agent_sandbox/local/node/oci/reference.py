"""Image references, made complete as Docker and containerd do: ``python`` is ``docker.io/library/python:latest``."""

_DEFAULT_REGISTRY = "docker.io"


def normalized(reference: str) -> str:
    """The complete form of a reference, so that equal images have equal names.

    >>> normalized("python:3.12")
    'docker.io/library/python:3.12'
    >>> normalized("localhost/tool")
    'localhost/tool:latest'
    >>> normalized("ghcr.io/a/b@sha256:00")
    'ghcr.io/a/b@sha256:00'
    """
    name, at, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    if not slash:
        name = f"{_DEFAULT_REGISTRY}/library/{name}"
    elif not ({".", ":"} & set(first) or first == "localhost"):
        name = f"{_DEFAULT_REGISTRY}/{name}"
    elif first == _DEFAULT_REGISTRY and "/" not in rest:
        name = f"{_DEFAULT_REGISTRY}/library/{rest}"
    if at:
        return f"{name}@{digest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
