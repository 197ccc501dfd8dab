"""Texts of a Pod are texts: none becomes an option of the program that puts up the walls."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

RunNode = Callable[..., Any]
OPTION = "\0--bind\0/\0/srv\0--tmpfs\0/none"
"""What bwrap would read as further options: this machine's files instead of an empty directory."""


async def test_a_null_byte_takes_down_no_wall(run_node: RunNode) -> None:
    """bwrap reads its options up to a null byte each: what stood behind one in a variable was an option."""
    attempts: dict[str, dict[str, Any]] = {
        "env": {"env": [{"name": "X", "value": f"x{OPTION}"}]},
        "workdir": {"workingDir": f"/tmp{OPTION}\0--dir\0/tmp"},
        "mount": {"volumeMounts": [{"name": "v", "mountPath": f"/v{OPTION}"}]},
    }
    async with run_node() as stack:
        for name, field in attempts.items():
            container = {"name": "main", "image": "localhost/host", "command": ["ls", "/srv"], **field}
            volumes = [{"name": "v", "emptyDir": {}}]
            spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
            await stack.create_pod(name, spec)

        def refused_or_ended(pod: Any) -> bool:
            waiting = [status.state.waiting for status in pod.status.container_statuses if status.state.waiting]
            refused = any("null byte" in state.message for state in waiting)
            return refused or pod.status.phase in ("Succeeded", "Failed")

        for name in attempts:
            pod = await stack.until(name, refused_or_ended)
            assert pod.status.phase == "Pending", await stack.log(name, "main")


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory of the machine in which a Pod's user could make something."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


async def test_a_path_that_climbs_makes_nothing_on_the_machine(run_node: RunNode, open_to_all: Path) -> None:
    """Neither as the working directory, nor as a mount, nor as the file of a container's last words."""
    climb = f"/../oldroot{open_to_all}"
    attempts: dict[str, dict[str, Any]] = {
        "workdir": {"workingDir": f"{climb}/workdir"},
        "mount": {"volumeMounts": [{"name": "v", "mountPath": f"{climb}/mount"}]},
        "words": {"terminationMessagePath": f"{climb}/words"},
    }
    async with run_node() as stack:
        for name, field in attempts.items():
            container = {"name": "main", "image": "localhost/host", "command": ["true"], **field}
            volumes = [{"name": "v", "emptyDir": {}}]
            await stack.create_pod(name, {"restartPolicy": "Never", "containers": [container], "volumes": volumes})
        for name in attempts:
            await stack.until(name, lambda pod: pod.status.phase in ("Succeeded", "Failed"))
    assert not await anyio.to_thread.run_sync(os.listdir, open_to_all)
