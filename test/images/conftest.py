"""The images, built without a network from a base that is made here; `make test-images` does so, in minutes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ASKED: str = "AGENT_SANDBOX_TEST_IMAGES"
BASE = "localhost/debian-python:bookworm"
REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is in this folder unless it was asked for and can be done; say why."""
    reason = _reason_to_skip()
    if reason is None:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason))


def _reason_to_skip() -> str | None:
    if not os.environ.get(ASKED):
        return f"{ASKED} is not set: `make test-images` builds the images and runs this"
    if os.geteuid() != 0:
        return "debootstrap and a chroot need root"
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed: `make tools` brings them" if missing else None


@dataclass(frozen=True)
class Store:
    """buildah with a storage of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For the scripts."""
        where = f"--root {self.folder}/storage --runroot {self.folder}/run"
        return {
            **os.environ,
            "STORAGE_DRIVER": "vfs",
            "BUILDAH_ISOLATION": "chroot",
            "ENGINE": "buildah",
            "ENGINE_ARGS": where,
        }

    def buildah(self, *words: str) -> str:
        """Run buildah, give what it prints."""
        command = ["buildah", *self.environment["ENGINE_ARGS"].split(), *words]
        return run(command, self.environment).strip()

    def build(self, version: str) -> list[str]:
        """Build all three images without a network; gives their names."""
        return run(
            ["hack/images.sh", "--offline", BASE], {**self.environment, "VERSION": version, "FRESH": "yes"}
        ).split()

    def digest(self, name: str) -> str:
        """The digest of an image's manifest."""
        return self.buildah("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", name)


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a command in the repository; its words are in the error if it fails."""
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A storage that holds a base image; kept between runs where AGENT_SANDBOX_IMAGE_STORE names a folder."""
    kept = os.environ.get("AGENT_SANDBOX_IMAGE_STORE")
    made = Store(Path(kept) if kept else tmp_path_factory.mktemp("images"))
    if BASE not in made.buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        run(["hack/local_base.sh", BASE], made.environment)
    yield made
    made.buildah("rm", "--all")
    if not kept:
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def images(store: Store) -> list[str]:
    """The names of the three images."""
    return store.build("test")
