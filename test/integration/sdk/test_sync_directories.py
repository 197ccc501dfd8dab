"""Directory sync with the real daemon: both ways, with conflicts, and with a sandbox that is hostile."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import anyio
import pytest

from agent_sandbox.sdk import (
    AsyncFiles,
    AsyncSandboxClient,
    FileEntry,
    SandboxFileNotFoundError,
    SandboxProtocolError,
    SyncReport,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster


@asynccontextmanager
async def opened(cluster: PretendCluster) -> AsyncIterator[AsyncFiles]:
    """The files of a sandbox with the real daemon in it."""
    async with AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        yield sandbox.files


def tree(root: Path) -> dict[str, str]:
    """All files of a directory that are no bookkeeping."""
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def put(root: Path, **files: str) -> None:
    """Write files; ``__`` in a name stands for a slash."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


async def test_both_sides_end_up_equal_and_a_second_sync_does_nothing(cluster: PretendCluster, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, a="from here", d__b="deep")
    put(remote, c="from there")
    async with opened(cluster) as files:
        first = await files.sync(local, "project")
        second = await files.sync(local, "project")

    assert first == SyncReport(uploaded=("a", "d/b"), downloaded=("c",))
    assert second == SyncReport()
    assert tree(local) == tree(remote) == {"a": "from here", "c": "from there", "d/b": "deep"}


async def test_changes_go_over_and_conflicts_stay(cluster: PretendCluster, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, a="1", b="1", c="1")
    async with opened(cluster) as files:
        await files.sync(local, "project")
        put(local, a="here", c="changed here")
        put(remote, b="there", c="also there")
        report = await files.sync(local, "project")
        settled = await files.sync(local, "project", prefer="remote")

    assert report == SyncReport(uploaded=("a",), downloaded=("b",), conflicts=("c",))
    assert settled == SyncReport(downloaded=("c",))
    assert tree(local) == tree(remote) == {"a": "here", "b": "there", "c": "also there"}


async def test_a_change_in_the_middle_of_a_sync_goes_over_with_the_next(
    cluster: PretendCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was written to just after it had been read counted as equal for ever."""
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, a="1", c="same")
    put(remote, b="1", c="same")
    async with opened(cluster) as files:
        upload, download, stream = files.upload, files.download, files.stream

        async def upload_and_change(source: Path, path: str) -> int:
            size = await upload(source, path)
            put(local, a="newer here")
            return size

        async def download_and_change(path: str, target: Path) -> int:
            size = await download(path, target)
            put(remote, b="newer there")
            return size

        async def stream_and_change(path: str) -> AsyncIterator[bytes]:
            async for piece in stream(path):
                yield piece
            put(remote, c="changed there")

        with monkeypatch.context() as patched:
            patched.setattr(files, "upload", upload_and_change)
            patched.setattr(files, "download", download_and_change)
            patched.setattr(files, "stream", stream_and_change)
            await files.sync(local, "project")
        second = await files.sync(local, "project")

    assert second == SyncReport(uploaded=("a",), downloaded=("b", "c"))
    assert tree(local) == tree(remote) == {"a": "newer here", "b": "newer there", "c": "changed there"}


async def test_a_sync_that_is_broken_off_remembers_what_it_has_done(
    cluster: PretendCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, a="1", b="22")
    async with opened(cluster) as files:
        upload, stat, noted = files.upload, files.stat, anyio.Event()

        async def upload_one(source: Path, path: str) -> int:
            if path.endswith("b"):
                await noted.wait()
                scope.cancel()
                await anyio.sleep_forever()
            return await upload(source, path)

        async def stat_and_note(path: str) -> FileEntry:
            entry = await stat(path)
            noted.set()
            return entry

        with monkeypatch.context() as patched, anyio.CancelScope() as scope:
            patched.setattr(files, "upload", upload_one)
            patched.setattr(files, "stat", stat_and_note)
            await files.sync(local, "project")
        (remote / "a").unlink()
        put(local, c="3")
        put(remote, c="3")
        report = await files.sync(local, "project", delete=True)

    assert report == SyncReport(uploaded=("b",), removed_local=("a",))


async def test_removals_go_over_only_when_told(cluster: PretendCluster, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, a="1", b="1", c="1")
    async with opened(cluster) as files:
        await files.sync(local, "project")
        (local / "a").unlink()
        (remote / "b").unlink()
        untouched = await files.sync(local, "project")
        report = await files.sync(local, "project", delete=True)

    assert untouched == SyncReport()
    assert report == SyncReport(removed_local=("b",), removed_remote=("a",))
    assert tree(local) == tree(remote) == {"c": "1"}


@pytest.mark.parametrize("direction", ["up", "both"])
async def test_a_missing_directory_here_removes_nothing_there(
    cluster: PretendCluster, tmp_path: Path, direction: Literal["up", "both"]
) -> None:
    """A name typed wrong is a directory that does not exist: equal to it would be an empty one."""
    remote, wrong = cluster.workspace / "project", tmp_path / "porject"
    put(remote, a="1")
    async with opened(cluster) as files:
        with pytest.raises(FileNotFoundError, match="porject"):
            await files.sync(wrong, "project" if direction == "up" else "porject", direction=direction, delete=True)

    assert tree(remote) == {"a": "1"}
    assert not wrong.exists()


async def test_a_missing_directory_there_removes_nothing_here(cluster: PretendCluster, tmp_path: Path) -> None:
    local = tmp_path / "local"
    put(local, a="1")
    async with opened(cluster) as files:
        with pytest.raises(SandboxFileNotFoundError, match="porject"):
            await files.sync(local, "porject", direction="down", delete=True)

    assert tree(local) == {"a": "1"}


@pytest.mark.parametrize("whole", [True, False])
async def test_a_sandbox_that_started_anew_removes_nothing_here(
    cluster: PretendCluster, tmp_path: Path, whole: bool
) -> None:
    """After a restart without a volume the workspace is empty, and the sandbox's name is what it was."""
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, a="1", d__b="2")
    async with opened(cluster) as files:
        await files.sync(local, "project")
        shutil.rmtree(remote)
        if not whole:
            remote.mkdir()
        report = await files.sync(local, "project", delete=True)

    assert report == SyncReport(uploaded=("a", "d/b"))
    assert tree(local) == tree(remote) == {"a": "1", "d/b": "2"}


