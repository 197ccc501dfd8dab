"""Mounts that belong to one Pod, in the helper's own mount namespace: volumes in memory, and parts of volumes.

Containers see them through bubblewrap's bind mounts; they go with the Pod.
"""

import errno
import os
import stat
from pathlib import Path

from agent_sandbox.local.node.helper import linux


class PodMounts:
    """Mount points below ``own`` in the tree, by Pod."""

    def __init__(self, tree: str, *, privileged: bool) -> None:
        self._tree = tree
        self._privileged = privileged
        self._mounted: dict[str, list[str]] = {}
        Path(tree, "own").mkdir()

    def memory(self, pod: str, name: str, size: int, owner: int) -> str:
        """A file system in memory of ``size`` bytes that everybody in the Pod may write to; its path.

        The same name in the same Pod is the same file system.
        """
        target, is_new = self._target(pod, name)
        if is_new:
            Path(target).mkdir()
            data = f"size={size},mode=0777" + (f",uid={owner},gid={owner}" if owner != -1 else "")
            linux.mount("tmpfs", target, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, data)
            self._mounted.setdefault(pod, []).append(target)
        return target

    def below(self, pod: str, name: str, root: str, path: str, owner: int) -> str:
        """A directory or file below a volume, shown at a path of its own; made as a directory if it does not exist.

        Containers may be writing to the volume meanwhile, so every step is taken relative to the last one and no link
        is ever followed.

        Raises:
            OSError: the path leads through a link.
        """
        target, is_new = self._target(pod, name)
        if not is_new:  # a restarted container: what was there before may have been replaced
            self._unmount(target)
            self._mounted[pod].remove(target)
        fd = os.open(f"{self._tree}/{root}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in Path(path).parts:
                following = _step(fd, part, owner)
                os.close(fd)
                fd = following
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                Path(target).mkdir()
            else:
                Path(target).touch()
            linux.mount(f"/proc/self/fd/{fd}", target, flags=linux.MS_BIND)
        finally:
            os.close(fd)
        self._mounted.setdefault(pod, []).append(target)
        return target

    def overlay(self, pod: str, name: str, lower: str, upper: str, work: str, *, read_only: bool) -> str:
        """A root file system: ``upper`` over the read-only ``lower``, all relative to the tree; its path.

        A restarted container gets a new one. One that its runtime will show ``read_only`` is mounted without flags:
        gVisor remounts it within a user namespace, where the kernel lets no flag go. Nobody can put a device there,
        and images bring none.
        """
        target, is_new = self._target(pod, name)
        if not is_new:
            self._unmount(target)
            self._mounted[pod].remove(target)
        Path(target).mkdir()
        layers = f"lowerdir={self._tree}/{lower},upperdir={self._tree}/{upper},workdir={self._tree}/{work}"
        # Without the machine's root, the kernel keeps its notes in attributes that a user may write.
        data = layers if self._privileged else f"{layers},userxattr"
        flags = 0 if read_only else linux.MS_NOSUID | linux.MS_NODEV
        linux.mount("overlay", target, "overlay", flags, data)
        self._mounted.setdefault(pod, []).append(target)
        return target

    def _target(self, pod: str, name: str) -> tuple[str, bool]:
        target = f"{self._tree}/own/{pod}-{name}"
        return target, target not in self._mounted.get(pod, ())

    def remove(self, pod: str) -> None:
        """Take all mounts of a Pod away."""
        for target in self._mounted.pop(pod, ()):
            self._unmount(target)

    @staticmethod
    def _unmount(target: str) -> None:
        linux.unmount(target)
        path = Path(target)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _step(directory: int, part: str, owner: int) -> int:
    """A descriptor of an entry, which is made as a directory if it is absent."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(part, flags, dir_fd=directory)
    except FileNotFoundError:
        os.mkdir(part, 0o777, dir_fd=directory)
        if owner != -1:
            os.chown(part, owner, owner, dir_fd=directory, follow_symlinks=False)
        fd = os.open(part, flags, dir_fd=directory)
    if part == ".." or stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, f"{part!r} leads out of the volume")
    return fd
