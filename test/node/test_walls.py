"""The walls, each tested by an attempt from inside; ``attempts.py`` holds the attempts."""

import json
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.node import seccomp

RunNode = Callable[..., Any]
SERVER = "import http.server as h; h.ThreadingHTTPServer(('0.0.0.0', 8888), h.SimpleHTTPRequestHandler).serve_forever()"


def _listen_everywhere() -> socket.socket:
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listener.listen()
    return listener


def _abstract_listener(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + name)
    listener.listen()
    return listener


async def test_every_attempt_to_leave_a_sandbox_fails(run_node: RunNode) -> None:
    attempts = await anyio.Path(__file__).with_name("attempts.py").read_text()
    syscalls = seccomp.denied_calls(platform.machine()) | {"clone": {"x86_64": 56, "aarch64": 220}[platform.machine()]}
    abstract = f"agent-sandbox-test-{os.getpid()}"
    with _listen_everywhere() as listener, _abstract_listener(abstract):
        async with run_node() as stack:
            server = {"name": "main", "image": "localhost/host", "command": ["python", "-c", SERVER]}
            await stack.create_pod("other", {"containers": [server]})
            other = await stack.until_ready("other")
            await stack.execute("other", "main", ["sh", "-c", "echo secret > /workspace/other-secret"])
            path = f"{stack.state}/pods/{other.metadata.uid}/files/containers/main/workspace/other-secret"
            facts = {
                "home": str(Path.home()),
                "state": str(stack.state),
                "other_file": path,
                "other_name": "other-secret",
                "other_address": other.ips[0],
                "helper": stack.node.network.pid,
                "host_port": listener.getsockname()[1],
                "host_address": _an_address_of_this_machine(),
                "abstract": abstract,
                "marker": "attempts",
                "marker_variable": "PYTEST_CURRENT_TEST",
                "syscalls": syscalls,
            }
            command = ["python", "-c", attempts, json.dumps(facts), "attempts"]
            container = {"name": "main", "image": "localhost/host", "command": command}
            await stack.create_pod("prisoner", {"containers": [container], "restartPolicy": "Never"})
            await stack.until("prisoner", lambda pod: pod.status.phase in {"Succeeded", "Failed"})
            output = await stack.log("prisoner", "main")
            host_sees = await anyio.to_thread.run_sync(Path(path).read_text)

    lines = [line for line in output.splitlines() if line.startswith("{")]
    assert lines, output
    results = json.loads(lines[0])
    assert host_sees == "secret\n"
    assert len(results) >= 60
    assert {name: how for name, how in results.items() if not how.startswith("refused")} == {}
    assert {how for name, how in results.items() if name.startswith("call_")} == {
        "refused: [Errno 1] Operation not permitted"
    }


def _an_address_of_this_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


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
    return b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())


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
