"""The commands about this machine: what it can isolate, its images, what a purge leaves."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_sandbox.testing.images import shell_image

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = Path(__file__).resolve().parents[2] / "docs/local.md"
COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
UP = ("agent-sandbox", "local", "up", "--background", "--api-port", "0", "--router-port", "0")

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_commands_of_the_page_on_the_local_node_work_as_written(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    shell_image(tmp_path / "layout")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    said = run("bash", "-euo", "pipefail", "-c", f"cd {tmp_path}\n" + "\n".join(blocks), timeout=400).stdout

    assert "ok       isolation" in said
    assert "localhost/tool:1" in said
    assert "Removed localhost/tool:1." in said
    found = {
        entry["name"]: entry for entry in json.loads(re.findall(r"^\[\n.*?^\]", said, re.MULTILINE | re.DOTALL)[0])
    }
    assert list(found) == ["machine", "isolation", "gvisor", "egress", "users", "limits", "disks", "images"]
    assert all(entry["cure"] for entry in found.values() if entry["state"] != "ok")


def test_a_purge_removes_what_a_killed_stack_left_beside_another_that_goes_on(
    run: Run, environment: dict[str, str]
) -> None:
    run(*UP, "--quiet")
    run(*UP, "--quiet", "--name", "demo")
    homes = Path(environment["HOME"], ".local/state/agent-sandbox")
    record = json.loads((homes / "default/stack.json").read_text())
    groups = homes / "default/node/cgroups.json"
    recorded = json.loads(groups.read_text()) if groups.exists() else []

    os.kill(record["pid"], signal.SIGKILL)
    run("agent-sandbox", "local", "down", "--purge")

    assert [path.name for path in homes.iterdir()] == ["demo"]
    assert [path for path in recorded if Path(path).exists()] == []
    assert json.loads(run("agent-sandbox", "local", "status", "--name", "demo", "-o", "json").stdout)["running"]


def test_a_sandbox_goes_on_when_its_stack_is_killed_and_started_again(run: Run, environment: dict[str, str]) -> None:
    run(*UP, "--quiet")
    run("agent-sandbox", "apply", "-f", "config/samples/sandboxtemplate.yaml")
    run("agent-sandbox", "create", "box", "--template", "python-sandbox-template")
    command = run("agent-sandbox", "run", "--detach", "box", "--", "sh", "-c", COUNTER).stdout.strip()
    boot = run("agent-sandbox", "exec", "box", "--", "cat", "/proc/1/stat").stdout.split()[21]
    record = json.loads(Path(environment["HOME"], ".local/state/agent-sandbox/default/stack.json").read_text())

    os.kill(record["pid"], signal.SIGKILL)
    killed = run("agent-sandbox", "local", "status", check=False)
    run(*UP, "--quiet")
    same = run("agent-sandbox", "exec", "box", "--", "cat", "/proc/1/stat").stdout.split()[21]
    told = run("agent-sandbox", "logs", "box", "--process", command).stdout
    record = json.loads(Path(environment["HOME"], ".local/state/agent-sandbox/default/stack.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    ended = run("agent-sandbox", "local", "down")

    assert killed.returncode == 3
    assert "Sandboxes of a killed stack go on" in killed.stdout
    assert same == boot
    numbers = [int(line) for line in told.split()]
    assert len(numbers) > 50
    assert numbers == list(range(1, len(numbers) + 1))
    assert "sandboxes that outlived it are ended" in ended.stdout
