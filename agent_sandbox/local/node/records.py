"""What the node keeps on disk, and how it finds its own leftovers: by these records, never by guessing names.

::

    <state>/lock                      held by the node while it lives
    <state>/helper.*                  socket, lock and log of the helper, which may outlive it (helper_process.py)
    <state>/runtime/<version>/        our part of the root file system (rootfs.py)
    <state>/pods/<uid>/record.json    the Pod: namespace, name, uid, address, host uid
    <state>/pods/<uid>/logs/<container>/<run>.log
    <state>/pods/<uid>/files/         hosts, resolv.conf, workspaces, emptyDir volumes, projected files
    <state>/images/<digest>/          unpacked images (oci/store.py)
    <state>/volumes/<uid>/data        the data of a PersistentVolumeClaim

Everything is written with plain calls; call from a worker thread.
"""

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent_sandbox.local.node.errors import StateInUseError


@dataclass(frozen=True)
class PodRecord:
    """What must be known about a Pod after a crash."""

    uid: str
    namespace: str
    name: str
    address: str
    host_uid: int | None

    @property
    def owner(self) -> int:
        """The uid to which the Pod's files belong; -1, "leave as it is", when Pods run as the node's own user."""
        return -1 if self.host_uid is None else self.host_uid


class NodeDirectory:
    """The node's state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def pods(self) -> Path:
        """One directory per Pod."""
        return self.root / "pods"

    @property
    def volumes(self) -> Path:
        """One directory per PersistentVolumeClaim."""
        return self.root / "volumes"

    @property
    def images(self) -> Path:
        """One directory per unpacked image."""
        return self.root / "images"

    @property
    def runtime(self) -> Path:
        """Our part of the root file system."""
        return self.root / "runtime"

    def create(self) -> None:
        """Make the directories. Those that Pods' set-up passes through can be traversed, but not listed, by others."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (self.pods, self.volumes, self.images):
            path.mkdir(exist_ok=True)
            path.chmod(0o711)

    def lock(self) -> int:
        """Take the directory for this node; returns the descriptor to close at the end.

        Raises:
            StateInUseError: another node has it.
        """
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise StateInUseError(f"another node runs on {self.root}; stop it first") from error
        return fd

    def pod(self, uid: str) -> Path:
        """The directory of one Pod."""
        return self.pods / uid

    def records(self) -> dict[str, PodRecord]:
        """All Pods that were here when the last node ended, by uid; directories without a record are removed."""
        found: dict[str, PodRecord] = {}
        for path in self.pods.iterdir():
            try:
                values: dict[str, Any] = json.loads((path / "record.json").read_text())
                found[path.name] = PodRecord(**values)
            except (OSError, ValueError, TypeError):
                remove_tree(path)
        return found

    def create_pod(self, record: PodRecord) -> None:
        """Make a Pod's directory; one that exists already gets its record renewed."""
        directory = self.pod(record.uid)
        files = directory / "files"
        files.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o711)
        if record.host_uid is not None:
            os.chown(files, 0, record.host_uid)
            files.chmod(0o750)
        write_atomically(directory / "record.json", json.dumps(asdict(record)).encode(), 0o600)

    def remove_pod(self, uid: str) -> None:
        """Remove all that is left of a Pod."""
        remove_tree(self.pod(uid))


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that a crash leaves either the old one or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(path)


def owned_directory(path: Path, owner: int, mode: int = 0o755) -> Path:
    """A directory that belongs to a Pod, made if it does not exist."""
    path.mkdir(parents=True, exist_ok=True)
    if owner != -1:
        os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def give_tree(path: Path, owner: int) -> None:
    """Let everything below a directory belong to another Pod, without following any link.

    Data of a volume outlives the Pod that wrote it, and the next Pod has another uid.
    """
    if owner == -1 or path.stat().st_uid == owner:
        return
    for _, directories, files, fd in os.fwalk(path, follow_symlinks=False):
        for name in (*directories, *files):
            os.chown(name, owner, owner, dir_fd=fd, follow_symlinks=False)
    os.chown(path, owner, owner)  # last: it is the mark that the walk came to its end


def remove_tree(path: Path) -> None:
    """Remove a directory that a sandbox could write to, even if it took away its own permissions.

    Raises:
        OSError: something in it cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError:
        _open_up(path)
        shutil.rmtree(path)


def _open_up(top: Path) -> None:
    """Give the owner all rights on every directory of a tree, without following any link."""
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        directory.chmod(0o700)
        with os.scandir(directory) as entries:
            waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
