"""The images: repeatable to the last byte, unprivileged, described, and able to do their work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_sandbox.testing.envtest import ASSETS_VARIABLE, KubeAssets, Kubernetes, kubernetes

pytestmark = pytest.mark.timeout(900)

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM = "agent-sandbox-system"


def test_a_second_build_gives_the_same_images_to_the_last_byte(store: Any, images: list[str]) -> None:
    before = [store.digest(name) for name in images]
    assert store.build("test") == images
    assert [store.digest(name) for name in images] == before
    assert len(set(before)) == 3


def test_no_image_runs_as_root_or_lacks_its_labels(store: Any, images: list[str]) -> None:
    for name in images:
        config = json.loads(store.buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
        user, _, group = config["User"].partition(":")
        assert int(user) >= 1000
        assert int(group) >= 1000
        assert config["Labels"]["org.opencontainers.image.title"] == name.rpartition("/")[2].partition(":")[0]
        assert config["Labels"]["org.opencontainers.image.version"] == "test"


@contextmanager
def started(store: Any, image: str, folder: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A container of the image in a chroot, with the machine's network and the image's user; it sees ``folder``."""
    container = store.buildah("from", "--pull-never", image)
    command = ["buildah", *store.environment["ENGINE_ARGS"].split(), "run", "--isolation", "chroot"]
    command += ["--volume", f"{folder}:{folder}", container, "--", *words]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=store.environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield running
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            running.wait(60)
            store.buildah("rm", container)


def until(holds: Callable[[], bool], running: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for something of which nobody tells; show the log if it does not come."""
    deadline = time.monotonic() + 60
    while not holds():
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        threading.Event().wait(0.2)


def test_the_python_runtime_runs_commands_for_its_user_in_its_workspace(
    store: Any, images: list[str], tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    entry = ["/opt/sandboxd/bin/python", "-m", "agent_sandbox.sandboxd", "--host", "127.0.0.1", "--port", "18888"]

    def execute(command: str) -> Any:
        body = json.dumps({"command": command}).encode()
        request = urllib.request.Request("http://127.0.0.1:18888/execute", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    with started(store, images[2], tmp_path, *entry) as running:

        def answers() -> bool:
            try:
                urllib.request.urlopen("http://127.0.0.1:18888/healthz").close()
            except urllib.error.URLError:
                return False
            return True

        until(answers, running, tmp_path / "log")
        said = execute('sh -c \'id -u; pwd; python -c "print(6*7)"; python -c "import aiohttp" 2>&1 | tail -1\'')

    uid, place, answer, alien = said["stdout"].splitlines()
    assert (uid, place, answer) == ("1000", "/workspace", "42")
    assert "No module named" in alien, "commands do not see the daemon's packages"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """A real API server with everything applied that a cluster gets."""
    if not os.environ.get(ASSETS_VARIABLE):
        pytest.skip(f"{ASSETS_VARIABLE} is not set: `make test-images` sets it where `make kube-assets` has built them")
    assets = KubeAssets.find()
    with kubernetes(tmp_path_factory.mktemp("kubernetes"), assets=assets, controller_manager=True) as server:
        server.kubectl("apply", "--server-side", "-k", str(REPOSITORY / "config" / "default"))
        server.wait_until_served()
        yield server


def test_the_controller_image_works_with_the_deployments_arguments_and_account(
    store: Any, images: list[str], cluster: Kubernetes, tmp_path: Path
) -> None:
    """As user 65532, with the token of its service account, the command and arguments of its Deployment."""
    tmp_path.chmod(0o777)
    config = json.loads(cluster.kubeconfig_for_service_account(SYSTEM, "agent-sandbox-controller").read_text())
    shutil.copy(cluster.ca_file, tmp_path / "ca.crt")
    config["clusters"][0]["cluster"]["certificate-authority"] = str(tmp_path / "ca.crt")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    for path in (kubeconfig, tmp_path / "ca.crt"):
        path.chmod(0o644)
    found = json.loads(
        cluster.kubectl("get", "deployment", "agent-sandbox-controller", "-n", SYSTEM, "-o", "json").stdout
    )
    container = found["spec"]["template"]["spec"]["containers"][0]
    elsewhere = ["--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0"]
    words = [*container["command"], *container["args"], *elsewhere, f"--kubeconfig={kubeconfig}"]
    with started(store, images[0], tmp_path, *words) as running:
        cluster.kubectl("apply", "-f", str(REPOSITORY / "config" / "samples" / "sandbox.yaml"))
        ask = ("get", "pod", "my-sandbox", "-o", "jsonpath={.metadata.ownerReferences[0].kind}")
        until(lambda: cluster.kubectl(*ask, check=False).stdout == "Sandbox", running, tmp_path / "log")
    assert " cannot " not in (tmp_path / "log").read_text()


def test_the_bill_of_materials_lists_what_is_pinned_and_what_debian_brings(store: Any, images: list[str]) -> None:
    pytest.importorskip("cyclonedx", reason="the dependency group release is not installed")
    root = store.buildah("mount", store.buildah("from", "--pull-never", images[0]))
    command = [sys.executable, "hack/sbom.py", root, "--name", "agent-sandbox-controller", "--version", "test"]
    bill = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout)
    urls = {component["purl"] for component in bill["components"]}
    lock = (REPOSITORY / "images" / "agent-sandbox" / "requirements.txt").read_text()
    pinned = [line.split(" ")[0] for line in lock.splitlines() if "==" in line and "sys_platform" not in line]
    assert {f"pkg:pypi/{each.replace('==', '@')}" for each in pinned if "tzdata" not in each} <= urls
    assert any(url.startswith("pkg:deb/debian/libc6@") for url in urls)
