"""Files over the versioned API: a small daemon over a directory that breaks connections where a test says so."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from agent_sandbox.sdk import (
    AsyncFiles,
    ConnectionOptions,
    FileEvent,
    SandboxDiskFullError,
    SandboxFileNotFoundError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxProtocolError,
    SandboxRequestError,
    SearchMatch,
    UnsupportedByRuntimeError,
    transfers,
)
from agent_sandbox.sdk import files as files_module
from agent_sandbox.sdk.routes import RouterRoute, make_session
from agent_sandbox.sdk.wire import Target, Wire


class DirectoryDaemon:
    """Speaks the file part of the versioned API over a directory.

    Attributes:
        root: the directory.
        breaks: bytes of bodies after which a connection is cut, once each.
        arrived: set by a test when the client has them; None cuts after a moment.
        requests: method, path and query of each request.
        checksum: what it says instead of the right checksum.
        versioned: whether it has the versioned API at all.
        tagged: whether it names each content by a tag, by which a broken download is continued.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.breaks: list[int] = []
        self.arrived: anyio.Event | None = None
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.checksum: str | None = None
        self.versioned = True
        self.tagged = True
        self.uploads: dict[str, bytearray] = {}
        self.full = False
        self.events: list[dict[str, Any]] = []
        self.silent = False
        root.mkdir(exist_ok=True)

    def app(self) -> web.Application:
        """The daemon as a server."""
        app = web.Application(client_max_size=2**30, middlewares=[self.note])
        app.add_routes(
            [
                web.get("/v1/health", self.health),
                web.get("/download/{path:.*}", self.download),
                web.get("/list/{path:.*}", self.legacy_list),
                web.get("/exists/{path:.*}", self.legacy_exists),
                web.route("HEAD", "/v1/files/{path:.*}", self.head),
                web.route("PUT", "/v1/files/{path:.*}", self.put),
                web.route("DELETE", "/v1/files/{path:.*}", self.delete),
                web.get("/v1/files/{path:.*}", self.directory, allow_head=False),
                web.put("/v1/uploads/{id}", self.part),
                web.get("/v1/uploads/{id}", self.offset),
                web.get("/v1/stat", self.stat),
                web.get("/v1/search", self.search),
                web.get("/v1/watch", self.watch),
                web.post("/v1/{action}", self.action),
            ]
        )
        return app

    @web.middleware
    async def note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.rel_url.raw_path_qs}")
        try:
            answer: web.StreamResponse = await handler(request)
        except FileNotFoundError:
            return web.json_response({"code": "NOT_FOUND", "message": "no such file"}, status=404)
        return answer

    async def health(self, request: web.Request) -> web.Response:
        if not self.versioned:
            raise web.HTTPNotFound
        return web.json_response({}, headers={"X-Sandboxd-Version": "1"})

    async def download(self, request: web.Request) -> web.StreamResponse:
        data = (self.root / request.match_info["path"].lstrip("/")).read_bytes()
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"' if self.tagged else ""
        if request.headers.get("If-Range", tag) != tag:
            wanted = ""
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and start >= len(data):
            return web.Response(status=416)
        answer = web.StreamResponse(status=206 if start else 200, headers={"ETag": tag} if tag else {})
        answer.content_length = len(data) - start
        await answer.prepare(request)
        end = start + self.breaks.pop(0) if self.breaks else len(data)
        await answer.write(data[start:end])
        if end < len(data):
            # What arrives together with the end of the connection is lost to the client.
            if self.arrived is None:
                await anyio.sleep(0.02)
            else:
                await self.arrived.wait()
                self.arrived = anyio.Event()
            assert request.transport is not None
            request.transport.close()
        return answer

    async def head(self, request: web.Request) -> web.Response:
        data = (self.root / request.match_info["path"]).read_bytes()
        return web.Response(headers={"X-Content-SHA256": self.checksum or hashlib.sha256(data).hexdigest()})

    async def put(self, request: web.Request) -> web.Response:
        if self.full:
            return web.json_response({"code": "RESOURCE_EXHAUSTED", "message": "disk full"}, status=507)
        data = await request.read()
        assert request.query["sha256"] == hashlib.sha256(data).hexdigest()
        path = self.root / request.match_info["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(int(request.query.get("mode", "0644"), 8))
        return web.Response(status=204)

    async def part(self, request: web.Request) -> web.Response:
        data = await request.read()
        known = self.uploads.setdefault(request.match_info["id"], bytearray())
        if int(request.query["offset"]) != len(known):
            return web.json_response({"code": "CONFLICT", "message": "offset"}, status=409)
        if self.breaks:
            known += data[: self.breaks.pop(0)]
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        known += data
        if request.query.get("final") == "true":
            if request.query["sha256"] != hashlib.sha256(known).hexdigest():
                return web.json_response({"code": "CHECKSUM_MISMATCH", "message": "checksum"}, status=422)
            path = self.root / request.query["path"]
            path.write_bytes(known)
            path.chmod(int(request.query.get("mode", "0644"), 8))
        return web.json_response({"offset": len(known)})

    async def offset(self, request: web.Request) -> web.Response:
        if request.match_info["id"] not in self.uploads:
            raise FileNotFoundError
        return web.json_response({"offset": len(self.uploads[request.match_info["id"]])})

    async def delete(self, request: web.Request) -> web.Response:
        path = self.root / request.match_info["path"]
        if path.is_dir() and any(path.iterdir()) and request.query.get("recursive") != "true":
            return web.json_response({"code": "CONFLICT", "message": "not empty"}, status=409)
        for item in sorted(path.rglob("*"), reverse=True):
            item.unlink()
        path.rmdir() if path.is_dir() else path.unlink()
        return web.Response(status=204)

    def entry(self, path: Path) -> dict[str, Any]:
        status = path.lstat()
        kind = "directory" if path.is_dir() else "file"
        modified = datetime.fromtimestamp(int(status.st_mtime), UTC).isoformat()
        mode = f"{status.st_mode & 0o777:04o}"
        return {"name": path.name, "size": status.st_size, "type": kind, "modified_at": modified, "mode": mode}

    async def directory(self, request: web.Request) -> web.Response:
        path = self.root / request.match_info["path"]
        if path.is_file():
            return web.Response(body=path.read_bytes())
        return web.json_response({"path": "/", "entries": [self.entry(item) for item in sorted(path.iterdir())]})

    async def stat(self, request: web.Request) -> web.Response:
        if request.query["path"].startswith("/etc"):
            return web.json_response({"code": "PERMISSION_DENIED", "message": "outside"}, status=403)
        return web.json_response(self.entry(self.root / request.query["path"]))

    async def search(self, request: web.Request) -> web.Response:
        return web.json_response({"matches": [{"path": "a.py", "line": 3, "text": request.query["content"]}]})

    async def watch(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for event in self.events:
            await socket.send_json(event)
        if self.silent:
            await socket.receive()
        await socket.close()
        return socket

    async def action(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.json_response({})

    async def legacy_list(self, request: web.Request) -> web.Response:
        items = [{"name": name, "size": 1, "type": "file", "mod_time": 0.5} for name in ("b", "a")]
        return web.json_response(items)

    async def legacy_exists(self, request: web.Request) -> web.Response:
        return web.json_response({"path": request.match_info["path"], "exists": request.match_info["path"] == "a"})


@pytest.fixture
def daemon(tmp_path: Path) -> DirectoryDaemon:
    return DirectoryDaemon(tmp_path / "sandbox")


@asynccontextmanager
async def serving(daemon: DirectoryDaemon) -> AsyncIterator[AsyncFiles]:
    """The files of a sandbox in which this daemon runs."""
    runner = web.AppRunner(daemon.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with make_session(ConnectionOptions()) as session:
            route = RouterRoute(session, f"http://127.0.0.1:{runner.addresses[0][1]}", {})
            yield AsyncFiles(Wire(route, lambda: Target("default", "box"), 8888))
    finally:
        await runner.cleanup()


async def test_a_small_file_is_written_with_its_checksum_and_mode(daemon: DirectoryDaemon) -> None:
    async with serving(daemon) as files:
        await files.write("d/a b%41.txt", "héllo", mode="0755")

        assert await files.read_text("d/a b%41.txt") == "héllo"
    assert (daemon.root / "d/a b%41.txt").stat().st_mode & 0o777 == 0o755


async def test_a_full_disk_has_its_own_error(daemon: DirectoryDaemon) -> None:
    daemon.full = True
    async with serving(daemon) as files:
        with pytest.raises(SandboxDiskFullError, match="disk full"):
            await files.write("a", b"x")


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
async def test_an_upload_of_any_size_arrives_whole(
    daemon: DirectoryDaemon, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "PART", 100)
    content = bytes(range(250)) * 4
    source = tmp_path / "source"
    source.write_bytes(content[:size])
    source.chmod(0o750)
    progress: list[int] = []
    async with serving(daemon) as files:
        assert await files.upload(source, "target", on_progress=progress.append) == size

    assert (daemon.root / "target").read_bytes() == content[:size]
    assert (daemon.root / "target").stat().st_mode & 0o777 == 0o750
    assert progress[-1] == size
    assert progress == sorted(progress)


async def test_an_upload_goes_on_where_the_sandbox_has_it(
    daemon: DirectoryDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "PART", 100)
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    daemon.breaks = [40, 0, 70]
    content = bytes(range(250))
    async with serving(daemon) as files:
        await files.upload(content, "target")

    assert (daemon.root / "target").read_bytes() == content
    offsets = [request.partition("offset=")[2].partition("&")[0] for request in daemon.requests if "offset=" in request]
    assert offsets == ["0", "40", "40", "110", "210"]


async def test_pieces_are_uploaded_as_they_come_and_the_last_ones_again(
    daemon: DirectoryDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "PART", 100)
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    daemon.breaks = [30]

    def pieces() -> Iterator[bytes]:
        for number in range(30):
            yield bytes([number]) * 7

    async def async_pieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    async with serving(daemon) as files:
        assert await files.upload(async_pieces(), "async") == 210
        assert await files.upload(pieces(), "sync") == 210

    assert (daemon.root / "async").read_bytes() == b"".join(pieces()) == (daemon.root / "sync").read_bytes()


async def test_an_upload_that_never_gets_on_gives_up(daemon: DirectoryDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    daemon.breaks = [0] * 50
    async with serving(daemon) as files:
        with pytest.raises(SandboxOutcomeUnknownError):
            await files.upload(b"x", "target")

    assert not (daemon.root / "target").exists()


async def test_a_download_goes_on_after_breaks_and_is_checked(
    daemon: DirectoryDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    content = bytes(range(250)) * 4
    (daemon.root / "source").write_bytes(content)
    daemon.breaks = [300, 10]
    target = tmp_path / "new" / "target"
    async with serving(daemon) as files:
        assert await files.download("source", target) == 1000

    assert target.read_bytes() == content
    assert daemon.ranges == ["", "bytes=300-", "bytes=310-"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


async def test_a_download_with_a_wrong_checksum_never_takes_the_name(
    daemon: DirectoryDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    (daemon.root / "source").write_bytes(b"content")
    daemon.checksum = "0" * 64
    (tmp_path / "target").write_bytes(b"old")
    async with serving(daemon) as files:
        with pytest.raises(SandboxProtocolError, match="checksum"):
            await files.download("source", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"old"


async def test_what_an_earlier_call_left_is_continued(daemon: DirectoryDaemon, tmp_path: Path) -> None:
    (daemon.root / "source").write_bytes(b"0123456789")
    transfers.partial_of(tmp_path / "target").write_bytes(b"01234")
    async with serving(daemon) as files:
        await files.download("source", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"0123456789"
    assert daemon.ranges == ["bytes=5-"]


async def test_what_an_earlier_call_left_of_another_content_is_thrown_away(
    daemon: DirectoryDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (daemon.root / "source").write_bytes(b"0123456789")
    transfers.partial_of(tmp_path / "target").write_bytes(b"other content, and longer")
    async with serving(daemon) as files:
        await files.download("source", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"0123456789"


@pytest.mark.parametrize("tagged", [True, False])
async def test_a_file_that_changes_while_a_legacy_runtime_gives_it_is_never_half_old_half_new(
    daemon: DirectoryDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tagged: bool
) -> None:
    """Such a runtime has no checksum that would tell; its tag does, and one without a tag is asked for everything."""
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    daemon.versioned, daemon.tagged = False, tagged
    (daemon.root / "source").write_bytes(b"o" * 1000)
    daemon.breaks, daemon.arrived = [300], anyio.Event()

    def change(_: int) -> None:
        (daemon.root / "source").write_bytes(b"n" * 900)
        assert daemon.arrived is not None
        daemon.arrived.set()

    async with serving(daemon) as files:
        size = await files.download("source", tmp_path / "target", on_progress=change)

    assert size == 900
    assert (tmp_path / "target").read_bytes() == b"n" * 900
    assert daemon.ranges == ["", "bytes=300-" if tagged else ""]


async def test_a_download_that_has_to_begin_anew_each_time_gives_up_when_it_gets_no_further(
    daemon: DirectoryDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_PAUSE", 0)
    daemon.versioned = daemon.tagged = False
    (daemon.root / "source").write_bytes(b"x" * 1000)
    daemon.breaks, daemon.arrived = [200, 300, 100, 300, 200, 300, 100, *[100] * 20], anyio.Event()

    def arrived(_: int) -> None:
        assert daemon.arrived is not None
        daemon.arrived.set()

    async with serving(daemon) as files:
        with pytest.raises(SandboxOutcomeUnknownError, match="broke"):
            await files.download("source", tmp_path / "target", on_progress=arrived)

    assert len(daemon.ranges) == 2 + transfers.ATTEMPTS


async def test_a_stream_gives_pieces_from_any_place(daemon: DirectoryDaemon) -> None:
    (daemon.root / "a").write_bytes(b"0123456789")
    async with serving(daemon) as files:
        whole = b"".join([piece async for piece in files.stream("a")])
        rest = b"".join([piece async for piece in files.stream("a", start=7)])
        daemon.breaks = [2]
        with pytest.raises(SandboxOutcomeUnknownError, match="broke"):
            _ = [piece async for piece in files.stream("a")]

    assert (whole, rest) == (b"0123456789", b"789")


async def test_directories_are_listed_and_entries_described(daemon: DirectoryDaemon) -> None:
    (daemon.root / "b").mkdir()
    (daemon.root / "a").write_bytes(b"123")
    async with serving(daemon) as files:
        entries = await files.list()
        entry = await files.stat("a")
        with pytest.raises(SandboxRequestError, match="no directory"):
            await files.list("a")
        with pytest.raises(SandboxFileNotFoundError):
            await files.list("nope")

    assert [(item.name, item.type) for item in entries] == [("a", "file"), ("b", "directory")]
    assert (entry.size, entry.mode) == (3, "0644")
    assert entry.modified.tzinfo is not None


async def test_existence_is_told_from_refusal(daemon: DirectoryDaemon) -> None:
    (daemon.root / "a").touch()
    async with serving(daemon) as files:
        assert await files.exists("a")
        assert not await files.exists("b")
        with pytest.raises(SandboxPermissionError):
            await files.exists("/etc/passwd")


async def test_changes_of_names_and_modes_are_sent_as_they_are(daemon: DirectoryDaemon) -> None:
    async with serving(daemon) as files:
        await files.mkdir("a/b")
        await files.rename("a", "c", overwrite=True)
        await files.chmod("c", "0700")

    assert daemon.bodies == [
        {"path": "a/b", "parents": True},
        {"source": "a", "target": "c", "overwrite": True},
        {"path": "c", "mode": "0700"},
    ]


async def test_removing_takes_a_full_directory_only_when_told(daemon: DirectoryDaemon) -> None:
    (daemon.root / "d").mkdir()
    (daemon.root / "d/a").touch()
    async with serving(daemon) as files:
        with pytest.raises(SandboxRequestError, match="not empty"):
            await files.remove("d")
        await files.remove("d", recursive=True)
        for nothing in ("", "/", ".", "./"):
            with pytest.raises(ValueError, match="names something"):
                await files.remove(nothing, recursive=True)

    assert not (daemon.root / "d").exists()


async def test_search_and_watch_give_what_the_daemon_finds(daemon: DirectoryDaemon) -> None:
    daemon.events = [{"type": "ready"}, {"type": "modified", "path": "a"}, {"type": "heartbeat"}]
    seen: list[FileEvent] = []
    async with serving(daemon) as files:
        matches = await files.search(".", name="*.py", content="x+y")
        changes = files.watch(".")
        seen.append(await anext(changes))
        with pytest.raises(SandboxOutcomeUnknownError, match="missed"):
            await anext(changes)

    assert matches == (SearchMatch("a.py", 3, "x+y"),)
    assert seen == [FileEvent("modified", "a")]


async def test_a_watch_whose_connection_falls_silent_ends_with_an_error(
    daemon: DirectoryDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "SILENCE_SECONDS", 1)
    daemon.events = [{"type": "event", "kind": "created", "path": "a"}]
    daemon.silent = True
    async with serving(daemon) as files:
        events = files.watch(".")
        assert await anext(events) == FileEvent("created", "a")
        with pytest.raises(SandboxOutcomeUnknownError, match="missed"):
            await anext(events)


async def test_a_legacy_runtime_lists_and_tells_and_refuses_the_rest(daemon: DirectoryDaemon, tmp_path: Path) -> None:
    daemon.versioned = False
    (daemon.root / "source").write_bytes(b"0123456789")
    transfers.partial_of(tmp_path / "target").write_bytes(b"unknown")
    async with serving(daemon) as files:
        assert [entry.name for entry in await files.list("d")] == ["a", "b"]
        assert await files.exists("a")
        assert not await files.exists("z")
        assert await files.download("source", tmp_path / "target") == 10
        for call in (files.stat("a"), files.upload(b"", "a"), files.remove("a"), files.chmod("a", "0644")):
            with pytest.raises(UnsupportedByRuntimeError):
                await call

    assert (tmp_path / "target").read_bytes() == b"0123456789"
