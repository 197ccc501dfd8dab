"""A home of its own for every test of the command, and proof that nothing is left behind."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_sandbox.testing.footprint import take_footprint

REPOSITORY = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with an empty home, and with this virtual environment activated."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: os.environ[key] for key in ("LANG", "TERM") if key in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(home), "TMPDIR": tempfile.gettempdir()}


@pytest.fixture
def clean(environment: dict[str, str]) -> Iterator[None]:
    """Fail the test if it leaves a process, mount, interface, or file in the temporary directory or the home."""
    places = (Path(tempfile.gettempdir()), Path(environment["HOME"]))
    before = take_footprint(*places)
    yield
    left = take_footprint(*places).appeared_since(before)
    left.get("files", []).clear() if left.get("files") == [f"{environment['HOME']}/.local"] else None
    assert not {kind: items for kind, items in left.items() if items}


@pytest.fixture
def run(environment: dict[str, str], clean: None) -> Iterator[Run]:
    """Run a command as that user; whatever stack it leaves running is stopped at the end."""

    def run_command(*command: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check:
            assert done.returncode == 0, f"{command} failed\n{done.stdout}\n{done.stderr}"
        return done

    yield run_command
    for name in ("default", "demo"):
        run_command("agent-sandbox", "local", "down", "--name", name, "--purge", "--quiet", check=False)
