"""Files below the allowed directories: written atomically, listed without following links out, opened once.

Functions named ``*_blocking`` may block and belong in a worker thread; `FileSink` and the others do that themselves.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import anyio

from agent_sandbox.sandboxd.confine import Confinement, Place
from agent_sandbox.sandboxd.errors import (
    ChecksumMismatchError,
    ConflictError,
    DiskFullError,
    PathDeniedError,
    PathNotFoundError,
    SandboxdError,
    TooLargeError,
)
from agent_sandbox.sandboxd.threads import in_thread

WRITE_SIZE: Final = 1024 * 1024
"""Bytes gathered before they go to the disk: fewer hops to a thread, bounded memory per upload."""

TEMPORARY_PREFIX: Final = ".agent-sandbox-"
DEFAULT_MODE: Final = 0o644
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


def translate(error: OSError, path: str) -> SandboxdError:
    """Our error for what the operating system said about `path`."""
    if error.errno in _NO_SPACE:
        return DiskFullError(f"no space left to write {path!r}")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return PathNotFoundError(f"{path!r} does not exist")
    if isinstance(error, PermissionError):
        return PathDeniedError(f"{path!r}: the sandbox's user may not do this: {error.strerror}")
    if isinstance(error, FileExistsError | IsADirectoryError) or error.errno in (errno.ENOTEMPTY, errno.EBUSY):
        return ConflictError(f"{path!r}: {error.strerror}")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        return PathDeniedError(f"{path!r} is no valid name: {error.strerror}")
    return SandboxdError(f"{path!r}: {error.strerror}")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn the operating system's errors about `path` into ours."""
    try:
        yield
    except OSError as error:
        raise translate(error, path) from error


@dataclass(frozen=True)
class Entry:
    """One name in a directory, as its target if it is a link that stays inside.

    Attributes:
        kind: ``file``, ``directory``, ``symlink`` (one that leads nowhere or outside) or ``other``.
        mode: permission bits.
        modified: seconds since the epoch.
        link: whether the name itself is a link.
    """

    name: str
    kind: str
    size: int
    mode: int
    modified: float
    link: bool = False


def entry_from(name: str, status: os.stat_result) -> Entry:
    """Describe a file by what stat says of it."""
    if stat.S_ISDIR(status.st_mode):
        kind = "directory"
    elif stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISLNK(status.st_mode):
        kind = "symlink"
    else:
        kind = "other"
    return Entry(name, kind, status.st_size, stat.S_IMODE(status.st_mode), status.st_mtime, link=kind == "symlink")


def stat_blocking(confinement: Confinement, path: str, *, follow: bool = True) -> Entry:
    """Describe what is at `path`.

    Raises:
        PathNotFoundError: nothing is there.
        PathDeniedError: the path leaves the allowed directories.
    """
    with translated(path), confinement.place(path, follow=follow) as place:
        return entry_from(place.name, os.stat(place.name, dir_fd=place.directory, follow_symlinks=False))


def exists_blocking(confinement: Confinement, path: str) -> bool:
    """Whether something is at `path`.

    Raises:
        PathDeniedError: the path leaves the allowed directories.
    """
    try:
        stat_blocking(confinement, path)
    except PathNotFoundError:
        return False
    return True


def list_blocking(confinement: Confinement, path: str) -> list[Entry]:
    """The entries of a directory, by name; uploads on their way are left out.

    Raises:
        PathNotFoundError: there is no directory at `path`.
        PathDeniedError: the path leaves the allowed directories.
    """
    entries: list[Entry] = []
    with (
        translated(path),
        confinement.open(path, os.O_RDONLY | os.O_DIRECTORY) as directory,
        os.scandir(directory) as names,
    ):
        for name in names:
            if name.name.startswith(TEMPORARY_PREFIX):
                continue
            with suppress(FileNotFoundError):  # It was removed while we were listing.
                entries.append(_entry(confinement, path, name))
    return sorted(entries, key=lambda entry: entry.name)


def _entry(confinement: Confinement, directory: str, name: "os.DirEntry[str]") -> Entry:
    own = name.stat(follow_symlinks=False)
    if name.is_symlink():
        with suppress(SandboxdError):  # It leads nowhere or outside: then it is described itself.
            target = stat_blocking(confinement, os.path.join(directory, name.name))  # noqa: PTH118 - text, not a file
            return Entry(name.name, target.kind, target.size, target.mode, target.modified, link=True)
    return entry_from(name.name, own)


@contextmanager
def open_file_blocking(confinement: Confinement, path: str) -> Iterator[int]:
    """Open a regular file for reading.

    Raises:
        PathNotFoundError: there is no regular file at `path`.
        PathDeniedError: the path leaves the allowed directories, or the file may not be read.
    """
    with ExitStack() as opened:
        # Opening only: a client that hangs up while the file is sent is no error of the file.
        with translated(path):
            descriptor = opened.enter_context(confinement.open(path))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PathNotFoundError(f"{path!r} is not a file")
        yield descriptor


