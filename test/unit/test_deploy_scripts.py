"""The scripts behind `make deploy`, `make kind-up` and `make images`: well-formed, and true to what they say."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "hack").rglob("*.sh"))
IMAGES = REPOSITORY / "images"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environment}, check=False, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed: `make tools` brings it")
def test_shellcheck_finds_nothing() -> None:
    done = run("shellcheck", *map(str, SCRIPTS))
    assert done.returncode == 0, done.stdout


def test_the_dry_run_of_kind_up_shows_each_step_in_order() -> None:
    said = run("hack/kind-up.sh", "--dry-run", ENGINE="podman", KIND_CLUSTER="try").stdout
    steps = [line.split()[:3] for line in said.splitlines()]
    assert steps[0] == ["kind", "create", "cluster"]
    assert ["hack/images.sh"] in steps
    loads = [line for line in said.splitlines() if line.startswith("kind load image-archive")]
    assert len(loads) == 3
    assert all(line.endswith("--name try") for line in loads)
    assert steps.index(["hack/deploy.sh"]) > steps.index(["kind", "load", "image-archive"])


def test_deploy_asks_where_the_images_are() -> None:
    done = run("hack/deploy.sh", REGISTRY="")
    assert done.returncode == 1
    assert "REGISTRY=" in done.stderr


@needs_kubectl
def test_the_manifests_carry_the_images_and_components_that_were_asked_for() -> None:
    done = run("hack/manifests.sh", REGISTRY="registry.example.com/team", VERSION="0.1.0", COMPONENTS="prometheus")
    images = re.findall(r"^ +image: (registry\S+)", done.stdout, re.MULTILINE)
    assert images == [
        f"registry.example.com/team/{name}:0.1.0" for name in ("agent-sandbox-controller", "sandbox-router")
    ]
    assert "kind: PodMonitor" in done.stdout
    assert list(REPOSITORY.glob(".overlay-*")) == []


def test_a_removal_waits_until_kubectl_finds_the_kinds_and_for_nothing_else(tmp_path: Path) -> None:
    """Discovery follows some time after a kind is established: a busy server was asked in between."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh
        cd {tmp_path}
        case "$1 $2" in
          "get crd") echo customresourcedefinition.apiextensions.k8s.io/sandboxes.agents.x-k8s.io ;;
          "get -A") [ ! -e words ] || {{ cat words >&2; rm words; exit 1; }}; echo default/box ;;
          delete*) touch deleted ;;
        esac
        """
    )
    kubectl.chmod(0o755)
    (tmp_path / "words").write_text('error: the server doesn\'t have a resource type "sandboxes"')
    done = run("hack/remove.sh", "kinds", KUBECTL=str(kubectl))
    assert (done.returncode, "default/box" in done.stderr) == (0, True), done.stderr
    assert (tmp_path / "deleted").exists()

    (tmp_path / "deleted").unlink()
    (tmp_path / "words").write_text("Error from server (Forbidden): you may not list them")
    done = run("hack/remove.sh", "kinds", KUBECTL=str(kubectl))
    assert (done.returncode, "Forbidden" in done.stderr) == (1, True)
    assert not (tmp_path / "deleted").exists()


def test_a_component_that_is_not_there_is_named() -> None:
    done = run("hack/manifests.sh", COMPONENTS="promtheus")
    assert done.returncode == 1
    assert "config/promtheus" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("image", "extras"), [("agent-sandbox", ("fast", "otel")), ("python-runtime", None)])
def test_what_an_image_installs_is_pinned_with_hashes(image: str, extras: tuple[str, ...] | None) -> None:
    """For the daemon: the two packages that it imports; for the processes: everything of the project's metadata."""
    lock = (IMAGES / image / "requirements.txt").read_text()
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = ["aiohttp", "anyio"]
    if extras is not None:
        wanted = project["dependencies"] + [
            name for extra in extras for name in project["optional-dependencies"][extra]
        ]
    names = {re.split(r"[<>=;\[ ]", each)[0].lower().replace("_", "-") for each in wanted}

    assert names <= pinned, "run hack/lock_images.sh"
    assert lock.count("--hash=sha256:") > len(pinned)


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*/Containerfile")), ids=lambda path: path.parent.name)
def test_images_are_staged_unprivileged_and_take_any_base(path: Path) -> None:
    text = path.read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages[:2] == ["${BASE}", "${BASE}"]
    user = re.findall(r"^USER (\d+):(\d+)", text, re.MULTILINE)
    assert user
    assert all(int(uid) > 0 for uid, _ in user)
    assert "--require-hashes" in text
    assert "SOURCE_DATE_EPOCH" in text


def test_docker_and_the_others_leave_out_the_same_of_the_work_tree() -> None:
    assert (REPOSITORY / ".dockerignore").read_text() == (REPOSITORY / ".containerignore").read_text()


def test_the_workflows_run_pinned_actions_only() -> None:
    for path in (REPOSITORY / ".github" / "workflows").glob("*.yaml"):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, "each job says what it needs"
        for name, job in workflow["jobs"].items():
            assert "permissions" in job, name
            for step in job.get("steps", []):
                if "uses" in step:
                    assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
