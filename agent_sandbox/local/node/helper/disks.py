"""Volumes that are disks: files with an ext4 file system, mounted in the helper's own mount namespace.

A loop device is told to clear itself with its last user, and the mount goes with the namespace, so that nothing is left
when the helper is killed.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

from agent_sandbox.local.node.helper import linux

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4
_ATTEMPTS = 20

_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")
"""``struct loop_config``: descriptor, block size, ``struct loop_info64``, reserved."""


def attach_loop(file_fd: int) -> int:
    """A loop device on an open file; its descriptor. The device goes when its last user does.

    Raises:
        OSError: there is no loop device to be had.
    """
    config = _CONFIG.pack(file_fd, 0, *[0] * 5, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", 0, 0, *[0] * 8)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                # Somebody else took it between our two calls.
                if error.errno != errno.EBUSY or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return device
    finally:
        os.close(control)
    raise AssertionError("the loop above returns or raises")


class Disks:
    """Mounted disks by name."""

    def __init__(self, tree: str) -> None:
        self._tree = tree
        self._mounted: dict[str, str] = {}

    def attach(self, name: str, file: str, owner: int) -> str:
        """Mount a disk, once; the path of its data.

        Args:
            name: unique among disks.
            file: its file, relative to the tree.
            owner: to whom the data belongs when the disk is new; -1 for ourselves.

        Raises:
            OSError: the kernel refused.
        """
        if name not in self._mounted:
            target = f"{self._tree}/own/disk-{name}"
            Path(target).mkdir(exist_ok=True)
            fd = os.open(f"{self._tree}/{file}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                device = attach_loop(fd)
            finally:
                os.close(fd)
            try:
                linux.mount(
                    str(Path(f"/proc/self/fd/{device}").readlink()),
                    target,
                    "ext4",
                    linux.MS_NOSUID | linux.MS_NODEV,
                    "discard",
                )
            finally:
                os.close(device)
            self._mounted[name] = target
            self._make_data(Path(target, "data"), owner)
        return f"{self._mounted[name]}/data"

    @staticmethod
    def _make_data(path: Path, owner: int) -> None:
        # Beside ext4's own lost+found, which is not for a sandbox to see.
        if not path.exists():
            path.mkdir()
            path.chmod(0o770)
            if owner != -1:
                os.chown(path, owner, owner)

    def detach(self, name: str) -> None:
        """Unmount a disk; one that is not mounted is left in peace."""
        target = self._mounted.get(name)
        if target is not None:
            linux.unmount(target)
            del self._mounted[name]  # not before: one that is in use is tried again
            Path(target).rmdir()
