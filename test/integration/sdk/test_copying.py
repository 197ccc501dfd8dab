"""Files and directories copied both ways, as `cp -r` does, against the real daemon."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_sandbox.sdk import (
    AsyncSandboxClient,
    Sandboxes,
    SandboxFileNotFoundError,
    SandboxProtocolError,
    TransferProgress,
)
from agent_sandbox.sdk.options import ConnectionOptions
from agent_sandbox.testing.pretend_cluster import PretendCluster


@asynccontextmanager
async def opened(cluster: PretendCluster) -> AsyncIterator[AsyncSandboxClient]:
    """A sandbox with the real daemon in it."""
    async with AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        yield sandbox


def make_project(root: Path) -> Path:
    """A directory with all that a copy may meet."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    (root / "sub" / "deep" / "grüße %41.bin").write_bytes(bytes(range(256)) * 1000)
    (root / "sub" / "nothing").touch()
    (root / "link").symlink_to("run.sh")
    (root / "loop").symlink_to(".")
    return root


async def test_a_directory_goes_there_and_comes_back_the_same(cluster: PretendCluster, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    progress: list[TransferProgress] = []
    async with opened(cluster) as sandbox:
        up = await sandbox.files.put(project, "copy", on_progress=progress.append)
        down = await sandbox.files.get("copy", tmp_path / "back")

    back = tmp_path / "back"
    assert (up.files, up.bytes, sorted(up.skipped)) == (3, 256_000 + 10, ["link", "loop"])
    assert down == type(down)(up.files, up.bytes)
    assert (back / "sub/deep/grüße %41.bin").read_bytes() == bytes(range(256)) * 1000
    assert (back / "run.sh").stat().st_mode & 0o777 == 0o750
    assert (back / "empty").is_dir()
    assert (back / "sub/nothing").read_bytes() == b""
    assert progress[-1].done == progress[-1].total == up.bytes


async def test_what_exists_as_a_directory_takes_the_copy_under_its_own_name(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a")
    (tmp_path / "here").mkdir()
    async with opened(cluster) as sandbox:
        await sandbox.files.mkdir("there")
        for target in ("there", "new/", "b.txt", "."):
            await sandbox.files.put(file, target)
        await sandbox.files.get("there/a.txt", tmp_path / "here")
        await sandbox.files.get("there", tmp_path / "here")

        for path in ("there/a.txt", "new/a.txt", "b.txt", "a.txt"):
            assert await sandbox.files.read(path) == b"a"
    assert (tmp_path / "here/a.txt").read_text() == (tmp_path / "here/there/a.txt").read_text() == "a"


async def test_links_in_the_sandbox_lead_no_copy_in_circles(cluster: PretendCluster, tmp_path: Path) -> None:
    async with opened(cluster) as sandbox:
        await sandbox.commands.run("mkdir d; echo x > d/x; ln -s . d/loop; ln -s x d/same; ln -s /etc d/out")
        report = await sandbox.files.get("d", tmp_path / "d")

    assert report.skipped == ("loop", "out")
    assert (tmp_path / "d/same").read_text() == "x\n"


async def test_a_link_of_this_machine_leads_no_copy_out_of_its_target(cluster: PretendCluster, tmp_path: Path) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    for directory in (here / "inside", outside):
        directory.mkdir(parents=True)
    (here / "near").symlink_to("inside")
    (here / "far").symlink_to(outside)
    (here / "file").symlink_to(outside / "file")
    async with opened(cluster) as sandbox:
        await sandbox.commands.run("mkdir -p a/near b/far; echo x > a/near/x; echo x > a/file; echo x > b/far/x")
        await sandbox.files.get("a/.", here)
        with pytest.raises(SandboxProtocolError, match="leads through a link"):
            await sandbox.files.get("b/.", here)

    assert (here / "inside/x").read_text() == (here / "file").read_text() == "x\n"
    assert not list(outside.iterdir())


async def test_a_program_of_the_sandbox_cannot_set_the_user_that_a_copy_runs_as(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    async with opened(cluster) as sandbox:
        await sandbox.commands.run("echo x > tool; chmod 6755 tool")
        await sandbox.files.get("tool", tmp_path / "tool")

    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755


async def test_what_is_not_there_is_not_copied(cluster: PretendCluster, tmp_path: Path) -> None:
    async with opened(cluster) as sandbox:
        with pytest.raises(SandboxFileNotFoundError):
            await sandbox.files.get("nothing", tmp_path / "x")
        with pytest.raises(FileNotFoundError, match="nothing"):
            await sandbox.files.put(tmp_path / "nothing", "x")

    assert not (tmp_path / "x").exists()


async def test_the_checksum_of_a_file_is_reckoned_in_the_sandbox(cluster: PretendCluster) -> None:
    async with opened(cluster) as sandbox:
        await sandbox.files.write("f", "abc")

        assert (await sandbox.files.sha256("f")).startswith("ba7816bf")


def test_the_synchronous_classes_copy_too(sync_cluster: PretendCluster, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    options = ConnectionOptions(kube=sync_cluster.kube, api_url=sync_cluster.api_url)
    with Sandboxes(options=options) as sandboxes, sandboxes.use("python") as sandbox:
        assert sandbox.files.put(project, "p").files == 3
