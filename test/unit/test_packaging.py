"""What people install: built here the way a release is, sdist first and the wheel from it."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel made from that sdist; no network is used."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> list[str]:
    """Every file of the wheel."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


PACKAGES = {"agent_sandbox", "agent_sandbox_api", "agent_sandbox_controllers", "agentic_sandbox"}


def test_the_wheel_installs_our_packages_and_no_other(wheel_names: list[str]) -> None:
    top = {name.partition("/")[0] for name in wheel_names}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == PACKAGES


def test_each_package_says_that_it_is_typed(wheel_names: list[str]) -> None:
    typed = {name for name in wheel_names if name.endswith("/py.typed")}
    assert typed == {f"{name}/py.typed" for name in PACKAGES}


def test_an_installed_wheel_finds_the_crds(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "import agent_sandbox_api.crds as crds\n"
        "print(json.dumps([crds.__file__, [crd['metadata']['name'] for crd in crds.load_crds()]]))"
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)

    where, names = json.loads(done.stdout)
    assert Path(where).is_relative_to(tmp_path)
    assert names == [
        "sandboxclaims.extensions.agents.x-k8s.io",
        "sandboxes.agents.x-k8s.io",
        "sandboxtemplates.extensions.agents.x-k8s.io",
        "sandboxwarmpools.extensions.agents.x-k8s.io",
    ]


def test_the_daemon_of_an_installed_wheel_needs_what_its_extra_names_and_no_more(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    extra = re.findall(r"Requires-Dist: ([\w-]+).*; extra == 'sandboxd'", metadata.read_text())
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import agent_sandbox.sandboxd.app as app\n"
        "print(app.__file__)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    where, loaded = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout.splitlines()
    of_the_base = {"click", "kubernetes_asyncio", "msgspec", "prometheus_client", "pydantic", "structlog", "yaml"}

    assert Path(where).is_relative_to(tmp_path)
    assert extra == ["aiohttp", "anyio"]
    assert not set(loaded.split()) & of_the_base


def test_the_sdist_carries_the_whole_tree_and_no_virtual_environment(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"agent_sandbox", "api", "config", "controllers", "hack", "test", "Makefile", "LICENSE"} <= top
    assert not {".venv", ".git", "dist", ".mypy_cache"} & top
