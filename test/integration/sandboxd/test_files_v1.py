"""Files of the versioned API: whole, checked, resumed; changed, found and watched; never outside."""

import errno
import hashlib
import io
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.sandboxd import uploads
from agent_sandbox.sandboxd.app import create_app
from agent_sandbox.sandboxd.openapi import document
from agent_sandbox.sandboxd.options import SandboxdOptions
from agent_sandbox.sandboxd.watch import Watch


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def call(daemon: Any, method: str, path: str, data: bytes | None = None, **more: Any) -> tuple[int, Any]:
    async with daemon.session.request(method, daemon.url + path, data=data and io.BytesIO(data), **more) as response:
        body = await response.read()
        return response.status, json.loads(body) if response.content_type == "application/json" else body


async def test_file_is_written_checked_and_read_back(run_daemon: Any) -> None:
    content = os.urandom(300_000)
    digest = hashlib.sha256(content).hexdigest()
    async with run_daemon() as daemon:
        written = await call(daemon, "PUT", f"/v1/files/a/b.bin?mode=0750&sha256={digest}", content)
        async with daemon.session.get(daemon.url + "/v1/files/a/b.bin?checksum=sha256") as response:
            got, checksum = await response.read(), response.headers["X-Content-SHA256"]
        mode = (daemon.root / "a" / "b.bin").stat().st_mode & 0o777

    assert written == (204, b"")
    assert (got, checksum, mode) == (content, digest, 0o750)


async def test_file_that_arrives_damaged_replaces_nothing(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "a").write_text("old")
        status, answer = await call(daemon, "PUT", "/v1/files/a?sha256=" + "0" * 64, b"new")

        assert (status, answer["code"]) == (422, "CHECKSUM_MISMATCH")
        assert (daemon.root / "a").read_text() == "old"


async def test_upload_goes_on_where_it_broke_off(run_daemon: Any) -> None:
    content = os.urandom(3_000_000)
    digest = hashlib.sha256(content).hexdigest()
    async with run_daemon() as daemon:
        url = "/v1/uploads/up-1?path=big.bin&offset="
        assert await call(daemon, "PUT", url + "0", content[:1_000_000]) == (200, {"offset": 1_000_000, "done": False})
        async with await anyio.connect_tcp("127.0.0.1", daemon.port) as stream:
            head = f"PUT {url}1000000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n".encode()
            await stream.send(head + content[1_000_000:1_400_000])
        with anyio.fail_after(60):
            offset = 1_000_000
            while offset == 1_000_000:
                _, answer = await call(daemon, "GET", "/v1/uploads/up-1")
                offset = answer["offset"]
        with anyio.fail_after(60):
            status, answer = 409, None
            while status == 409:
                _, answer = await call(daemon, "GET", "/v1/uploads/up-1")
                offset = answer["offset"]
                final = f"{offset}&final=true&mode=0600&sha256={digest}"
                status, answer = await call(daemon, "PUT", url + final, content[offset:])
        again = await call(daemon, "PUT", url + f"3000000&final=true&sha256={digest}", b"")

        assert (status, answer) == (200, {"offset": 3_000_000, "done": True})
        assert again == (200, {"offset": 3_000_000, "done": True})
        assert (daemon.root / "big.bin").read_bytes() == content
        assert (daemon.root / "big.bin").stat().st_mode & 0o777 == 0o600


