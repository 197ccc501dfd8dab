"""Containers made from OCI images, behind the same walls as all others."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.node.oci import ImageStore
from agent_sandbox.local.node.oci.layout import extract_archive, read_layout
from agent_sandbox.testing.images import shell_image

RunNode = Callable[..., Any]
IMAGE = "localhost/shell:1"


def box(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": IMAGE, "command": ["sh", "-c", script], **more}


async def _run(stack: Any, name: str, container: dict[str, Any], **spec: Any) -> str:
    await stack.create_pod(name, {"containers": [container], "restartPolicy": "Never", **spec})
    await stack.until(name, lambda pod: pod.status.phase in {"Succeeded", "Failed"})
    output: str = await stack.log(name, container["name"])
    return output


def _add(state: Path, directory: Path, **config: Any) -> None:
    ImageStore(state / "images").add_layout(shell_image(directory, **config))


async def test_an_image_gives_its_files_user_environment_directory_and_entrypoint(
    run_node: RunNode, state_dir: Path, tmp_path: Path
) -> None:
    entrypoint = ["sh", "-c", 'cat /etc/greeting; id -u; id -g; echo "$COLOR $HOME"; pwd; ls /; echo "$0"']
    config = {"Env": ["COLOR=blue"], "User": "app", "WorkingDir": "/srv/app", "Entrypoint": entrypoint, "Cmd": ["word"]}
    await anyio.to_thread.run_sync(lambda: _add(state_dir, tmp_path / "layout", **config))
    async with run_node() as stack:
        output = await _run(stack, "one", {"name": "main", "image": IMAGE})
        other = await _run(
            stack, "two", box("id -u; cat /root/x; ls /home /etc/shadow"), securityContext={"runAsUser": 7}
        )

    lines = output.splitlines()
    assert lines[:5] == ["hello from the image", "1234", "1235", "blue /home/app", "/srv/app"]
    assert lines[-1] == "word"
    assert {"bin", "etc", "srv", "tmp"} <= set(lines)
    assert "opt" not in lines
    assert other.splitlines()[0] == "7"
    assert "No such file" in other


async def test_a_container_writes_to_a_layer_of_its_own_that_a_restart_empties(
    run_node: RunNode, state_dir: Path, tmp_path: Path
) -> None:
    await anyio.to_thread.run_sync(lambda: _add(state_dir, tmp_path / "layout"))
    script = "ls /mine; echo changed > /etc/greeting && touch /mine /bin/new && cat /etc/greeting; exit 3"
    async with run_node(restart_backoff=0.05) as stack:
        await stack.create_pod("loop", {"containers": [box(script)]})
        await stack.until("loop", lambda pod: any(entry.restart_count for entry in pod.status.container_statuses))
        second = await stack.until_printed("loop", "main", "changed")
        locked = await _run(
            stack, "locked", box("touch /mine; touch /tmp/x", securityContext={"readOnlyRootFilesystem": True})
        )
        await stack.delete_pod("loop")
        await stack.delete_pod("locked")

    greeting = await anyio.to_thread.run_sync(lambda: next(state_dir.glob("images/*/rootfs/etc/greeting")).read_text())
    assert "cannot access '/mine'" in second
    assert greeting == "hello from the image\n"
    assert locked.count("Read-only file system") == 2


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory of the machine in which a Pod's user could make something."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


async def test_links_of_an_image_lead_mounts_to_its_own_files_and_never_to_the_machines(
    run_node: RunNode, state_dir: Path, tmp_path: Path, open_to_all: Path
) -> None:
    def add() -> None:
        _add(state_dir, tmp_path / "layout")
        root = next(state_dir.glob("images/*/rootfs"))
        (root / "out").symlink_to(f"/oldroot{open_to_all}")
        (root / "var/lock").symlink_to("/run/lock")

    await anyio.to_thread.run_sync(add)
    mounts = [{"name": "v", "mountPath": "/out/v"}, {"name": "w", "mountPath": "/var/lock/w"}]
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]
    async with run_node() as stack:
        script = "echo x > /out/v/x; echo y > /run/lock/w/y; cat /out/v/x /var/lock/w/y"
        output = await _run(stack, "one", box(script, volumeMounts=mounts), volumes=volumes)

    assert output == "x\ny\n"
    assert not await anyio.to_thread.run_sync(os.listdir, open_to_all)


async def test_commands_are_executed_among_the_images_files_as_its_user(
    run_node: RunNode, state_dir: Path, tmp_path: Path
) -> None:
    await anyio.to_thread.run_sync(lambda: _add(state_dir, tmp_path / "layout", User="app"))
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [box("sleep 1000")]})
        await stack.until_ready("one")
        session = await stack.execute("one", "main", ["sh", "-c", "id -u; id -g; cat /etc/greeting; cat /etc/hosts"])

    assert session.out.split(b"\n")[:3] == [b"1234", b"1235", b"hello from the image"]
    assert b"one" in session.out.split(b"\n")[-2]


async def test_an_image_is_never_pulled_with_that_policy_and_must_not_be_root_where_root_is_forbidden(
    run_node: RunNode, state_dir: Path, tmp_path: Path
) -> None:
    await anyio.to_thread.run_sync(lambda: _add(state_dir, tmp_path / "layout"))
    async with run_node() as stack:
        await stack.create_pod(
            "never", {"containers": [{"name": "main", "image": "localhost/none:1", "imagePullPolicy": "Never"}]}
        )
        root = box("id", securityContext={"runAsNonRoot": True})
        await stack.create_pod("root", {"containers": [root]})
        waiting = [await stack.until_troubled(name) for name in ("never", "root")]

    assert [entry.reason for entry in waiting] == ["ErrImageNeverPull", "CreateContainerConfigError"]
    assert "runAsNonRoot" in waiting[1].message


@asynccontextmanager
async def _podman(directory: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Podman's API on a socket and a storage of its own, with one image; the directory's path must be short."""
    options = ["--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "vfs"]
    podman = ["podman", *options]
    await anyio.run_process([*podman, "load", "-i", str(archive)])
    socket = directory / "podman.sock"
    async with await anyio.open_process([*podman, "system", "service", "-t", "0", f"unix://{socket}"]) as service:
        with anyio.fail_after(60):
            while not await anyio.Path(socket).exists():  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.02)
        monkeypatch.setenv("CONTAINER_HOST", f"unix://{socket}")
        try:
            yield
        finally:
            service.terminate()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed: apt-get install podman")
