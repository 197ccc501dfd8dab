"""The command line that puts a container behind its walls.

A pure room: in goes a description of one container, out come the arguments of ``bwrap``. They are handed over through a
descriptor (``--args``), because a command line can be read by every user of the machine and an environment may hold
secrets; for the same reason, and so that nothing a Pod sets can steer bwrap itself, bwrap's own environment is empty.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from agent_sandbox.local.node.errors import ContainerError
from agent_sandbox.local.node.images import OWN_DIRECTORY
from agent_sandbox.local.node.rootfs import RootFiles

ARGS_FD: Final = 10
SECCOMP_FD: Final = 11
INFO_FD: Final = 12

MAX_HOSTNAME: Final = 63
DEFAULT_UID: Final = 1000
"""Uid and gid of containers whose Pod names none."""
_MASKED_PROC: Final = ("kcore", "keys", "key-users", "latency_stats", "timer_list", "sched_debug")
_SYSTEM_DIRECTORIES: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC_FROM_HOST: Final = (
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
)
_MIB: Final = 1 << 20
TMP_BYTES: Final = 1024 * _MIB
SMALL_TMPFS_BYTES: Final = 64 * _MIB


@dataclass(frozen=True)
class Mount:
    """A host directory or file shown in a container.

    Attributes:
        source: path on the host, as the helper's processes see it.
        target: absolute path inside.
        read_only: whether writing is forbidden.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Walls:
    """What differs between machines: which of bwrap's newer options it has.

    Attributes:
        bwrap: path of the program.
        disable_userns: it can forbid nested user namespaces (0.8 and later); older ones leave that to seccomp.
        tmpfs_size: it can bound a tmpfs (0.7 and later).
    """

    bwrap: str = "/usr/bin/bwrap"
    disable_userns: bool = True
    tmpfs_size: bool = True


@dataclass(frozen=True)
class Box:
    """One container as bwrap needs to know it.

    Attributes:
        hostname: its host name.
        argv: its command.
        env: its whole environment.
        workdir: where it starts.
        mounts: what is shown in it.
        uid: its user inside.
        gid: its group inside.
        read_only_root: whether the root file system may not be written to.
        file_size: bytes that one file may grow to; None for no bound.
        stdin: whether somebody may attach and give it input; otherwise it reads nothing.
        tty: whether its input and output are a terminal.
        root: an image's root file system as the helper's processes see it; empty for this machine's ``/usr``.

    Raises:
        ContainerError: a text holds a null byte: no program could be given it, and behind it bwrap would read further
            options, walls that a Pod takes down. Or a path holds ``..``, see ``inside``.
    """

    hostname: str
    argv: Sequence[str]
    env: Mapping[str, str]
    workdir: str
    mounts: Sequence[Mount] = ()
    uid: int = DEFAULT_UID
    gid: int = DEFAULT_UID
    read_only_root: bool = True
    root: str = ""
    file_size: int | None = None
    stdin: bool = False
    tty: bool = False

    def __post_init__(self) -> None:
        texts = {
            "hostname": [self.hostname],
            "command": self.argv,
            "env": [*self.env.keys(), *self.env.values()],
            "workingDir": [self.workdir],
            "volumeMounts": [text for mount in self.mounts for text in (mount.source, mount.target)],
        }
        for field, values in texts.items():
            if any("\0" in value for value in values):
                raise ContainerError("CreateContainerConfigError", f"the container's {field} holds a null byte")
        for path in (self.workdir, *(mount.target for mount in self.mounts)):
            if ".." in path.split("/"):
                raise ContainerError("CreateContainerConfigError", f"{path!r} leads out of the container")


def inside(path: str) -> str:
    """A path of a container, absolute and without ``..``.

    Runtimes append it to the new root as it is and make what is missing on the way; ``..`` would lead from there to
    this machine's files.
    """
    return posixpath.normpath("/" + path.lstrip("/"))


def system_links() -> dict[str, str]:
    """Links in the root of this machine that a container has too: all of merged ``/usr``; name to target."""
    places = (Path("/", name) for name in _SYSTEM_DIRECTORIES)
    return {place.name: str(place.readlink()) for place in places if place.is_symlink()}


def system_binds() -> list[str]:
    """Directories and files of this machine that every container sees, read-only, if they exist."""
    real = [f"/{name}" for name in _SYSTEM_DIRECTORIES if not Path("/", name).is_symlink() and Path("/", name).is_dir()]
    return ["/usr", *real, *(f"/etc/{name}" for name in _ETC_FROM_HOST)]