async def test_upload_that_fills_the_disk_is_given_up_and_frees_it(
    run_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with run_daemon() as daemon:
        url = f"{daemon.url}/v1/uploads/u?path=big&offset="
        async with daemon.session.put(url + "0", data=io.BytesIO(b"x" * 3_000_000)) as response:
            assert (response.status, (await response.json())["offset"]) == (200, 3_000_000)
        open_before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            async with daemon.session.put(url + "3000000", data=io.BytesIO(b"y" * 3_000_000)) as response:
                refused = response.status, (await response.json())["code"]
        async with daemon.session.put(url + "6000000&final=true", data=b"z") as response:
            later = response.status
        async with daemon.session.get(f"{daemon.url}/v1/uploads/u") as response:
            known = response.status
        names = list(daemon.root.iterdir())
        open_after = open_descriptors()

    assert refused == (507, "RESOURCE_EXHAUSTED")
    assert (later, known) == (409, 404)
    assert names == []
    assert open_after < open_before


async def test_upload_that_is_given_up_while_a_part_arrives_takes_no_more(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        arrived = anyio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"x" * 3_000_000
            await arrived.wait()
            yield b"y" * 3_000_000

        async def send() -> None:
            url = f"{daemon.url}/v1/uploads/u?path=big&offset=0&final=true"
            async with daemon.session.put(url, data=body()) as response:
                assert response.status == 409

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            status = 404
            while status == 404:
                async with daemon.session.delete(f"{daemon.url}/v1/uploads/u") as response:
                    status = response.status
            arrived.set()

        assert list(daemon.root.iterdir()) == []


async def test_part_at_another_place_is_refused_with_where_to_go_on(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        await call(daemon, "PUT", "/v1/uploads/u?path=a&offset=0", b"abc")
        status, answer = await call(daemon, "PUT", "/v1/uploads/u?path=a&offset=7", b"x")
        other, _ = await call(daemon, "PUT", "/v1/uploads/u?path=b&offset=3", b"x")
        unknown, _ = await call(daemon, "GET", "/v1/uploads/none")
        given_up, _ = await call(daemon, "DELETE", "/v1/uploads/u")

        assert status == 409
        assert "offset 3" in answer["message"]
        assert (other, unknown, given_up) == (409, 404, 204)
        assert not list(daemon.root.iterdir())


async def test_directory_is_listed_with_modes_and_times(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "f").write_text("12")
        (daemon.root / "d").mkdir()
        status, answer = await call(daemon, "GET", "/v1/files/")

    assert status == 200
    assert [(entry["name"], entry["type"]) for entry in answer["entries"]] == [("d", "directory"), ("f", "file")]
    assert answer["entries"][1]["size"] == 2
    assert answer["entries"][1]["mode"].startswith("06")
    assert answer["entries"][1]["modified_at"].endswith("+00:00")


async def test_link_is_described_itself_unless_followed(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "f").write_text("12")
        (daemon.root / "link").symlink_to("f")
        own = await call(daemon, "GET", "/v1/stat?path=link")
        target = await call(daemon, "GET", "/v1/stat?path=link&follow=true")
        missing, _ = await call(daemon, "GET", "/v1/stat?path=missing")

    assert own[1]["type"] == "symlink"
    assert (target[1]["type"], target[1]["size"]) == ("file", 2)
    assert missing == 404


async def test_tree_is_changed(run_daemon: Any) -> None:
    async with run_daemon() as daemon:

        async def post(url: str, /, **body: Any) -> int:
            return (await call(daemon, "POST", url, json=body))[0]

        assert await post("/v1/mkdir", path="a/b", parents=True) == 204
        assert await post("/v1/mkdir", path="a/b", parents=True) == 204
        assert await post("/v1/mkdir", path="a/b", parents=False) == 409
        assert await post("/v1/mkdir", path="x/y", parents=False) == 404
        (daemon.root / "f").write_text("f")
        (daemon.root / "g").write_text("g")
        assert await post("/v1/rename", source="f", target="g") == 409
        assert await post("/v1/rename", source="f", target="g", overwrite=True) == 204
        assert await post("/v1/rename", source="g", target="a/b/g") == 204
        assert await post("/v1/rename", source="missing", target="z") == 404
        assert await post("/v1/chmod", path="a/b/g", mode="0700") == 204
        assert await post("/v1/chmod", path="a/b/g", mode="9") == 400
        assert (daemon.root / "a/b/g").read_text() == "f"
        assert (daemon.root / "a/b/g").stat().st_mode & 0o777 == 0o700
        assert (await call(daemon, "DELETE", "/v1/files/a"))[0] == 409
        assert (await call(daemon, "DELETE", "/v1/files/a?recursive=true"))[0] == 204
        assert (await call(daemon, "DELETE", "/v1/files/a"))[0] == 404
        (daemon.root / "keep").mkdir()
        assert (await call(daemon, "DELETE", "/v1/files/"))[0] == 409
        assert (await call(daemon, "DELETE", "/v1/files/?recursive=true"))[0] == 204
        assert not list(daemon.root.iterdir())


async def test_removing_a_link_leaves_its_target(run_daemon: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("")
    async with run_daemon() as daemon:
        (daemon.root / "link").symlink_to(tmp_path / "outside")
        status, _ = await call(daemon, "DELETE", "/v1/files/link?recursive=true")

        assert status == 204
        assert not (daemon.root / "link").is_symlink()
    assert (tmp_path / "outside" / "f").exists()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/files/..%2Fx", None),
        ("PUT", "/v1/files/..%2Fx", None),
        ("PUT", "/v1/uploads/u?path=../x&offset=0", None),
        ("DELETE", "/v1/files/..%2Fx", None),
        ("DELETE", "/v1/files/out%2Fx", None),
        ("GET", "/v1/stat?path=/etc/passwd", None),
        ("GET", "/v1/search?path=..", None),
        ("GET", "/v1/search?path=out", None),
        ("GET", "/v1/watch?path=..", None),
        ("POST", "/v1/mkdir", {"path": "../x"}),
        ("POST", "/v1/rename", {"source": "../x", "target": "y"}),
        ("POST", "/v1/rename", {"source": "f", "target": "../y"}),
        ("POST", "/v1/rename", {"source": "f", "target": "out/y"}),
        ("POST", "/v1/chmod", {"path": "/etc/passwd", "mode": "0666"}),
        ("POST", "/v1/chmod", {"path": "out/x", "mode": "0666"}),
    ],
)
async def test_nothing_outside_is_touched(run_daemon: Any, tmp_path: Path, method: str, path: str, body: Any) -> None:
    (tmp_path / "x").write_text("x")
    async with run_daemon() as daemon:
        (daemon.root / "f").write_text("f")
        (daemon.root / "out").symlink_to("..")
        more = {"json": body} if body is not None else {}
        status, answer = await call(daemon, method, path, **more)

    assert (status, answer["code"]) == (403, "PERMISSION_DENIED")
    assert (tmp_path / "x").read_text() == "x"


async def test_search_finds_names_and_lines(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "src").mkdir()
        (daemon.root / "src" / "a.py").write_text("import os\n# needle one\n")
        (daemon.root / "src" / "b.txt").write_text("needle two\n")
        (daemon.root / "src" / "binary.py").write_bytes(b"\0needle")
        (daemon.root / "src" / "link.py").symlink_to("/etc/passwd")
        names = await call(daemon, "GET", "/v1/search?name=*.py")
        lines = await call(daemon, "GET", "/v1/search?content=need.e&name=*.py")
        every = await call(daemon, "GET", "/v1/search?path=src&content=needle")
        one = await call(daemon, "GET", "/v1/search?content=needle&limit=1")
        bad = await call(daemon, "GET", "/v1/search?content=(")

    assert [match["path"] for match in names[1]["matches"]] == ["src/a.py", "src/binary.py", "src/link.py"]
    assert lines[1] == {"matches": [{"path": "src/a.py", "line": 2, "text": "# needle one"}], "truncated": False}
    assert [match["path"] for match in every[1]["matches"]] == ["a.py", "b.txt"]
    assert len(one[1]["matches"]) == 1
    assert one[1]["truncated"]
    assert (bad[0], bad[1]["code"]) == (400, "INVALID_ARGUMENT")


async def test_pattern_without_end_does_not_hold_the_daemon_up(
    run_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_sandbox.sandboxd.search.DEADLINE", 0.5)
    async with run_daemon() as daemon:
        (daemon.root / "f").write_text("a" * 60 + "b\n")
        status, answer = await call(daemon, "GET", "/v1/search?content=(a%2B)%2B$")

    assert status == 200
    assert answer == {"matches": [], "truncated": True}


async def test_changes_are_told_in_new_directories_too(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "old").mkdir()
        async with daemon.session.ws_connect(daemon.url + "/v1/watch?path=.&recursive=true") as stream:
            assert await stream.receive_json(timeout=60) == {"type": "ready"}
            (daemon.root / "old" / "f").write_text("1")
            (daemon.root / "new" / "deep").mkdir(parents=True)
            wanted = {("created", "old/f"), ("modified", "old/f"), ("created", "new"), ("created", "new/deep")}
            seen: set[tuple[str, str]] = set()
            while not wanted <= seen:
                event = await stream.receive_json(timeout=60)
                seen.add((event.get("kind"), event.get("path")))
            (daemon.root / "new" / "deep" / "x").write_text("")
            (daemon.root / "old" / "f").unlink()
            wanted = {("created", "new/deep/x"), ("deleted", "old/f")}
            while not wanted <= seen:
                event = await stream.receive_json(timeout=60)
                seen.add((event.get("kind"), event.get("path")))


async def test_directory_swapped_for_a_link_shows_nothing_of_where_it_leads(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a" / "b").mkdir(parents=True)
    (outside / "b" / "secret").mkdir(parents=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    watch = Watch(descriptor, recursive=True)
    try:
        (root / "a").rename(root / "old")
        (root / "a").symlink_to(outside)
        seen = [list(watch._below(path)) for path in ("a", "a/b", "")]
        await watch.start()
        (outside / "b" / "new").touch()
        (root / "old" / "b" / "mine").touch()
        with anyio.fail_after(60):
            told = [(await watch.next()).path for _ in range(2)]
    finally:
        watch.close()
        os.close(descriptor)

    assert seen[:2] == [[], []]
    assert sorted(seen[2]) == [("a", True), ("old", True), ("old/b", True)]
    assert set(told) == {"old/b/mine"}


async def test_upload_that_nobody_goes_on_with_makes_room_for_others(
    run_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "OPEN_AT_ONCE", 1)
    async with run_daemon() as daemon:

        async def begin(name: str) -> int:
            status, _ = await call(daemon, "PUT", f"/v1/uploads/{name}?path={name}&offset=0", b"x")
            return status

        first, refused = await begin("a"), await begin("b")
        monkeypatch.setattr(uploads, "ABANDONED_SECONDS", -1.0)
        second = await begin("b")

    assert (first, refused, second) == (200, 429, 200)


async def test_port_is_waited_for(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            silent = await call(daemon, "GET", f"/v1/ports/{port}/wait?timeout=0.1")
            async with anyio.create_task_group() as tasks:
                answers: list[Any] = []

                async def ask() -> None:
                    answers.append(await call(daemon, "GET", f"/v1/ports/{port}/wait?timeout=60"))

                tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                bound.listen()
            _, listed = await call(daemon, "GET", "/v1/ports")

    assert silent[1] == {"port": port, "listening": False}
    assert answers[0][1] == {"port": port, "listening": True}
    assert {"port": port, "loopback": True} in listed["ports"]
    assert {"port": daemon.port, "loopback": True} in listed["ports"]


async def test_health_and_metrics_count_what_happened(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        health = await call(daemon, "GET", "/v1/health")
        await call(daemon, "GET", "/nowhere")
        status, text = await call(daemon, "GET", "/metrics")

    assert health[1]["status"] == "ok"
    assert status == 200
    assert b'sandboxd_requests_total{method="GET",code="200"} 1\n' in text
    assert b"sandboxd_processes_running 0\n" in text


async def test_openapi_document_names_every_route(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        app = create_app(SandboxdOptions(root=tmp_path), tasks)
        served = {
            (route.method.lower(), resource.canonical)
            for resource in app.router.resources()
            for route in resource
            if route.method != "HEAD"
        }
    described = {(method, path) for path, operations in document()["paths"].items() for method in operations}

    assert described == served


async def test_a_client_that_hangs_up_in_a_download_is_no_error_of_the_file(
    run_daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "big").write_bytes(bytes(64 * 2**20))
        before = open_descriptors()
        async with await anyio.connect_tcp("127.0.0.1", daemon.port) as stream:
            await stream.send(b"GET /v1/files/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stream.receive()
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
        with anyio.fail_after(60):
            while open_descriptors() > before:  # noqa: ASYNC110 - nothing tells of the end of a response
                await anyio.sleep(0.01)

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
