"""Files of the versioned API on the wire: whole files, uploads in parts, directories, search and watch."""

import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from typing import Any, Final

import anyio
from aiohttp import BodyPartReader, web

from agent_sandbox.sandboxd import files, tree
from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.errors import InvalidRequestError, PathNotFoundError
from agent_sandbox.sandboxd.files import TEMPORARY_PREFIX, Entry, FileSink
from agent_sandbox.sandboxd.http_files import ANY_PATH, OpenedFile, path_after, path_in_query
from agent_sandbox.sandboxd.options import SandboxdOptions
from agent_sandbox.sandboxd.reaper import Reaper
from agent_sandbox.sandboxd.requests import Fields, read_mode, read_object
from agent_sandbox.sandboxd.search import search
from agent_sandbox.sandboxd.threads import in_thread
from agent_sandbox.sandboxd.uploads import Uploads
from agent_sandbox.sandboxd.watch import Watch

PIECE: Final = 256 * 1024
HEARTBEAT: Final = 5.0
CHECKSUM_HEADER: Final = "X-Content-SHA256"
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}\Z")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class FileApi:
    """Handlers for files."""

    def __init__(self, options: SandboxdOptions, confinement: Confinement, uploads: Uploads, reaper: Reaper) -> None:
        self._options = options
        self._confinement = confinement
        self._uploads = uploads
        self._reaper = reaper

    def routes(self) -> list[web.RouteDef]:
        """The routes of this API."""
        return [
            web.get(f"/v1/files/{ANY_PATH}", self.read),
            web.put(f"/v1/files/{ANY_PATH}", self.write),
            web.delete(f"/v1/files/{ANY_PATH}", self.remove),
            web.get("/v1/stat", self.stat),
            web.post("/v1/mkdir", self.make_directory),
            web.post("/v1/rename", self.rename),
            web.post("/v1/chmod", self.set_mode),
            web.get("/v1/search", self.search),
            web.get("/v1/watch", self.watch),
            web.put("/v1/uploads/{id}", self.add_part),
            web.get("/v1/uploads/{id}", self.show_upload),
            web.delete("/v1/uploads/{id}", self.give_up_upload),
        ]

    async def read(self, request: web.Request) -> web.StreamResponse:
        """A file's content, or a directory's entries."""
        path = path_after(request, "/v1/files/")
        entry = await self._stat(path)
        if entry.kind == "directory":
            return web.json_response(await self._listing(path))
        headers = {}
        if request.query.get("checksum") == "sha256":
            headers[CHECKSUM_HEADER] = await in_thread(_checksum_blocking, self._confinement, path)
        return await OpenedFile.open(self._confinement, path, headers)

    async def write(self, request: web.Request) -> web.Response:
        """Write a file whole, from the body or from the part ``file`` of a multipart body."""
        path = path_after(request, "/v1/files/")
        mode, sha256 = read_mode(request.query.get("mode")), _checksum(request)
        async with FileSink(self._confinement, path, limit=self._options.max_upload_bytes, mode=mode) as sink:
            async with aclosing(_content(request)) as pieces:
                async for piece in pieces:
                    await sink.write(piece)
            checksum = await sink.commit(sha256=sha256)
        return web.Response(status=204, headers={CHECKSUM_HEADER: checksum})

    async def remove(self, request: web.Request) -> web.Response:
        """Remove a file or a directory."""
        path = path_after(request, "/v1/files/")
        await self._in_thread(tree.remove_blocking, path, recursive=_flag(request, "recursive"))
        return web.Response(status=204)

    async def stat(self, request: web.Request) -> web.Response:
        """Describe what is at a path; a link is described itself unless ``follow`` is true."""
        path = _path(request)
        return web.json_response(described(await self._stat(path, follow=_flag(request, "follow"))))

    async def make_directory(self, request: web.Request) -> web.Response:
        """Make a directory."""
        fields = Fields(read_object(await request.read()))
        path = fields.required_text("path")
        await self._in_thread(tree.make_directory_blocking, path, parents=fields.flag("parents", True))
        return web.Response(status=204)

    async def rename(self, request: web.Request) -> web.Response:
        """Move a file or a directory."""
        fields = Fields(read_object(await request.read()))
        source, target = fields.required_text("source"), fields.required_text("target")
        await self._in_thread(tree.rename_blocking, source, target, overwrite=fields.flag("overwrite"))
        return web.Response(status=204)

    async def set_mode(self, request: web.Request) -> web.Response:
        """Set permissions."""
        fields = Fields(read_object(await request.read()))
        path, mode = fields.required_text("path"), fields.mode("mode")
        if mode is None:
            raise InvalidRequestError("mode is required")
        await self._in_thread(tree.set_mode_blocking, path, mode)
        return web.Response(status=204)

    async def search(self, request: web.Request) -> web.Response:
        """Find files by name, lines by content."""
        limit = _number(request, "limit", default=1000)
        matches, more = await search(
            self._confinement,
            self._reaper,
            path_in_query(request) or ".",
            name=request.query.get("name", ""),
            content=request.query.get("content", ""),
            limit=min(max(limit, 1), 100_000),
        )
        return web.json_response({"matches": matches, "truncated": more})

    async def watch(self, request: web.Request) -> web.WebSocketResponse:
        """Tell changes below a directory as they happen."""
        path = path_in_query(request) or "."
        async with AsyncExitStack() as stack:
            opened = self._confinement.open(path, os.O_RDONLY | os.O_DIRECTORY)
            with files.translated(path):
                directory = await in_thread(opened.__enter__)
            stack.callback(opened.__exit__, None, None, None)
            watch = Watch(directory, recursive=_flag(request, "recursive", default=True))
            stack.callback(watch.close)
            await watch.start()
            socket = web.WebSocketResponse(compress=False)
            await socket.prepare(request)
            await _tell_changes(socket, watch)
            return socket

    async def add_part(self, request: web.Request) -> web.Response:
        """Take a part of an upload; with ``final`` the file appears."""
        identifier, path = _identifier(request), _path(request)
        sha256, mode, offset = _checksum(request), read_mode(request.query.get("mode")), _number(request, "offset")
        async with aclosing(_content(request)) as pieces:
            reached = await self._uploads.add(identifier, path, offset, pieces)
        final = _flag(request, "final")
        if final:
            reached = await self._uploads.finish(identifier, sha256=sha256, mode=mode)
        return web.json_response({"offset": reached, "done": final})

    async def show_upload(self, request: web.Request) -> web.Response:
        """Where the next part of an upload begins."""
        offset, done = self._uploads.offset(_identifier(request))
        return web.json_response({"offset": offset, "done": done})

    async def give_up_upload(self, request: web.Request) -> web.Response:
        """Discard what arrived of an upload."""
        await self._uploads.give_up(_identifier(request))
        return web.Response(status=204)

    async def _stat(self, path: str, *, follow: bool = True) -> Entry:
        return await in_thread(files.stat_blocking, self._confinement, path, follow=follow)

    async def _listing(self, path: str) -> dict[str, Any]:
        entries = await in_thread(files.list_blocking, self._confinement, path)
        return {"path": path, "entries": [described(entry) for entry in entries]}

    async def _in_thread(self, change: Any, *paths: Any, **more: Any) -> None:
        await in_thread(change, self._confinement, *paths, **more)


