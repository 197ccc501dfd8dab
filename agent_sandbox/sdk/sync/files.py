"""The files of a sandbox: whole, streamed, listed, watched, searched.

Generated from ``agent_sandbox/sdk/files.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""

from collections.abc import Generator, Sequence
from pathlib import Path

from agent_sandbox.sdk.copying import ProgressReceiver
from agent_sandbox.sdk.facade import Facade
from agent_sandbox.sdk.files import AsyncFiles
from agent_sandbox.sdk.mirror_plan import Direction, Preference
from agent_sandbox.sdk.results import (
    FileEntry,
    FileEvent,
    ProgressCallback,
    SearchMatch,
    Source,
    SyncReport,
    TransferReport,
)


class Files(Facade[AsyncFiles]):
    """The files of one sandbox.

    Paths are relative to the workspace, or absolute within what the runtime allows (the workspace and ``/tmp``). With
    an image that speaks only the legacy contract, ``read``, ``write``, ``download``, ``list`` and ``exists`` work, as
    far as it has them.
    """

    def read(self, path: str, *, timeout: float | None = 60) -> bytes:
        """The content of a file.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxPermissionError: the path is not allowed.
        """
        return self._run(lambda job: self._inner.read(path, timeout=timeout))

    def read_text(self, path: str, *, timeout: float | None = 60) -> str:
        """The content of a UTF-8 file.

        Raises:
            UnicodeDecodeError: it is none.
            SandboxFileNotFoundError: there is no such file.
        """
        return self._run(lambda job: self._inner.read_text(path, timeout=timeout))

    def write(self, path: str, content: bytes | str, *, mode: str | None = None, timeout: float | None = 60) -> None:
        """Write a file whole; missing directories are made, and a reader sees the old file or the new one, never half.

        Args:
            path: where.
            content: bytes, or text to be written as UTF-8.
            mode: permissions as octal digits, for example ``0755``; ``0644`` by default.
            timeout: seconds.

        Raises:
            SandboxPermissionError: the path is not allowed.
            SandboxDiskFullError: no space is left.
        """
        return self._run(lambda job: self._inner.write(path, content, mode=mode, timeout=timeout))

    def upload(
        self, source: Source, path: str, *, mode: str | None = None, on_progress: ProgressCallback | None = None
    ) -> int:
        """Write a file of any size without holding it in memory; returns its size.

        A connection that breaks is opened again and the upload goes on where the sandbox has it, if the source can be
        read again (content and local files). The sandbox checks the SHA-256 before the file appears under its name.

        Args:
            source: content, a local file, or pieces as they come.
            path: where.
            mode: permissions as octal digits; those of a local file, else ``0644``, by default.
            on_progress: gets the number of bytes that arrived, again and again.

        Raises:
            SandboxDiskFullError: no space is left; nothing is under the name.
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(
            lambda job: self._inner.upload(
                source, path, mode=mode, on_progress=None if on_progress is None else job.callback(on_progress)
            )
        )

    def download(self, path: str, target: str | Path, *, on_progress: ProgressCallback | None = None) -> int:
        """Save a file of any size on this machine without holding it in memory; returns its size.

        It is written beside the target and takes its name when it is whole and its SHA-256 is right. If this is broken
        off, the next call goes on where it ended.

        Args:
            path: the file in the sandbox.
            target: the file here; missing directories are made.
            on_progress: gets the number of bytes that arrived, again and again.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxProtocolError: the checksum is wrong again and again.
        """
        return self._run(
            lambda job: self._inner.download(
                path, target, on_progress=None if on_progress is None else job.callback(on_progress)
            )
        )

    def stream(self, path: str, *, start: int = 0) -> Generator[bytes, None, None]:
        """Read a file of any size piece by piece.

        Args:
            path: the file.
            start: number of bytes to leave out at the beginning.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxOutcomeUnknownError: the connection broke before the end.
        """
        return self._iterate(self._inner.stream(path, start=start))

    def put(self, local: str | Path, remote: str, *, on_progress: ProgressReceiver | None = None) -> TransferReport:
        """Copy a local file, or a directory with all that is in it, into the sandbox, as ``cp -r`` does.

        Each file is checked and appears whole or not at all, with its permissions. Links below a directory are left
        out, and the report names them.

        Args:
            local: the file or the directory here.
            remote: its path there; if that is a directory or ends with ``/``, it is put into it under its own name.
            on_progress: gets a ``TransferProgress``, again and again.

        Raises:
            OSError: the local file cannot be read.
            SandboxDiskFullError: no space is left.
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(
            lambda job: self._inner.put(
                local, remote, on_progress=None if on_progress is None else job.callback(on_progress)
            )
        )

    def get(self, remote: str, local: str | Path, *, on_progress: ProgressReceiver | None = None) -> TransferReport:
        """Copy a file, or a directory with all that is in it, out of the sandbox, as ``cp -r`` does.

        Each file is checked and appears whole or not at all, with its permissions. Links to directories are left out,
        and the report names them.

        Args:
            remote: the file or the directory in the sandbox.
            local: its path here; if that is a directory, it is put into it under its own name.
            on_progress: gets a ``TransferProgress``, again and again.

        Raises:
            SandboxFileNotFoundError: there is nothing at that path.
            OSError: the local file cannot be written.
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(
            lambda job: self._inner.get(
                remote, local, on_progress=None if on_progress is None else job.callback(on_progress)
            )
        )

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file as 64 hex digits, reckoned in the sandbox.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(lambda job: self._inner.sha256(path))

    def stat(self, path: str) -> FileEntry:
        """What is at that path; a link is not followed.

        Raises:
            SandboxFileNotFoundError: nothing is.
        """
        return self._run(lambda job: self._inner.stat(path))

    def exists(self, path: str) -> bool:
        """Whether anything is at that path.

        Raises:
            SandboxPermissionError: the path is not allowed.
        """
        return self._run(lambda job: self._inner.exists(path))

    def mkdir(self, path: str, *, parents: bool = True) -> None:
        """Make a directory; one that exists is fine if ``parents`` is True, as with ``mkdir -p``.

        Raises:
            SandboxRequestError: it exists, or its parent does not, and ``parents`` is False; or a file is there.
        """
        return self._run(lambda job: self._inner.mkdir(path, parents=parents))

    def rename(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Move a file or a directory.

        Raises:
            SandboxFileNotFoundError: there is no such source.
            SandboxRequestError: the target exists and ``overwrite`` is False.
        """
        return self._run(lambda job: self._inner.rename(source, target, overwrite=overwrite))

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link itself, or a directory.

        Args:
            path: what; it must name something, the workspace itself cannot be removed.
            recursive: whether a directory may have something in it.

        Raises:
            ValueError: the path names nothing.
            SandboxFileNotFoundError: nothing is there.
            SandboxRequestError: the directory is not empty.
        """
        return self._run(lambda job: self._inner.remove(path, recursive=recursive))

    def chmod(self, path: str, mode: str) -> None:
        """Set the permissions, as octal digits, for example ``0755``.

        Raises:
            SandboxFileNotFoundError: nothing is there.
        """
        return self._run(lambda job: self._inner.chmod(path, mode))

    def search(
        self, path: str = ".", *, name: str = "", content: str = "", limit: int = 1000
    ) -> tuple[SearchMatch, ...]:
        """Find files by name and lines by content, in the sandbox.

        Args:
            path: where to begin.
            name: a glob that file names must match.
            content: a regular expression that lines must match; without one, files are returned.
            limit: at most so many matches.

        Raises:
            SandboxFileNotFoundError: there is no such directory.
            SandboxRequestError: the expression is none.
        """
        return self._run(lambda job: self._inner.search(path, name=name, content=content, limit=limit))

    def watch(self, path: str = ".", *, recursive: bool = True) -> Generator[FileEvent, None, None]:
        """Changes below a directory, as they happen, until the caller has enough.

        Args:
            path: the directory.
            recursive: whether directories in it are watched too.

        Raises:
            SandboxFileNotFoundError: there is no such directory.
            SandboxOutcomeUnknownError: the connection broke, so changes may have been missed.
        """
        return self._iterate(self._inner.watch(path, recursive=recursive))

    def sync(
        self,
        local: str | Path,
        remote: str = ".",
        *,
        direction: Direction = "both",
        delete: bool = False,
        prefer: Preference | None = None,
        ignore: Sequence[str] = (),
    ) -> SyncReport:
        """Make a directory here and one in the sandbox equal.

        What changed since the last sync is told by a hidden file in the local directory. The file ``.sandboxignore``
        there says what is left alone, in the language of ``.gitignore``. Links are left alone, too.

        Args:
            local: the directory here; it is made if it is missing, unless it is the one that is right.
            remote: the directory in the sandbox, likewise.
            direction: ``both``, ``up`` (the local side is right) or ``down`` (the sandbox is right).
            delete: whether what was removed on one side is removed on the other; with ``up`` and ``down``, whether
                what only the other side has is removed. With ``both``, a sandbox that has no file left is taken for
                one that started anew, and nothing here is removed for it.
            prefer: which side wins where both changed; unset leaves both as they are and reports a conflict.
            ignore: patterns beside those of the ignore file.

        Raises:
            FileNotFoundError: the local directory is missing with ``up``, or on both sides with ``both``.
            SandboxFileNotFoundError: the sandbox's directory is missing with ``down``.
            SandboxProtocolError: the sandbox names files in a way that leads outside the local directory.
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(
            lambda job: self._inner.sync(
                local, remote, direction=direction, delete=delete, prefer=prefer, ignore=ignore
            )
        )

    def list(self, path: str = ".") -> list[FileEntry]:
        """What is in a directory, sorted by name.

        Raises:
            SandboxFileNotFoundError: there is no such directory.
            SandboxRequestError: it is a file.
        """
        return self._run(lambda job: self._inner.list(path))


__all__ = ["Files"]
