"""Keeps a local directory and one in a sandbox equal, both ways.

In: two directories and, in a hidden file of the local one, what they were when they were last equal. Out: a report. The
sandbox is not trusted: no name that it gives leads a byte outside the local directory.
"""

import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from agent_sandbox.sdk.batches import run_batch
from agent_sandbox.sdk.errors import SandboxFileNotFoundError, SandboxProtocolError
from agent_sandbox.sdk.ignoring import IGNORE_FILE, IgnoreRules
from agent_sandbox.sdk.mirror_plan import Action, Agreement, Direction, Fingerprint, Preference, plan, resolved
from agent_sandbox.sdk.results import FileEntry, SyncReport
from agent_sandbox.sdk.transfers import sha256_of

STATE_FILE: Final = ".agent-sandbox-sync.json"
AT_ONCE: Final = 8
_STATE_VERSION: Final = 1
_ALWAYS_IGNORED: Final = (f"/{STATE_FILE}", ".*.partial")


class MirroredFiles(Protocol):
    """What a mirror needs of a sandbox's files."""

    async def list(self, path: str = ".") -> list[FileEntry]:
        """What is in a directory."""

    async def stat(self, path: str) -> FileEntry:
        """What is at a path."""

    async def upload(self, source: Any, path: str) -> int:
        """Write a file."""

    async def download(self, path: str, target: str | Path) -> int:
        """Save a file here."""

    async def remove(self, path: str) -> None:
        """Remove a file."""

    def stream(self, path: str) -> AsyncIterator[bytes]:
        """Read a file."""