async def test_an_image_that_podman_has_is_fetched_through_its_socket(
    run_node: RunNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, archive = shell_image(tmp_path / "layout", User="app"), tmp_path / "image.tar"
    await anyio.to_thread.run_sync(
        lambda: subprocess.run(["tar", "-C", str(layout), "-cf", str(archive), "."], check=True)
    )
    directory = await anyio.to_thread.run_sync(lambda: Path(tempfile.mkdtemp(prefix="p")))
    try:
        output, absent = await _on_podman(directory, archive, monkeypatch, run_node)
    finally:
        await anyio.to_thread.run_sync(shutil.rmtree, directory)

    assert output == "hello from the image\n1234\n"
    assert absent.status.container_statuses[0].state.waiting.reason == "ErrImagePull"


async def _on_podman(directory: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, run_node: RunNode) -> Any:
    async with _podman(directory, archive, monkeypatch), run_node() as stack:
        output = await _run(stack, "one", box("cat /etc/greeting; id -u"))
        await stack.create_pod("absent", {"containers": [{"name": "main", "image": "localhost/absent:1"}]})
        absent = await stack.until(
            "absent", lambda pod: any(entry.state.waiting.message for entry in pod.status.container_statuses)
        )
        return output, absent


def test_an_archive_holds_what_its_layout_did(tmp_path: Path) -> None:
    layout, archive, again = shell_image(tmp_path / "layout"), tmp_path / "image.tar", tmp_path / "again"
    subprocess.run(["tar", "-C", str(layout), "-cf", str(archive), "."], check=True)

    extract_archive(archive, again)

    assert [spec.digest for spec in read_layout(again)] == [spec.digest for spec in read_layout(layout)]
