"""Copies a file, or a directory with all that is in it, between this machine and a sandbox, as ``cp -r`` does.

In: two paths. Out: a report. Each file arrives whole, checked and under its name at once, or not at all; a copy that is
broken off leaves whole files only, and a second one goes on from there. The sandbox is not trusted: no name that it
gives leads a byte outside the target, and no permission that it sets makes a file here run as somebody else.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from agent_sandbox.sdk.batches import run_batch
from agent_sandbox.sdk.errors import SandboxFileNotFoundError, SandboxProtocolError, SandboxRequestError
from agent_sandbox.sdk.mirroring import checked_name
from agent_sandbox.sdk.results import FileEntry, ProgressCallback, TransferProgress, TransferReport
from agent_sandbox.sdk.transfers import call

AT_ONCE: Final = 8
_PERMISSIONS: Final = 0o777

ProgressReceiver = Callable[[TransferProgress], object]
"""Gets the progress again and again; may be an async function."""


class CopiedFiles(Protocol):
    """What a copy needs of a sandbox's files."""

    async def list(self, path: str = ".") -> list[FileEntry]:
        """What is in a directory."""

    async def stat(self, path: str) -> FileEntry:
        """What is at a path."""

    async def mkdir(self, path: str) -> None:
        """Make a directory and those above it."""

    async def upload(self, source: Any, path: str, *, on_progress: ProgressCallback | None = None) -> int:
        """Write a file."""

    async def download(self, path: str, target: Path, *, on_progress: ProgressCallback | None = None) -> int:
        """Save a file here."""


@dataclass(frozen=True)
class _Item:
    """One file to be copied; ``path`` is relative, and empty if it is the whole copy."""

    source: str
    target: str
    path: str
    size: int
    mode: int


@dataclass
class _Work:
    """What is to be copied."""

    items: list[_Item] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class _Tally:
    """Adds up the progress of files that are copied side by side.

    Attributes:
        bytes: all that arrived.
    """

    def __init__(self, items: list[_Item], receiver: ProgressReceiver | None) -> None:
        self.bytes = 0
        self._total = sum(item.size for item in items)
        self._done: dict[str, int] = {}
        self._receiver = receiver

    async def note(self, item: _Item, done: int) -> None:
        """A file has come so far."""
        self.bytes += done - self._done.get(item.path, 0)
        self._done[item.path] = done
        if self._receiver is not None:
            # A file may have grown since it was counted.
            await call_with(self._receiver, TransferProgress(self.bytes, max(self._total, self.bytes), item.path))


async def call_with(receiver: ProgressReceiver, progress: TransferProgress) -> None:
    """Call a receiver that may be an async function."""
    await call(lambda _: receiver(progress), progress.done)


async def put(
    files: CopiedFiles, local: Path, remote: str, *, on_progress: ProgressReceiver | None = None
) -> TransferReport:
    """Copy a file or a directory into the sandbox; see ``AsyncFiles.put``."""
    if remote.endswith("/") or await _is_directory(files, remote):
        name = (await anyio.Path(local).resolve()).name
        remote = name if remote == "." else f"{remote.rstrip('/')}/{name}"
    work = await anyio.to_thread.run_sync(_scan_here, local, remote)
    tally = _Tally(work.items, on_progress)

    async def send(item: _Item) -> None:
        size = await files.upload(Path(item.source), item.target, on_progress=lambda done: tally.note(item, done))
        await tally.note(item, size)

    await run_batch(files.mkdir, work.directories, at_once=AT_ONCE)
    await run_batch(send, work.items, at_once=AT_ONCE)
    return TransferReport(len(work.items), tally.bytes, tuple(work.skipped))


async def get(
    files: CopiedFiles, remote: str, local: Path, *, on_progress: ProgressReceiver | None = None
) -> TransferReport:
    """Copy a file or a directory out of the sandbox; see ``AsyncFiles.get``."""
    if await anyio.Path(local).is_dir():
        # The name of the workspace itself is none that anybody gave: its content is meant.
        name = remote.rstrip("/").rpartition("/")[2]
        local = local if name in {"", ".", ".."} else local / checked_name(name)
    work = await _scan_there(files, remote, local)
    tally = _Tally(work.items, on_progress)

    async def receive(item: _Item) -> None:
        size = await files.download(item.source, Path(item.target), on_progress=lambda done: tally.note(item, done))
        await anyio.Path(item.target).chmod(item.mode)
        await tally.note(item, size)

    for directory in work.directories:
        await anyio.to_thread.run_sync(_make_below, local, Path(directory))
    await run_batch(receive, work.items, at_once=AT_ONCE)
    return TransferReport(len(work.items), tally.bytes, tuple(work.skipped))


async def _is_directory(files: CopiedFiles, path: str) -> bool:
    try:
        entry = await files.stat(path)
        if entry.type == "symlink":
            await files.list(path)
            return True
    except (SandboxFileNotFoundError, SandboxRequestError):
        return False
    return entry.type == "directory"


def _scan_here(local: Path, remote: str) -> _Work:
    """All that is below a local path. Links are left out, except the path itself."""
    if not local.is_dir():
        status = local.stat()
        return _Work([_Item(str(local), remote, "", status.st_size, status.st_mode & _PERMISSIONS)])
    work = _Work(directories=[remote])
    for directory, names, found in os.walk(local):
        at = Path(directory).relative_to(local)
        for name in sorted(names + found):
            path, source = (at / name).as_posix(), Path(directory, name)
            target = f"{remote}/{path}"
            if source.is_symlink() or not (source.is_dir() or source.is_file()):
                work.skipped.append(path)
            elif source.is_dir():
                work.directories.append(target)
            else:
                status = source.stat()
                work.items.append(_Item(str(source), target, path, status.st_size, status.st_mode & _PERMISSIONS))
    return work


async def _scan_there(files: CopiedFiles, remote: str, local: Path) -> _Work:
    """All that is below a path of the sandbox."""
    top = await files.stat(remote)
    if not await _is_directory(files, remote):
        return _Work([_Item(remote, str(local), "", top.size, _permissions(top))])
    work = _Work(directories=[str(local)])
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for entry in await files.list(f"{remote}/{directory}" if directory else remote):
            path = f"{directory}/{checked_name(entry.name)}".removeprefix("/")
            source, target = f"{remote}/{path}", str(local / path)
            if entry.type == "directory" and not entry.link:
                waiting.append(path)
                work.directories.append(target)
            elif entry.type == "file":
                work.items.append(_Item(source, target, path, entry.size, _permissions(entry)))
            else:
                work.skipped.append(path)  # a listing shows a link as what it leads to, and it may lead upwards
    return work


def _make_below(root: Path, directory: Path) -> None:
    """Make a directory of the copy; refuse one that a link of this machine would lead out of it."""
    if not directory.resolve().is_relative_to(root.resolve()):
        raise SandboxProtocolError(f"{directory} leads through a link out of {root}: nothing is copied there")
    directory.mkdir(parents=True, exist_ok=True)


def _permissions(entry: FileEntry) -> int:
    return int(entry.mode or "644", 8) & _PERMISSIONS


__all__ = ["ProgressReceiver", "get", "put"]
