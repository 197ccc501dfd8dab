"""Changes of the file tree below the allowed directories: make, move, remove, set permissions.

All functions here may block: call them in a worker thread.
"""

import ctypes
import errno
import functools
import os
import shutil
import stat
from typing import Any

from agent_sandbox.sandboxd.confine import Confinement, Place
from agent_sandbox.sandboxd.errors import ConflictError, PathNotFoundError
from agent_sandbox.sandboxd.files import translated

_RENAME_NOREPLACE = 1


def make_directory_blocking(confinement: Confinement, path: str, *, parents: bool) -> None:
    """Make a directory; with `parents` also those above it, and one that exists is fine.

    Raises:
        ConflictError: something is there already.
        PathNotFoundError: the directory above does not exist.
    """
    with translated(path), confinement.place(path, create_parents=parents) as place:
        try:
            os.mkdir(place.name, 0o755, dir_fd=place.directory)
        except FileExistsError:
            if not (parents and _is_directory(place)):
                raise ConflictError(f"{path!r} exists already") from None


def rename_blocking(confinement: Confinement, source: str, target: str, *, overwrite: bool) -> None:
    """Move a file, a link itself, or a directory, in one step.

    Raises:
        PathNotFoundError: there is no such source, or no directory for the target.
        ConflictError: the target exists and `overwrite` is False, or cannot be replaced.
    """
    with (
        translated(f"{source} -> {target}"),
        confinement.place(source, follow=False) as old,
        confinement.place(target, follow=False) as new,
    ):
        if "." in (old.name, new.name):
            raise ConflictError("the workspace itself cannot be moved or replaced")
        if overwrite:
            os.replace(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)
        else:
            _rename_without_replacing(old, new)


def remove_blocking(confinement: Confinement, path: str, *, recursive: bool) -> None:
    """Remove a file, a link itself, or a directory. Of a root only the content goes, and only with `recursive`.

    Raises:
        PathNotFoundError: nothing is there.
        ConflictError: the directory is not empty and `recursive` is False.
    """
    with translated(path), confinement.place(path, follow=False) as place:
        if place.name == ".":
            if not recursive:
                raise ConflictError(f"{path!r} is the workspace itself; with recursive its content is removed")
            _empty(place)
        elif not _is_directory(place):
            os.unlink(place.name, dir_fd=place.directory)
        elif recursive:
            shutil.rmtree(place.name, dir_fd=place.directory)
        else:
            os.rmdir(place.name, dir_fd=place.directory)


def set_mode_blocking(confinement: Confinement, path: str, mode: int) -> None:
    """Set permissions; a link's target gets them.

    Raises:
        PathNotFoundError: nothing is there.
    """
    with translated(path), confinement.place(path) as place:
        # chmod knows no descriptor-relative form that follows no link; through an O_PATH descriptor it does.
        descriptor = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
        try:
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise PathNotFoundError(f"{path!r} changed into a link meanwhile")
            os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101 - a descriptor, not a path
        finally:
            os.close(descriptor)


def _is_directory(place: Place) -> bool:
    return stat.S_ISDIR(os.stat(place.name, dir_fd=place.directory, follow_symlinks=False).st_mode)


def _empty(place: Place) -> None:
    inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        with os.scandir(inside) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in names:
            if is_directory:
                shutil.rmtree(name, dir_fd=inside)
            else:
                os.unlink(name, dir_fd=inside)
    finally:
        os.close(inside)


def _rename_without_replacing(old: Place, new: Place) -> None:
    libc = _libc()
    done = libc.renameat2(old.directory, os.fsencode(old.name), new.directory, os.fsencode(new.name), _RENAME_NOREPLACE)
    if done == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number))
    # gVisor and some file systems cannot do it in one step.
    try:
        os.stat(new.name, dir_fd=new.directory, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old.name, new.name, src_dir_fd=old.directory, dst_dir_fd=new.directory)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
