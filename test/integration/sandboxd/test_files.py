"""Files through the legacy contract: whole or not at all, and never outside."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from yarl import URL


def names_in(directory: Path) -> list[str]:
    """The names in a directory."""
    return sorted(file.name for file in directory.iterdir())


async def test_seeds_example_works(run_runtime: Any, tmp_path: Path) -> None:
    async with run_runtime() as runtime:
        status, body = await runtime.upload(f"{tmp_path}/tmp/test.py", b"print('Hello')")
        answer = await runtime.execute(f"python3 {tmp_path}/tmp/test.py")

    assert (status, body) == (200, {"message": f"File '{tmp_path}/tmp/test.py' uploaded successfully."})
    assert answer["stdout"] == "Hello\n"


@pytest.mark.parametrize("name", ["a.txt", "deep/er/a.txt", "ünï cödé/日本.txt", "a%41b", "-rf"])
async def test_uploaded_file_is_replaced_and_comes_back(run_runtime: Any, name: str) -> None:
    async with run_runtime() as runtime:
        for content in (b"old", bytes(range(256)) * 1000):
            status, body = await runtime.upload(name, content)
            assert (status, body) == (200, {"message": f"File '{name}' uploaded successfully."})
        url = f"{runtime.url}/download/" + quote(name, safe="")
        async with runtime.session.get(URL(url, encoded=True), headers={"Range": "bytes=2-4"}) as response:
            part = (response.status, await response.read(), response.headers["Content-Type"])

        assert await runtime.get("/download/" + quote(name, safe="")) == (200, content)
        assert part == (206, b"\x02\x03\x04", "application/octet-stream")
        assert [file.name for file in (runtime.root / name).parent.iterdir()] == [Path(name).name]


@pytest.mark.parametrize("name", ["a.txt", "deep/er/a.txt", "ünï cödé/日本.txt", "a%41b", "-rf", "a\\b", 'quo"te'])
async def test_file_comes_back_as_it_was_sent(run_daemon: Any, name: str) -> None:
    content = bytes(range(256)) * 1000
    async with run_daemon() as daemon:
        status, _ = await daemon.upload(name, content)
        got, body = await daemon.get("/download/" + quote(name, safe=""))

        assert (status, got, body) == (200, 200, content)
        assert (daemon.root / name).read_bytes() == content


async def test_name_of_bytes_that_are_no_utf8_can_be_listed_and_fetched(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / os.fsdecode(b"\xff.txt")).write_text("x")

        assert await daemon.get("/download/%FF.txt") == (200, b"x")
        assert (await daemon.get("/list/"))[1].startswith(b'[{"name": "\\udcff.txt"')


@pytest.mark.parametrize(
    "target", ["/download/..%2Fsecret", "/download/../secret", "/download/%2Fetc%2Fpasswd", "/download/link"]
)
async def test_download_from_outside_is_denied(run_runtime: Any, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("x")
    async with run_runtime() as runtime:
        (runtime.root / "link").symlink_to("/etc/passwd")

        status, body = await runtime.get(target)

    assert (status, json.loads(body)) == (403, {"message": "Access denied"})


@pytest.mark.parametrize("name", ["../out", "/etc/out", "link/out", "x/../../out"])
async def test_upload_to_outside_is_denied_and_leaves_nothing(run_runtime: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with run_runtime() as runtime:
        (runtime.root / "link").symlink_to(tmp_path / "elsewhere")

        assert await runtime.upload(name, b"x") == (403, {"message": "Access denied"})

    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("target", ["/download/missing", "/download/directory", "/download/", "/download/fifo"])
async def test_what_is_no_file_is_not_found(run_runtime: Any, target: str) -> None:
    async with run_runtime() as runtime:
        (runtime.root / "directory").mkdir()
        os.mkfifo(runtime.root / "fifo")

        status, body = await runtime.get(target)

    assert (status, json.loads(body)) == (404, {"message": "File not found"})


async def test_ranges_and_conditions_work(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        await daemon.upload("a", b"0123456789")
        url = daemon.url + "/download/a"
        async with daemon.session.get(url, headers={"Range": "bytes=2-4"}) as response:
            part = (response.status, await response.read(), response.headers["Content-Range"])
            tag = response.headers["ETag"]
        async with daemon.session.get(url, headers={"If-None-Match": tag}) as response:
            unchanged = response.status
        async with daemon.session.get(url, headers={"Range": "bytes=50-"}) as response:
            beyond = response.status
        async with daemon.session.head(url) as response:
            length = response.headers["Content-Length"]

    assert part == (206, b"234", "bytes 2-4/10")
    assert (unchanged, beyond, length) == (304, 416, "10")


async def test_replacing_keeps_the_mode_and_is_seen_whole(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        file = daemon.root / "script"
        file.write_text("old")
        file.chmod(0o755)
        with file.open() as reader:
            await daemon.upload("script", b"new")

            assert reader.read() == "old"
        assert file.read_text() == "new"
        assert file.stat().st_mode & 0o777 == 0o755


async def test_upload_that_breaks_off_leaves_the_old_file_and_nothing_else(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "a").write_text("old")
        async with await anyio.connect_tcp("127.0.0.1", daemon.port) as stream:
            await stream.send(
                b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 5000000\r\n\r\n--b\r\n"
                b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 2_000_000
            )
        with anyio.fail_after(60):
            while (await daemon.execute("true"))["exit_code"] != 0:
                pass

        assert (daemon.root / "a").read_text() == "old"
        assert names_in(daemon.root) == ["a"]


async def test_upload_over_the_limit_is_413(run_daemon: Any) -> None:
    async with run_daemon(max_upload_bytes=1000) as daemon:
        status, body = await daemon.upload("a", b"x" * 1001)

        assert status == 413
        assert "1000 bytes" in body["message"]
        assert names_in(daemon.root) == []


async def test_upload_onto_a_directory_says_so(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "d").mkdir()
        status, body = await daemon.upload("d", b"x")

        assert status == 500
        assert body["message"].startswith("File upload failed: 'd'")
        assert names_in(daemon.root) == ["d"]


async def test_listing_survives_dangling_and_escaping_links(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "b").write_text("12345")
        (daemon.root / "a").mkdir()
        (daemon.root / "dangling").symlink_to("nowhere")
        (daemon.root / "out").symlink_to("/etc")
        (daemon.root / "to-a").symlink_to("a")
        async with daemon.session.get(daemon.url + "/list/") as response:
            entries = await response.json()

    assert [(entry["name"], entry["type"]) for entry in entries] == [
        ("a", "directory"),
        ("b", "file"),
        ("dangling", "file"),
        ("out", "file"),
        ("to-a", "directory"),
    ]
    assert entries[1]["size"] == 5
    assert isinstance(entries[1]["mod_time"], float)


async def test_listing_of_no_directory_is_404(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "f").write_text("")

        for target in ("/list/missing", "/list/f"):
            assert await daemon.get(target) == (404, b'{"message": "Path is not a directory"}')


async def test_existence_is_told(run_daemon: Any) -> None:
    async with run_daemon() as daemon:
        (daemon.root / "a b").write_text("")

        assert await daemon.get("/exists/a%20b") == (200, b'{"path": "a b", "exists": true}')
        assert await daemon.get("/exists/missing/x") == (200, b'{"path": "missing/x", "exists": false}')
        assert (await daemon.get("/exists/..%2Fx"))[0] == 403


async def test_body_that_is_no_upload_is_422(run_runtime: Any) -> None:
    async with run_runtime() as runtime:
        for headers, body in (
            ({}, b"x"),
            ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n"),
            ({"Content-Type": "multipart/form-data; boundary=b"}, b"garbage"),
            ({"Content-Type": "multipart/form-data"}, b"x"),
        ):
            async with runtime.session.post(runtime.url + "/upload", data=body, headers=headers) as response:
                assert response.status == 422
