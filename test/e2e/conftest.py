"""A home of its own for every test of the command, and proof that nothing is left behind."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_sandbox.testing.commands import run_command
from agent_sandbox.testing.footprint import take_footprint

REPOSITORY = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]
PATIENCE = 180.0
"""Seconds for a command, many times what a machine needs whose one core is shared: only one that hangs takes them."""
UP = ("agent-sandbox", "local", "up", "--background", "--api-port", "0", "--router-port", "0")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with an empty home, and with this virtual environment activated."""
    return environment_of(tmp_path / "home")


def environment_of(home: Path) -> dict[str, str]:
    """What a login shell of a fresh user would have."""
    temporary = home.with_name("tmp")
    home.mkdir()
    temporary.mkdir()
    kept = {key: os.environ[key] for key in ("LANG", "TERM") if key in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(home), "TMPDIR": str(temporary)}


@pytest.fixture
def clean(environment: dict[str, str]) -> Iterator[None]:
    """Fail the test if it leaves a process, a mount, an interface, or a temporary file."""
    place = Path(environment["TMPDIR"])
    before = take_footprint(place)
    yield
    deadline = time.monotonic() + 30
    while (left := take_footprint(place).appeared_since(before)) and time.monotonic() < deadline:
        threading.Event().wait(0.05)  # what a killed parent takes with it needs a moment to end
    assert left == {}


@pytest.fixture
def run(environment: dict[str, str], clean: None) -> Iterator[Run]:
    """Run a command as that user; whatever stack it leaves running is stopped at the end, and nothing is left."""
    yield runner(environment)
    finish = runner(environment)
    for name in ("default", "demo"):
        finish("agent-sandbox", "local", "down", "--name", name, "--purge", "--quiet")


def runner(environment: dict[str, str]) -> Run:
    """A function that runs a command and, unless told otherwise, insists on its success.

    One that does not end in time is killed, and shown with what it wrote last and what its processes do.
    """

    def run(*command: str, timeout: float = PATIENCE, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = run_command(*command, timeout=timeout, cwd=REPOSITORY, env=environment)
        if check:
            assert done.returncode == 0, f"{command} failed\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running stack with the sample template applied, shared by all modules; each removes what it made."""
    home = tmp_path_factory.mktemp("stack")
    run = runner(environment_of(home / "home") | {"AGENT_SANDBOX_STATE_DIR": str(home / "state")})
    run(*UP)
    run("agent-sandbox", "apply", "-f", "config/samples/sandboxtemplate.yaml")
    yield home / "state"
    run("agent-sandbox", "local", "down", "--purge")
