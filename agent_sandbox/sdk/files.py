"""The files of a sandbox: whole, streamed, listed, watched, searched."""

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import anyio

from agent_sandbox.sdk import copying, legacy
from agent_sandbox.sdk.commands import unsupported
from agent_sandbox.sdk.copying import ProgressReceiver
from agent_sandbox.sdk.errors import (
    RequestTimeoutError,
    SandboxOutcomeUnknownError,
    SandboxProtocolError,
    SandboxRequestError,
)
from agent_sandbox.sdk.mirror_plan import Direction, Preference
from agent_sandbox.sdk.mirroring import Mirror
from agent_sandbox.sdk.process import SILENCE_SECONDS, read_time
from agent_sandbox.sdk.refusals import error_for_code
from agent_sandbox.sdk.results import (
    FileEntry,
    FileEvent,
    ProgressCallback,
    SearchMatch,
    Source,
    SyncReport,
    TransferReport,
)
from agent_sandbox.sdk.transfers import CHUNK, Download, Upload, open_source
from agent_sandbox.sdk.wire import Answer, Wire, close_websocket, encode_path, payload

_REQUEST_SECONDS: Final = 60.0
_CHECKSUM_SECONDS: Final = 300.0
_IDLE_SECONDS: Final = 60.0
"""Longest silence within a transfer; its length as a whole is not limited."""


