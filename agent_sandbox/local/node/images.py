"""Which images exist on this node, and what starts in them.

There is no registry here. Two references are built in: one whose last path segment is ``python-runtime-sandbox`` (the
sandbox daemon on port 8888) and ``localhost/host`` (the same root file system, nothing started by itself). Tags and
digests are accepted and ignored, so that manifests written for a cluster run unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent_sandbox.local.node.errors import ImageError

RUNTIME_PORT: Final = 8888
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
    """

    name: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = WORKSPACE
    ready_port: int | None = None


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


def resolve_image(reference: str) -> Image:
    """The image behind a reference.

    Raises:
        ImageError: there is none; the message says which exist.
    """
    name = _without_tag(reference)
    if name.rpartition("/")[2] == _PYTHON_RUNTIME.name:
        return _PYTHON_RUNTIME
    if name == _HOST.name:
        return _HOST
    raise ImageError(
        f"image {reference!r} does not exist on the local node, which pulls from no registry; it has"
        f" 'python-runtime-sandbox' (in any registry and with any tag) and 'localhost/host' (this machine's /usr,"
        f" read-only, with the container's own command)"
    )