class FileSink:
    """A file being written that appears at its place only when it is complete.

    The bytes go into a file without a name (``O_TMPFILE``), so that a crash leaves nothing behind; `commit` gives it
    its name in one step. Use as an async context manager: leaving it without `commit` discards everything.

    Args:
        path: where the file shall appear; missing parents are made.
        limit: most bytes accepted; None means no limit.
        mode: permission bits; None keeps those of the replaced file, or takes 0644.
    """

    def __init__(
        self, confinement: Confinement, path: str, *, limit: int | None = None, mode: int | None = None
    ) -> None:
        self.received = 0
        self._confinement = confinement
        self._path = path
        self._limit = limit
        self.mode = mode
        self._resources = ExitStack()
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        # Held while a thread works on the descriptor: closed under it, its number could become another file's.
        self._working = anyio.Lock()
        self._usable = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Begin; `close` must follow. The context manager does both."""
        await in_thread(self._open_blocking)
        self._usable = True

    async def close(self) -> None:
        """Discard what was not committed."""
        self._usable = False
        with anyio.CancelScope(shield=True):
            async with self._working:
                await in_thread(self._resources.close)

    async def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            TooLargeError: more than the limit.
            DiskFullError: no space left.
            ConflictError: it was given up meanwhile, or an earlier write failed.
        """
        self._check_usable()
        self.received += len(data)
        if self._limit is not None and self.received > self._limit:
            raise TooLargeError(f"{self._path!r} is larger than the {self._limit} bytes that one upload may have")
        self._pending += data
        if len(self._pending) >= WRITE_SIZE:
            await self._flush()

    async def commit(self, *, sha256: str | None = None) -> str:
        """Make the file durable and let it appear, replacing what was there; gives its SHA-256 in hexadecimal.

        Args:
            sha256: what the checksum must be.

        Raises:
            ChecksumMismatchError: it is something else; nothing was replaced.
            ConflictError: a directory is at this place.
        """
        await self._flush()
        checksum = self._digest.hexdigest()
        if sha256 is not None and sha256.lower() != checksum:
            raise ChecksumMismatchError(
                f"{self._path!r} arrived with SHA-256 {checksum}, announced was {sha256.lower()}"
            )
        async with self._working:
            self._check_usable()
            await in_thread(self._commit_blocking)
        return checksum

    async def _flush(self) -> None:
        if not self._pending:
            return
        async with self._working:
            self._check_usable()
            data, self._pending = bytes(self._pending), bytearray()
            try:
                # Begun, it is finished, also when the client goes away now: an upload in parts goes on behind.
                await in_thread(self._write_blocking, data)
            except SandboxdError:
                self._usable = False  # A part is missing now; what follows must not close up to what came before.
                raise

    def _check_usable(self) -> None:
        if not self._usable:
            raise ConflictError(f"{self._path!r} was given up, or could not be written: begin again")

    def _open_blocking(self) -> None:
        with translated(self._path):
            try:
                self._place = self._resources.enter_context(self._confinement.place(self._path, create_parents=True))
                if self._place.name == ".":
                    raise ConflictError(f"{self._path!r} is a directory")
                self._named, self._file = _create_temporary(self._place)
                self._resources.callback(os.close, self._file)
                if self._named is not None:
                    self._resources.callback(_remove_quietly, self._place, self._named)
            except BaseException:
                self._resources.close()
                raise

    def _write_blocking(self, data: bytes) -> None:
        self._digest.update(data)
        view = memoryview(data)
        with translated(self._path):
            while view:
                view = view[os.write(self._file, view) :]

    def _commit_blocking(self) -> None:
        place = self._place
        with translated(self._path):
            os.fchmod(self._file, self._final_mode())
            os.fsync(self._file)
            name = self._named
            if name is None:
                name = TEMPORARY_PREFIX + secrets.token_hex(8)
                os.link(f"/proc/self/fd/{self._file}", name, dst_dir_fd=place.directory, follow_symlinks=True)
                self._resources.callback(_remove_quietly, place, name)
            os.replace(name, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)

    def _final_mode(self) -> int:
        if self.mode is not None:
            return self.mode
        try:
            present = os.stat(self._place.name, dir_fd=self._place.directory, follow_symlinks=False)
        except FileNotFoundError:
            return DEFAULT_MODE
        return stat.S_IMODE(present.st_mode) if stat.S_ISREG(present.st_mode) else DEFAULT_MODE


def _create_temporary(place: Place) -> tuple[str | None, int]:
    """A new file in the directory: without a name where the file system can, else with a hidden one."""
    try:
        return None, os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=place.directory)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
    name = TEMPORARY_PREFIX + secrets.token_hex(8)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return name, os.open(name, flags, 0o600, dir_fd=place.directory)


def _remove_quietly(place: Place, name: str) -> None:
    with suppress(FileNotFoundError):  # It got its final name.
        os.unlink(name, dir_fd=place.directory)
