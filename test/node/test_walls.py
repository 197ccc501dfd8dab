"""Walls of a Pod as seen from inside and from the host; the attempts to leave one are in ``test_escapes.py``."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

RunNode = Callable[..., Any]


async def test_a_command_executed_later_stands_behind_the_same_walls(run_node: RunNode, is_root: bool) -> None:
    async with run_node() as stack:
        sleeper = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}
        await stack.create_pod("one", {"containers": [sleeper]})
        await stack.until_ready("one")

        script = "ls /root; touch /usr/x; unshare -U true; cat /proc/self/status; ls /proc/self/fd; echo > /etc/x"
        session = await stack.execute("one", "main", ["sh", "-c", script])

    status = dict(line.split(":\t", 1) for line in session.out.decode().splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Groups"].strip() == "" or not is_root  # without root the kernel lets nobody drop groups
    assert session.err.count(b"Read-only file system") == 2
    assert b"not permitted" in session.err
    assert b"/root" in session.err


@pytest.mark.skipif(os.geteuid() != 0, reason="without root every Pod is the user's own account on the host")
async def test_each_pod_is_another_user_of_the_host_and_owns_only_its_files(run_node: RunNode) -> None:
    async with run_node() as stack:
        sleeper = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}
        for name in ("a", "b"):
            await stack.create_pod(name, {"containers": [sleeper]})
            await stack.until_ready(name)
            await stack.execute(name, "main", ["touch", "/workspace/mine"])
        owners = {path.stat().st_uid for path in stack.state.glob("pods/*/files/containers/main/workspace/mine")}
        modes = {path.stat().st_mode & 0o007 for path in stack.state.glob("pods/*/files")}

    assert len(owners) == 2
    assert min(owners) > 1_800_000_000
    assert modes == {0}


def _all_command_lines() -> bytes:
    lines = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended while we looked
            lines += path.read_bytes()
    return lines


async def test_what_the_process_list_of_the_machine_shows_holds_no_environment(run_node: RunNode) -> None:
    async with run_node() as stack:
        env = [{"name": "TOKEN", "value": "s3cret-value"}]
        sleeper = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"], "env": env}
        await stack.create_pod("one", {"containers": [sleeper]})
        await stack.until_ready("one")
        session = await stack.execute("one", "main", ["printenv", "TOKEN"])
        lines = await anyio.to_thread.run_sync(_all_command_lines)

    assert session.out == b"s3cret-value\n"
    assert b"s3cret-value" not in lines
