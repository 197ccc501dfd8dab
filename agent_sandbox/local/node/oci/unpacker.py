"""Unpacks layers of an image below a directory, as a program of its own: its root is that directory before it reads.

Usage: ``unpacker.py apply DIRECTORY`` with a layer on standard input, for each; then ``unpacker.py finish DIRECTORY``,
which prints the image's ``/etc/passwd`` and ``/etc/group`` as JSON.

An image is a stranger's: its links may lead anywhere, its names may contain ``..``. Behind a changed root none of that
reaches the machine's own files. Only the standard library is used, and all of it is imported before the root changes.
"""

import bz2  # noqa: F401 - loaded now, because tarfile cannot find it later
import contextlib
import ctypes
import gzip  # noqa: F401
import json
import lzma  # noqa: F401
import os
import shutil
import stat
import sys
import tarfile
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_OWN_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
_MOUNTED_UPON = ("dev", "etc", "proc", "sys")
_OWN_DIRECTORIES = (*_MOUNTED_UPON, "run", "tmp", "var", "var/tmp")


def _enter(directory: str) -> None:
    """Make the directory the root; without root's rights, as the root of a user namespace of our own."""
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "no user namespace to unpack an image in")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    os.chdir(directory)
    os.chroot(".")
    os.umask(0)


def _is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_real_directory(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_parent(path: Path) -> None:
    """The directory of an entry, made if need be; a file in its place gives way, as a later layer's wish."""
    parent = path.parent
    if not parent.is_dir():
        _remove(parent)
        parent.mkdir(0o777, parents=True)


def _mode(member: tarfile.TarInfo) -> int:
    """The permissions: whoever runs is the one user of a sandbox, so all may do what the owner may.

    Set-uid bits mean nothing behind ``no_new_privs`` and are dropped.
    """
    owner = (member.mode >> 6) & 7
    if member.isdir():
        owner |= 7
    return (member.mode & stat.S_ISVTX) | owner << 6 | owner << 3 | owner


def _apply(tar: tarfile.TarFile) -> None:
    """One layer over those below it."""
    new: set[Path] = set()
    for member in tar:
        path = Path(os.path.normpath("/" + member.name))
        if path == path.parent:
            continue
        _make_parent(path)
        if path.name == _OPAQUE:
            for entry in path.parent.iterdir():
                if entry not in new:
                    _remove(entry)
        elif path.name.startswith(_WHITEOUT):
            _remove(path.with_name(path.name.removeprefix(_WHITEOUT)))
        else:
            _place(tar, member, path)
            new.update((path, *path.parents))


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        if not _is_real_directory(path):
            _remove(path)
            path.mkdir()
        path.chmod(_mode(member))
        return
    if not (member.isfile() or member.issym() or member.islnk()):
        return  # devices and pipes: a sandbox has its own /dev
    _remove(path)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        os.link(os.path.normpath("/" + member.linkname), path, follow_symlinks=False)
    else:
        source = tar.extractfile(member)
        assert source is not None, "a regular file has content"
        with path.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        path.chmod(_mode(member))
        os.utime(path, (member.mtime, member.mtime))


def _prepare() -> None:
    """What a sandbox is mounted upon must exist and be no link: bwrap would follow one to the machine's old root."""
    for name in _OWN_DIRECTORIES:
        path = Path("/", name)
        if not path.is_dir() or (name in _MOUNTED_UPON and path.is_symlink()):
            _remove(path)
            path.mkdir(0o777, parents=True)
    for name in ("tmp", "var/tmp"):
        Path("/", name).chmod(0o1777)
    for name in _OWN_FILES:
        path = Path("/", name)
        if path.is_symlink() or not path.is_file():
            _remove(path)
            path.touch()
            path.chmod(0o666)


def _read(name: str) -> str:
    with contextlib.suppress(OSError), Path("/", name).open(encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)
    return ""


def main(what: str, directory: str) -> None:
    """Apply the layer on standard input, or finish: then say who the image's users are."""
    _enter(directory)
    if what == "apply":
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as tar:
            _apply(tar)
    else:
        _prepare()
        sys.stdout.write(json.dumps({"passwd": _read("etc/passwd"), "group": _read("etc/group")}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
