"""Files of configMap, secret, downwardAPI and projected volumes, replaced all at once as a kubelet does.

::

    <volume>/..data -> ..1            what is shown now
    <volume>/..1/key                  the files
    <volume>/key -> ..data/key        what a container opens

A change makes a new directory and moves the one link ``..data``, so that a reader sees all old files or all new ones,
and who watches ``..data`` learns of the change. Everything is written with plain calls; call from a worker thread.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from agent_sandbox.local.node.errors import ContainerError
from agent_sandbox.local.node.records import owned_directory, remove_tree

_DATA: Final = "..data"


@dataclass(frozen=True)
class PayloadFile:
    """One file: its bytes, and its mode if that is not the volume's."""

    data: bytes
    mode: int | None = None


def write_payload(path: Path, files: Mapping[str, PayloadFile], mode: int, owner: int) -> bool:
    """Make a volume show these files and no others; False if it does already.

    Args:
        path: the volume.
        files: by path below it.
        mode: of files that name none.
        owner: uid and gid of the files; -1 for ourselves.

    Raises:
        ContainerError: a path leaves the volume.
    """
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith(("/", "..")):
            raise ContainerError("CreateContainerConfigError", f"volume path {name!r} leaves its volume")
    owned_directory(path, owner)
    present = _present(path)
    if present is not None and _shows(path / present, files):
        return False
    fresh = path / f"..{int(present.lstrip('.')) + 1 if present else 1}"
    remove_tree(fresh)  # of a node that was killed in between
    _write_all(fresh, files, mode, owner)
    _move_link(path / _DATA, fresh.name)
    _link_names(path, {PurePosixPath(name).parts[0] for name in files})
    if present is not None:
        remove_tree(path / present)
    return True


def current_files(path: Path) -> Path:
    """The directory of the files that a volume shows now; it never changes, only goes when newer ones come."""
    return path / (_present(path) or ".")


def _present(path: Path) -> str | None:
    try:
        return os.readlink(path / _DATA)  # noqa: PTH115 - the text of the link is wanted, not a path
    except FileNotFoundError:
        return None


def _shows(directory: Path, files: Mapping[str, PayloadFile]) -> bool:
    there = {str(entry.relative_to(directory)): entry for entry in directory.rglob("*") if entry.is_file()}
    return there.keys() == files.keys() and all(there[name].read_bytes() == files[name].data for name in files)


def _write_all(directory: Path, files: Mapping[str, PayloadFile], mode: int, owner: int) -> None:
    owned_directory(directory, owner)
    for name, file in files.items():
        target = directory / name
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            owned_directory(directory / parent, owner)
        target.write_bytes(file.data)
        # The owner may always read: only the container's own user can be the owner here.
        target.chmod((mode if file.mode is None else file.mode) & 0o777 | 0o400)
        if owner != -1:
            os.chown(target, owner, owner)


def _move_link(link: Path, target: str) -> None:
    temporary = link.with_name("..data_tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _link_names(path: Path, names: set[str]) -> None:
    for entry in path.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"{_DATA}/{name}")