def described(entry: Entry) -> dict[str, Any]:
    """A file as it is told on the wire."""
    modified = datetime.fromtimestamp(entry.modified, UTC).isoformat()
    return {
        "name": entry.name,
        "size": entry.size,
        "type": entry.kind,
        "modified_at": modified,
        "mode": f"{entry.mode:04o}",
        "link": entry.link,
    }


async def _tell_changes(socket: web.WebSocketResponse, watch: Watch) -> None:
    async def until_closed() -> None:
        async for _ in socket:
            pass
        tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_closed, name="watch client")
            await socket.send_str(json.dumps({"type": "ready"}))
            while True:
                with anyio.move_on_after(HEARTBEAT) as silence:
                    event = await watch.next()
                    if TEMPORARY_PREFIX not in event.path:
                        await socket.send_str(json.dumps({"type": "event", "kind": event.kind, "path": event.path}))
                if silence.cancelled_caught:
                    await socket.send_str(json.dumps({"type": "heartbeat"}))
    except ExceptionGroup as group:
        if group.split(ConnectionError)[1] is not None:
            raise


async def _content(request: web.Request) -> AsyncGenerator[bytes, None]:
    """The bytes of a body, or of its part ``file``."""
    if not request.content_type.startswith("multipart/"):
        async for piece in request.content.iter_chunked(PIECE):
            yield piece
        return
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                while piece := await part.read_chunk(PIECE):
                    yield bytes(piece)
                return
    except ValueError as error:
        raise InvalidRequestError(f"the multipart body is malformed: {error}") from error
    raise InvalidRequestError("the multipart body has no part called 'file'")


def _checksum_blocking(confinement: Confinement, path: str) -> str:
    with files.open_file_blocking(confinement, path) as descriptor:
        digest = hashlib.sha256()
        while piece := os.read(descriptor, 1024 * 1024):
            digest.update(piece)
        return digest.hexdigest()


def _checksum(request: web.Request) -> str | None:
    given = request.query.get("sha256")
    if given is not None and _SHA256.match(given) is None:
        raise InvalidRequestError("sha256 must be 64 hexadecimal digits")
    return given


def _path(request: web.Request) -> str:
    path = path_in_query(request)
    if path is None:
        raise InvalidRequestError("the parameter path is required")
    return path


def _identifier(request: web.Request) -> str:
    identifier = request.match_info["id"]
    if _IDENTIFIER.match(identifier) is None:
        raise PathNotFoundError("an upload's identifier is 1 to 64 letters, digits, '-' and '_'")
    return identifier


def _flag(request: web.Request, name: str, *, default: bool = False) -> bool:
    text = request.query.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise InvalidRequestError(f"{name} must be true or false")
    return text == "true"


def _number(request: web.Request, name: str, *, default: int | None = None) -> int:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InvalidRequestError(f"{name} must be a whole number")
    return int(text)