class AsyncFiles:
    """The files of one sandbox.

    Paths are relative to the workspace, or absolute within what the runtime allows (the workspace and ``/tmp``). With
    an image that speaks only the legacy contract, ``read``, ``write``, ``download``, ``list`` and ``exists`` work, as
    far as it has them.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, path: str, *, timeout: float | None = 60) -> bytes:
        """The content of a file.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxPermissionError: the path is not allowed.
        """
        return await legacy.download(self._wire, path, timeout)

    async def read_text(self, path: str, *, timeout: float | None = 60) -> str:
        """The content of a UTF-8 file.

        Raises:
            UnicodeDecodeError: it is none.
            SandboxFileNotFoundError: there is no such file.
        """
        return (await self.read(path, timeout=timeout)).decode()

    async def write(
        self, path: str, content: bytes | str, *, mode: str | None = None, timeout: float | None = 60
    ) -> None:
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
        data = content.encode() if isinstance(content, str) else content
        if not await self._wire.speaks_v1():
            if mode is not None:
                raise unsupported("file modes")
            await legacy.upload(self._wire, path, data, timeout)
            return
        query = {"sha256": hashlib.sha256(data).hexdigest()} | ({"mode": mode} if mode is not None else {})
        await self._wire.request(
            "PUT",
            _file_path(path),
            timeout=timeout,
            query=query,
            body=lambda: payload(data),
            headers={"Content-Type": "application/octet-stream"},
        )

    async def upload(
        self,
        source: Source,
        path: str,
        *,
        mode: str | None = None,
        on_progress: ProgressCallback | None = None,
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
        if not await self._wire.speaks_v1():
            raise unsupported("streamed uploads")
        async with open_source(source, mode) as opened:
            return await Upload(self._wire, opened, path, on_progress).send()

    async def download(self, path: str, target: str | Path, *, on_progress: ProgressCallback | None = None) -> int:
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
        return await Download(self._wire, path, Path(target), on_progress).receive()

    async def stream(self, path: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Read a file of any size piece by piece.

        Args:
            path: the file.
            start: number of bytes to leave out at the beginning.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxOutcomeUnknownError: the connection broke before the end.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._wire.stream(
            "GET", f"download/{encode_path(path)}", timeout=None, read_timeout=_IDLE_SECONDS, headers=headers
        ) as response:
            if start and response.status != 206:
                raise SandboxProtocolError(f"reading {path!r} from byte {start}: the runtime has no byte ranges")
            try:
                async for piece in response.content.iter_chunked(CHUNK):
                    yield piece
            except TimeoutError as error:
                raise RequestTimeoutError(f"reading {path!r}: nothing came for {_IDLE_SECONDS:g} s") from error
            except aiohttp.ClientError as error:
                raise SandboxOutcomeUnknownError(f"reading {path!r}: the connection broke ({error})") from error

    async def put(
        self, local: str | Path, remote: str, *, on_progress: ProgressReceiver | None = None
    ) -> TransferReport:
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
        await self._need_v1("copying of files")
        return await copying.put(self, Path(local), remote, on_progress=on_progress)

    async def get(
        self, remote: str, local: str | Path, *, on_progress: ProgressReceiver | None = None
    ) -> TransferReport:
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
        await self._need_v1("copying of files")
        return await copying.get(self, remote, Path(local), on_progress=on_progress)

    async def sha256(self, path: str) -> str:
        """The SHA-256 of a file as 64 hex digits, reckoned in the sandbox.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        await self._need_v1("checksums")
        answer = await self._wire.request(
            "HEAD", _file_path(path), timeout=_CHECKSUM_SECONDS, query={"checksum": "sha256"}
        )
        return answer.headers.get("X-Content-SHA256", "")

    async def stat(self, path: str) -> FileEntry:
        """What is at that path; a link is not followed.

        Raises:
            SandboxFileNotFoundError: nothing is.
        """
        await self._need_v1("stat")
        return read_entry((await self._request("GET", "v1/stat", {"path": path})).json())

    async def exists(self, path: str) -> bool:
        """Whether anything is at that path.

        Raises:
            SandboxPermissionError: the path is not allowed.
        """
        if await self._wire.speaks_v1():
            return (await self._request("GET", "v1/stat", {"path": path}, accept_missing=True)).status == 200
        data = (await self._request("GET", f"exists/{encode_path(path)}")).json()
        return isinstance(data, dict) and bool(data.get("exists"))

    async def mkdir(self, path: str, *, parents: bool = True) -> None:
        """Make a directory; one that exists is fine if ``parents`` is True, as with ``mkdir -p``.

        Raises:
            SandboxRequestError: it exists, or its parent does not, and ``parents`` is False; or a file is there.
        """
        await self._need_v1("directories")
        await self._post("v1/mkdir", {"path": path, "parents": parents})

    async def rename(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Move a file or a directory.

        Raises:
            SandboxFileNotFoundError: there is no such source.
            SandboxRequestError: the target exists and ``overwrite`` is False.
        """
        await self._need_v1("renaming")
        await self._post("v1/rename", {"source": source, "target": target, "overwrite": overwrite})

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link itself, or a directory.

        Args:
            path: what; it must name something, the workspace itself cannot be removed.
            recursive: whether a directory may have something in it.

        Raises:
            ValueError: the path names nothing.
            SandboxFileNotFoundError: nothing is there.
            SandboxRequestError: the directory is not empty.
        """
        if path.strip("/") in {"", "."}:
            raise ValueError("remove needs a path that names something")
        await self._need_v1("removing")
        await self._request("DELETE", _file_path(path), {"recursive": "true"} if recursive else None)

    async def chmod(self, path: str, mode: str) -> None:
        """Set the permissions, as octal digits, for example ``0755``.

        Raises:
            SandboxFileNotFoundError: nothing is there.
        """
        await self._need_v1("file modes")
        await self._post("v1/chmod", {"path": path, "mode": mode})

    async def search(
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
        await self._need_v1("search")
        wanted = {"path": path, "name": name, "content": content, "limit": str(limit)}
        data = (await self._request("GET", "v1/search", {key: value for key, value in wanted.items() if value})).json()
        items = data.get("matches", []) if isinstance(data, dict) else data
        return tuple(SearchMatch(item["path"], item.get("line"), item.get("text") or "") for item in items)

    async def watch(self, path: str = ".", *, recursive: bool = True) -> AsyncGenerator[FileEvent, None]:
        """Changes below a directory, as they happen, until the caller has enough.

        Args:
            path: the directory.
            recursive: whether directories in it are watched too.

        Raises:
            SandboxFileNotFoundError: there is no such directory.
            SandboxOutcomeUnknownError: the connection broke, so changes may have been missed.
        """
        await self._need_v1("watching")
        query = {"path": path, "recursive": "true" if recursive else "false"}
        socket = await self._wire.open_websocket("v1/watch", query=query)
        try:
            while True:
                with anyio.move_on_after(SILENCE_SECONDS) as silence:
                    message = await socket.receive()
                if silence.cancelled_caught or message.type in _ENDS:
                    break
                event = _read_event(message, path)
                if event is not None:
                    yield event
            raise SandboxOutcomeUnknownError(f"watching {path!r}: the connection broke; changes may have been missed")
        finally:
            await close_websocket(socket)

    async def sync(
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
        await self._need_v1("directory sync")
        mirror = Mirror(self, Path(local), remote, self._wire.name, ignore)
        return await mirror.sync(direction=direction, delete=delete, prefer=prefer)

    # Keep this the last method: its name hides the builtin in annotations below it.
    async def list(self, path: str = ".") -> list[FileEntry]:
        """What is in a directory, sorted by name.

        Raises:
            SandboxFileNotFoundError: there is no such directory.
            SandboxRequestError: it is a file.
        """
        if await self._wire.speaks_v1():
            answer = await self._request("GET", _file_path(path), headers={"Accept": "application/json"})
            data = answer.json() if "json" in answer.headers.get("Content-Type", "") else None
            if not isinstance(data, dict) or "entries" not in data:
                raise SandboxRequestError(f"{path!r} is no directory", status=400, detail="not a directory")
            return [read_entry(item) for item in data["entries"]]
        answer = await self._request("GET", f"list/{encode_path(path)}")
        return sorted((read_entry(item) for item in answer.json()), key=lambda entry: entry.name)

    async def _need_v1(self, what: str) -> None:
        if not await self._wire.speaks_v1():
            raise unsupported(what)

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        accept_missing: bool = False,
    ) -> Answer:
        accept = frozenset({404}) if accept_missing else frozenset()
        return await self._wire.request(
            method, path, timeout=_REQUEST_SECONDS, query=query, headers=headers, accept=accept
        )

    async def _post(self, path: str, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        await self._wire.request(
            "POST",
            path,
            timeout=_REQUEST_SECONDS,
            body=lambda: body,
            headers={"Content-Type": "application/json"},
        )


_ENDS: Final = frozenset(
    {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
)


def _file_path(path: str) -> str:
    return f"v1/files/{encode_path(path)}"


def _read_event(message: aiohttp.WSMessage, path: str) -> FileEvent | None:
    if message.type is not aiohttp.WSMsgType.TEXT:
        return None
    data = message.json()
    if data.get("type") == "error":
        raise error_for_code(data.get("code", ""), str(data.get("message", "")), f"watching {path!r}")
    if data.get("type") in {"heartbeat", "ready"}:
        return None
    kind = data.get("kind") or data.get("event") or data.get("type") or ""
    return FileEvent(str(kind), str(data.get("path", "")))


def read_entry(data: Any) -> FileEntry:
    """A file as our daemon or a legacy runtime describes it.

    Raises:
        SandboxProtocolError: it is not that.
    """
    try:
        modified = read_time(data.get("modified_at", data.get("mod_time")))
        if modified is None:
            raise ValueError("no time")
        kind = data["type"] if data["type"] in {"file", "directory", "symlink"} else "other"
        return FileEntry(
            name=data["name"],
            size=int(data["size"]),
            type=cast("Any", kind),
            modified=modified,
            mode=str(data.get("mode") or ""),
            path=str(data.get("path") or ""),
            link=bool(data.get("link")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SandboxProtocolError(f"the runtime describes a file in a form not understood here: {error}") from error


__all__ = ["AsyncFiles"]