async def test_ignored_paths_and_links_are_left_alone(cluster: PretendCluster, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, keep="1", skip="1", build__x="1")
    (local / ".sandboxignore").write_text("skip\nbuild/\n")
    (local / "link").symlink_to("/etc/hostname")
    put(remote, build__y="1", other="1")
    async with opened(cluster) as files:
        report = await files.sync(local, "project", ignore=["other"])

    assert report.downloaded == ()
    assert report.uploaded == (".sandboxignore", "keep")


async def test_equal_content_without_history_is_no_conflict(cluster: PretendCluster, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, same="content", other="aaa")
    put(remote, same="content", other="bbb")
    async with opened(cluster) as files:
        report = await files.sync(local, "project")

    assert report == SyncReport(conflicts=("other",))


async def test_down_makes_this_side_what_that_side_is(cluster: PretendCluster, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(local, extra="1", a="here")
    put(remote, a="from there")
    async with opened(cluster) as files:
        await files.sync(local, "project", direction="down", delete=True)

    assert tree(local) == {"a": "from there"}


async def test_a_link_here_leads_no_byte_outside(cluster: PretendCluster, tmp_path: Path) -> None:
    local, outside = tmp_path / "local", tmp_path / "outside"
    outside.mkdir()
    local.mkdir()
    (local / "d").symlink_to(outside)
    put(cluster.workspace / "project", d__stolen="x")
    async with opened(cluster) as files:
        with pytest.raises(SandboxProtocolError, match="link out of"):
            await files.sync(local, "project")

    assert list(outside.iterdir()) == []


async def test_links_in_the_sandbox_are_left_alone_and_lead_no_sync_in_circles(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    """Two links to their own directory would be 2^40 directories."""
    local, remote = tmp_path / "local", cluster.workspace / "project"
    put(remote, a="from there")
    for name, target in (("loop", "."), ("again", "."), ("same", "a"), ("nowhere", "b")):
        (remote / name).symlink_to(target)
    async with opened(cluster) as files:
        entries = {entry.name: (entry.type, entry.link) for entry in await files.list("project")}
        report = await files.sync(local, "project")

    assert report == SyncReport(downloaded=("a",))
    assert entries == {
        "a": ("file", False),
        "again": ("directory", True),
        "loop": ("directory", True),
        "nowhere": ("symlink", True),
        "same": ("file", True),
    }
