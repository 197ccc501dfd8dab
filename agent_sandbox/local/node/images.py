"""What an image says about containers, and the two images that every node has.

Built in are a reference whose last path segment is ``python-runtime-sandbox`` (the sandbox daemon on port 8888) and
``localhost/host`` (the same root file system, nothing started by itself). Their tags and digests are accepted and
ignored, so that manifests written for a cluster run unchanged. All others are in ``oci``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RUNTIME_PORT: Final = 8888
DEFAULT_UID: Final = 1000
WORKSPACE: Final = "/workspace"
OWN_DIRECTORY: Final = "/opt/agent-sandbox"
PATH: Final = f"{OWN_DIRECTORY}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DAEMON: Final = f"{OWN_DIRECTORY}/lib/start_sandboxd.py"


@dataclass(frozen=True)
class Image:
    """What an image says about the containers made from it.

    Attributes:
        name: the canonical name, for ``imageID``.
        entrypoint: started when the container has no ``command``.
        command: its arguments when the container has no ``args`` either.
        env: variables that the container's own override.
        workdir: where it starts.
        ready_port: a port that listens once the image's own entrypoint works; a container that neither overrides the
            entrypoint nor declares a readiness probe is ready when it does.
        root: directory of its files below the state directory's ``images``; empty for the built-in root file system.
        uid: the user that its containers run as, unless the Pod says otherwise.
        gid: the group, likewise.
    """

    name: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = WORKSPACE
    ready_port: int | None = None
    root: str = ""
    uid: int = DEFAULT_UID
    gid: int = DEFAULT_UID


_ENVIRONMENT: Final = {"PATH": PATH, "HOME": WORKSPACE, "LANG": "C.UTF-8"}

_PYTHON_RUNTIME: Final = Image(
    name="python-runtime-sandbox",
    entrypoint=(f"{OWN_DIRECTORY}/bin/python3", "-I", "-S", DAEMON),
    command=("--host", "$(AGENT_SANDBOX_LISTEN)", "--port", str(RUNTIME_PORT), "--root", WORKSPACE),
    env=_ENVIRONMENT,
    ready_port=RUNTIME_PORT,
)
_HOST: Final = Image(name="localhost/host", env=_ENVIRONMENT)


def _without_tag(reference: str) -> str:
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def built_in_image(reference: str) -> Image | None:
    """The built-in image behind a reference, or None."""
    name = _without_tag(reference)
    if name.rpartition("/")[2] == _PYTHON_RUNTIME.name:
        return _PYTHON_RUNTIME
    return _HOST if name == _HOST.name else None