def own_mounts(root: RootFiles, tree: Path) -> list[Mount]:
    """What every container sees of our own: the interpreter and the daemon, read-only.

    Args:
        root: the root file system; its directories are shown as ``runtime`` and ``python`` in ``tree``.
        tree: where the helper shows host directories.
    """
    runtime = tree / "runtime" / root.directory.name
    places = {str(runtime / name): f"{OWN_DIRECTORY}/{name}" for name in ("bin", "lib")}
    if root.python_prefix is not None:
        places[str(tree / "python")] = f"{OWN_DIRECTORY}/python"
    places |= {str(runtime / "etc" / name): f"/etc/{name}" for name in ("passwd", "group", "nsswitch.conf")}
    return [Mount(source, target, read_only=True) for source, target in places.items()]


@lru_cache(maxsize=1)
def _system_arguments() -> tuple[str, ...]:
    """The read-only system, as this machine lays it out (merged /usr or not)."""
    arguments: list[str] = []
    # Named here, because bwrap gives the parents that it makes by itself to their owner alone.
    for path in ("/etc", "/etc/pki", "/etc/pki/tls", "/etc/ssl", "/home", "/opt", OWN_DIRECTORY, "/srv", "/var"):
        arguments += ["--dir", path]
    for name, target in system_links().items():
        arguments += ["--symlink", target, f"/{name}"]
    for path in system_binds():
        arguments += ["--ro-bind-try", path, path]
    return tuple(arguments)


@lru_cache(maxsize=1)
def _proc_arguments() -> tuple[str, ...]:
    masks: list[str] = []
    for name in _MASKED_PROC:
        if Path("/proc", name).exists():
            masks += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    if Path("/proc/scsi").is_dir():
        masks += ["--tmpfs", "/proc/scsi", "--remount-ro", "/proc/scsi"]
    return ("--proc", "/proc", *masks)


def _tmpfs(walls: Walls, path: str, size: int, mode: str) -> list[str]:
    bound = ["--size", str(size)] if walls.tmpfs_size else []
    return ["--perms", mode, *bound, "--tmpfs", path]


def _mount_arguments(mounts: Sequence[Mount]) -> list[str]:
    # Parents before children, whatever the order in which they were declared.
    ordered = sorted(mounts, key=lambda mount: mount.target.rstrip("/").count("/"))
    arguments: list[str] = []
    for mount in ordered:
        arguments += ["--ro-bind" if mount.read_only else "--bind", mount.source, mount.target]
    return arguments


def _own_system(walls: Walls, root: RootFiles, tree: Path) -> list[str]:
    """What the built-in images have beside this machine's ``/usr``."""
    arguments = _tmpfs(walls, "/tmp", TMP_BYTES, "1777")  # noqa: S108 - the sandbox's own
    arguments += _tmpfs(walls, "/run", SMALL_TMPFS_BYTES, "0755")
    arguments += _tmpfs(walls, "/var/tmp", SMALL_TMPFS_BYTES, "1777")  # noqa: S108 - inside the sandbox
    for mount in own_mounts(root, tree):
        arguments += ["--ro-bind", mount.source, mount.target]
    return arguments


def box_arguments(walls: Walls, box: Box, root: RootFiles, tree: Path) -> list[str]:
    """bwrap's options for one container, without the command itself.

    Args:
        walls: what this machine's bwrap can do.
        box: the container.
        root: the root file system; its directories are shown as ``runtime`` and ``python`` in ``tree``.
        tree: where the helper shows host directories.
    """
    arguments = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--hostname", box.hostname[:MAX_HOSTNAME]]
    arguments += ["--bind", box.root, "/"] if box.root else _system_arguments()
    arguments += [*_proc_arguments(), "--dev", "/dev"]
    arguments += _tmpfs(walls, "/dev/shm", SMALL_TMPFS_BYTES, "1777")  # noqa: S108 - inside the sandbox
    if not box.root:
        arguments += _own_system(walls, root, tree)
    arguments += _mount_arguments(box.mounts)
    arguments += ["--dir", box.workdir]  # as container runtimes do
    arguments += ["--remount-ro", "/dev"]
    if box.read_only_root:
        arguments += ["--remount-ro", "/"]
    arguments += ["--chdir", box.workdir, "--uid", str(box.uid), "--gid", str(box.gid), "--clearenv"]
    for name, value in box.env.items():
        arguments += ["--setenv", name, value]
    arguments += ["--cap-drop", "ALL"]
    if walls.disable_userns:
        arguments.append("--disable-userns")
    arguments += ["--seccomp", str(SECCOMP_FD), "--info-fd", str(INFO_FD)]
    # Whoever started us has made a session already; a container with a terminal keeps that one, to control it.
    session = [] if box.tty else ["--new-session"]
    return [*arguments, "--die-with-parent", *session, "--as-pid-1"]


def box_command(walls: Walls, box: Box) -> list[str]:
    """What the process list of the machine shows: bwrap and the container's command, nothing of its environment."""
    return [walls.bwrap, "--args", str(ARGS_FD), "--", *box.argv]