class Mirror:
    """One sync of two directories."""

    def __init__(self, files: MirroredFiles, local: Path, remote: str, key: str, ignore: Iterable[str]) -> None:
        """
        Args:
            files: the sandbox's files.
            local: the directory here.
            remote: the directory there.
            key: names the sandbox; what is known of another one counts for nothing.
            ignore: patterns beside those of the ignore file.
        """
        self._files = files
        self._local = local
        self._remote = remote.rstrip("/") or "/"
        self._key = f"{key}:{self._remote}"
        self._ignore = tuple(ignore)
        self._rules = IgnoreRules(())
        self._agreed: dict[str, Agreement] = {}
        self._done: dict[Action, list[str]] = {action: [] for action in Action}

    async def sync(self, *, direction: Direction, delete: bool, prefer: Preference | None) -> SyncReport:
        """Make both sides equal as far as that is allowed.

        Raises:
            FileNotFoundError: the side that is right is missing, or both are: to be equal would mean to be empty.
            SandboxFileNotFoundError: the same, where the sandbox's side is right.
        """
        here = await anyio.Path(self._local).exists()
        local = await anyio.to_thread.run_sync(self._scan_here)
        try:
            remote, there = await self._scan_there(), True
        except SandboxFileNotFoundError:
            if direction == "down":
                raise
            remote, there = {}, False
        if not here and (direction == "up" or not there):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._local))
        await anyio.Path(self._local).mkdir(parents=True, exist_ok=True)
        if not remote and direction == "both":
            # A sandbox that started anew, without the volume it had or under the name of another, has nothing either.
            self._agreed = {}
        actions = plan(local, remote, self._agreed, direction=direction, delete=delete, prefer=prefer)
        side: Preference | None = {"up": "local", "down": "remote"}.get(direction, prefer)  # type: ignore[assignment]
        self._agreed = {path: state for path, state in self._agreed.items() if path in local or path in remote}
        try:
            await run_batch(
                lambda item: self._act(*item, side, local.get(item[0]), remote.get(item[0])),
                actions.items(),
                at_once=AT_ONCE,
            )
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._write_state)
        done = {action: tuple(sorted(paths)) for action, paths in self._done.items()}
        return SyncReport(
            uploaded=done[Action.UPLOAD],
            downloaded=done[Action.DOWNLOAD],
            removed_local=done[Action.REMOVE_LOCAL],
            removed_remote=done[Action.REMOVE_REMOTE],
            conflicts=done[Action.CONFLICT],
        )

    async def _act(
        self,
        path: str,
        action: Action,
        prefer: Preference | None,
        local: Fingerprint | None,
        remote: Fingerprint | None,
    ) -> None:
        # What was read is noted as it was before the reading: a change that comes meanwhile is one for the next sync.
        here, there = self._here(path), self._there(path)
        if action is Action.COMPARE:
            if await self._is_equal(here, there):
                await self._agree(path, local, remote)
                return
            action = resolved(Action.CONFLICT, prefer) or Action.CONFLICT
        match action:
            case Action.UPLOAD:
                await self._files.upload(here, there)
                await self._agree(path, local, None)
            case Action.DOWNLOAD:
                await self._files.download(there, here)
                await self._agree(path, None, remote)
            case Action.REMOVE_LOCAL:
                await anyio.Path(here).unlink(missing_ok=True)
                self._agreed.pop(path, None)
            case Action.REMOVE_REMOTE:
                await self._files.remove(there)
                self._agreed.pop(path, None)
            case _:
                self._agreed.pop(path, None)
        self._done[action].append(path)

    async def _agree(self, path: str, local: Fingerprint | None, remote: Fingerprint | None) -> None:
        """Note that both sides are equal; a side of which no fingerprint is given has just been written."""
        if local is None:
            status = await anyio.Path(self._here(path)).stat()
            local = Fingerprint(status.st_size, status.st_mtime)
        if remote is None:
            remote = fingerprint_of(await self._files.stat(self._there(path)))
        self._agreed[path] = Agreement(local, remote)

    async def _is_equal(self, here: Path, there: str) -> bool:
        digest = hashlib.sha256()
        async for piece in self._files.stream(there):
            digest.update(piece)
        return digest.hexdigest() == await anyio.to_thread.run_sync(sha256_of, here)

    # This side

    def _here(self, path: str) -> Path:
        """The local file; refuses one that a link would lead outside."""
        root = self._local.resolve()
        target = root / path
        if not target.parent.resolve().is_relative_to(root) or target.is_symlink():
            raise SandboxProtocolError(f"{path!r} leads through a link out of {root}: it is not touched")
        return target

    def _scan_here(self) -> dict[str, Fingerprint]:
        self._read_rules()
        self._agreed = self._read_state()
        found: dict[str, Fingerprint] = {}
        for directory, names, files in os.walk(self._local):
            at = Path(directory).relative_to(self._local)
            names[:] = [name for name in names if not self._rules.ignores((at / name).as_posix(), directory=True)]
            for name in files:
                path, file = (at / name).as_posix(), Path(directory, name)
                if not self._rules.ignores(path) and file.is_file() and not file.is_symlink():
                    status = file.stat()
                    found[path] = Fingerprint(status.st_size, status.st_mtime)
        return found

    def _read_rules(self) -> None:
        file = self._local / IGNORE_FILE
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self._rules = IgnoreRules([*lines, *self._ignore, *_ALWAYS_IGNORED])

    def _read_state(self) -> dict[str, Agreement]:
        try:
            data = json.loads((self._local / STATE_FILE).read_text(encoding="utf-8"))
            if data["version"] != _STATE_VERSION or data["key"] != self._key:
                return {}
            return {
                path: Agreement(Fingerprint(*sides["local"]), Fingerprint(*sides["remote"]))
                for path, sides in data["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # nothing is known: files that differ are conflicts, and none is lost

    def _write_state(self) -> None:
        files = {
            path: {
                "local": [state.local.size, state.local.modified],
                "remote": [state.remote.size, state.remote.modified],
            }
            for path, state in sorted(self._agreed.items())
        }
        text = json.dumps({"version": _STATE_VERSION, "key": self._key, "files": files}, indent=1)
        temporary = self._local / f".{STATE_FILE}.partial"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._local / STATE_FILE)

    # The other side

    def _there(self, path: str) -> str:
        return path if self._remote == "." else f"{self._remote.rstrip('/')}/{path}"

    async def _scan_there(self) -> dict[str, Fingerprint]:
        found: dict[str, Fingerprint] = {}
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            try:
                entries = await self._files.list(self._there(directory) if directory else self._remote)
            except SandboxFileNotFoundError:
                if not directory:
                    raise
                continue  # removed while we look
            for entry in entries:
                path = f"{directory}/{checked_name(entry.name)}".removeprefix("/")
                if entry.link:
                    continue  # it may lead upwards, and then there is no end
                if self._rules.ignores(path, directory=entry.type == "directory"):
                    continue
                if entry.type == "directory":
                    waiting.append(path)
                elif entry.type == "file":
                    found[path] = fingerprint_of(entry)
        return found


def checked_name(name: str) -> str:
    """The name of a directory's entry.

    Raises:
        SandboxProtocolError: it is a path, or none at all: a sandbox tries to lead us elsewhere.
    """
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        raise SandboxProtocolError(f"the sandbox names a file {name!r}, which is no name of a file")
    return name


def fingerprint_of(entry: FileEntry) -> Fingerprint:
    """By what a change of a remote file is noticed."""
    return Fingerprint(entry.size, entry.modified.timestamp())
