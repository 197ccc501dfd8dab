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
UP = ("agent-sandbox", "local", "up", "--background", "--api-port", "0", "--router-port", "0")

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(180)]


def test_the_commands_of_the_page_on_the_local_node_work_as_written(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    shell_image(tmp_path / "layout")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    said = run("bash", "-euo", "pipefail", "-c", f"cd {tmp_path}\n" + "\n".join(blocks), timeout=100).stdout

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
