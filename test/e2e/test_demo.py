"""The main job: one command gives an agent a sandbox on this machine."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_sandbox.local.directory import StateDirectory

Run = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).resolve().parents[2]
UP = ("agent-sandbox", "local", "up", "--background", "--api-port", "0", "--router-port", "0")

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


def test_the_demo_prints_what_the_seed_promises_and_leaves_nothing_behind(run: Run) -> None:
    """`make demo` runs this program: 42 and Hello come from inside, stages are timed, the machine is as before."""
    said = run(sys.executable, "hack/demo.py").stdout

    assert re.search(r"print\(42\)'\s+says\s+42$", said, re.MULTILINE)
    assert re.search(r"test\.py\s+says\s+Hello$", said, re.MULTILINE)
    assert re.search(r"claim → Ready\s+\d+ ms", said)
    assert re.search(r"first command\s+\d+ ms", said)
    assert "0 files of anybody's home" in said


@pytest.mark.slow
def test_a_stack_killed_during_the_demo_comes_back_with_its_sandboxes(run: Run, environment: dict[str, str]) -> None:
    """After kill -9 in the middle the next `up` finds the objects, all sandboxes become Ready, no Pod is doubled."""
    demo = subprocess.Popen(
        [sys.executable, "-u", "hack/demo.py"], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    with demo.stdout:
        for line in demo.stdout:
            if "says  42" in line:
                kill_stack(Path(environment["HOME"]) / ".local/state/agent-sandbox/demo")
                break
        said = demo.stdout.read()
    assert demo.wait() == 1
    assert "agent-sandbox local up --background --name demo" in said
    assert run("agent-sandbox", "local", "status", "--name", "demo", check=False).returncode == 3

    run(*UP, "--name", "demo")
    environment["AGENT_SANDBOX_STACK"] = "demo"
    run("agent-sandbox", "apply", "-f", "config/samples/sandboxwarmpool.yaml", "--wait")

    expected = {"claims": 1, "readyClaims": 1, "sandboxes": 3, "readySandboxes": 3, "pods": 3}
    assert expected.items() <= objects_once(expected, run).items()


def objects_once(expected: dict[str, int], run: Run) -> dict[str, int]:
    """What the stack counts once that is what is expected; what it counts after half a minute if it is not."""
    deadline = time.monotonic() + 60
    while True:
        objects: dict[str, int] = json.loads(run("agent-sandbox", "local", "status", "-o", "json").stdout)["objects"]
        if expected.items() <= objects.items() or time.monotonic() > deadline:
            return objects


def kill_stack(state: Path) -> None:
    """Kill a stack as a crash would, and wait until its process is gone."""
    owner = StateDirectory(state).owner()
    assert owner is not None
    process = os.pidfd_open(owner)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        gone, _, _ = select.select([process], [], [], 60)
        assert gone
    finally:
        os.close(process)


def test_a_second_stack_in_the_same_directory_is_refused_with_the_way_out(run: Run) -> None:
    """Two `up` in one directory: the second names the first one's process and what to do."""
    run(*UP)

    second = run(*UP, check=False)

    assert second.returncode == 1
    assert re.search(r"a stack already runs in .* \(process \d+\)", second.stderr)
    assert "agent-sandbox local down" in second.stderr


def test_a_port_in_use_is_named_together_with_the_option_that_changes_it(run: Run) -> None:
    """A taken port ends `up` at once, and the next `up` with another port works."""

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = run(*UP[:-3], port, *UP[-2:], check=False)

        assert refused.returncode == 1
        assert f"port {port} of 127.0.0.1" in refused.stderr
        assert "--api-port" in refused.stderr
    run(*UP)
