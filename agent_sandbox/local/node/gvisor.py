"""The bundle that puts a container into gVisor: an OCI configuration and the directory that becomes its root.

The counterpart of ``bubblewrap.py``: in goes a description of one container, out comes what ``runsc`` reads. gVisor
answers system calls in a kernel of its own, in user space. A Pod is one such kernel; its first container, which only
sleeps, keeps it (and its network stack) alive while the others come and go.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent_sandbox.local.node.bubblewrap import (
    DEFAULT_UID,
    MAX_HOSTNAME,
    SMALL_TMPFS_BYTES,
    TMP_BYTES,
    Box,
    Mount,
    system_binds,
    system_links,
)

_Json = dict[str, Any]

KEEPER: Final = ["/usr/bin/sleep", "infinity"]
"""The command of the container that keeps a Pod's kernel alive."""

_FURTHER_UIDS: Final = 70_000_000
"""Distance to a Pod's second uid on the host, third, and so on: more than there are Pods' first ones."""

_CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
_TYPE: Final = "io.kubernetes.cri.container-type"
_POD: Final = "io.kubernetes.cri.sandbox-id"


def host_ids(host_uid: int, inside: Iterable[int]) -> list[_Json]:
    """Who the users of a Pod's containers are on the host, as a mapping of its user namespace, which they all share.

    The main one is the Pod's host uid, so that a volume belongs to the same uid whatever the runtime. The others, and
    the root that opens files for all of them, are uids that nobody else has.

    Args:
        host_uid: the Pod's uid on the host.
        inside: uids (or gids) of its containers.
    """
    wanted = {0, *inside}
    main = DEFAULT_UID if DEFAULT_UID in inside else min(inside)
    found = {main: host_uid}
    for number, other in enumerate(sorted(wanted - {main}), start=1):
        found[other] = host_uid + number * _FURTHER_UIDS
    return [{"containerID": inner, "hostID": outer, "size": 1} for inner, outer in found.items()]


@dataclass(frozen=True)
class Users:
    """The user namespace of a Pod: mappings of uids and of gids."""

    uids: Sequence[_Json]
    gids: Sequence[_Json]


def keeper_config(root: str, hostname: str, users: Users) -> _Json:
    """The configuration of the container that keeps a Pod's kernel alive.

    Args:
        root: its root directory, as the helper's processes see it.
        hostname: the Pod's.
        users: the Pod's.
    """
    box = Box(hostname, KEEPER, {}, "/", [Mount("/usr", "/usr", read_only=True)], 0, 0)
    return _config(box, root, users, box.mounts, {_TYPE: "sandbox"})


def container_config(box: Box, root: str, mounts: Sequence[Mount], users: Users, keeper: str) -> _Json:
    """The configuration of one container.

    Args:
        box: the container.
        root: its root directory, as the helper's processes see it.
        mounts: host directories and files to show, as the helper's processes see them.
        users: the Pod's.
        keeper: id of the container that keeps its Pod's kernel.
    """
    return _config(box, root, users, mounts, {_TYPE: "container", _POD: keeper})


def _config(box: Box, root: str, users: Users, mounts: Sequence[Mount], annotations: Mapping[str, str]) -> _Json:
    ordered = sorted(mounts, key=lambda mount: mount.target.rstrip("/").count("/"))
    return {
        "ociVersion": "1.0.2",
        "process": process_config(box, box.argv, terminal=False),
        "root": {"path": root, "readonly": box.read_only_root},
        "hostname": box.hostname[:MAX_HOSTNAME],
        "annotations": dict(annotations),
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            _tmpfs("/dev/shm", SMALL_TMPFS_BYTES, "1777"),  # noqa: S108 - inside the sandbox
            *([] if box.root else _own_tmpfs()),
            *map(_bind, ordered),
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "user"},
                {"type": "network", "path": "/proc/self/ns/net"},
            ],
            "uidMappings": list(users.uids),
            "gidMappings": list(users.gids),
        },
    }


def process_config(box: Box, argv: Sequence[str], *, terminal: bool) -> _Json:
    """A process of a container: its first, or one more."""
    return {
        "terminal": terminal,
        "user": {"uid": box.uid, "gid": box.gid},
        "args": list(argv),
        "env": [f"{name}={value}" for name, value in box.env.items()],
        "cwd": box.workdir,
        "rlimits": [] if box.file_size is None else [_file_size(box.file_size)],
        "capabilities": {name: [] for name in _CAPABILITY_SETS},
        "noNewPrivileges": True,
    }


def _file_size(size: int) -> _Json:
    return {"type": "RLIMIT_FSIZE", "hard": size, "soft": size}


def _own_tmpfs() -> list[_Json]:
    """What the built-in root file system, which is read-only, has for temporary files."""
    return [
        _tmpfs("/tmp", TMP_BYTES, "1777"),  # noqa: S108 - the sandbox's own
        _tmpfs("/run", SMALL_TMPFS_BYTES, "0755"),
        _tmpfs("/var/tmp", SMALL_TMPFS_BYTES, "1777"),  # noqa: S108 - inside the sandbox
    ]


def _tmpfs(path: str, size: int, mode: str) -> _Json:
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": [f"mode={mode}", f"size={size}"]}


def _bind(mount: Mount) -> _Json:
    access = "ro" if mount.read_only else "rw"
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": ["rbind", access]}


def make_root(root: Path, targets: Iterable[tuple[str, bool]], workdir: str) -> None:
    """Make the directory that becomes a container's root: links of the system, and an empty place for each mount.

    Args:
        root: the directory; its parent exists.
        targets: absolute paths inside, and whether a file is mounted there.
        workdir: where the container starts; made, as container runtimes do.
    """
    root.mkdir()
    for name, link in system_links().items():
        (root / name).symlink_to(link)
    for path in ("dev", "etc", "home", "opt", "proc", "run", "srv", "tmp", "usr", "var/tmp", workdir.lstrip("/")):
        (root / path).mkdir(parents=True, exist_ok=True)
    for target, is_file in targets:
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if is_file:
            place.touch()
        else:
            place.mkdir(exist_ok=True)


def system_mounts() -> list[Mount]:
    """What of this machine every container sees, read-only."""
    return [Mount(path, path, read_only=True) for path in system_binds() if Path(path).exists()]
