"""The examples' kustomizations, as kubectl builds them: whole, restricted, and changed as meant."""

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KUBECTL = shutil.which("kubectl")
RUNTIME_CLASSES = {"gvisor": "gvisor", "kata": "kata-qemu"}

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH; it builds kustomizations")


@functools.cache
def built(kustomization: str) -> dict[str, dict[str, Any]]:
    """What kubectl makes of one; objects by kind, of which none comes twice."""
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", EXAMPLES / kustomization], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    objects = list(yaml.load_all(done.stdout, Loader=LOADER))
    assert len({one["kind"] for one in objects}) == len(objects)
    return {one["kind"]: one for one in objects}


def pod_of(kustomization: str) -> dict[str, Any]:
    """The Pod of a kustomization's template."""
    spec: dict[str, Any] = built(kustomization)["SandboxTemplate"]["spec"]["podTemplate"]["spec"]
    return spec


@pytest.mark.parametrize("overlay", RUNTIME_CLASSES)
def test_overlay_of_the_editor_changes_the_runtime_class_and_nothing_else(overlay: str) -> None:
    """A strategic merge would lose the container's variables and mounts, as that of the original did."""
    changed, base = pod_of(f"vscode-sandbox/overlays/{overlay}"), pod_of("vscode-sandbox/base")

    assert changed == {**base, "runtimeClassName": RUNTIME_CLASSES[overlay]}
    assert [mount["name"] for mount in changed["containers"][0]["volumeMounts"]] == ["workspaces"]


@pytest.mark.parametrize("example", ["aio-sandbox", "gemini-cu-sandbox", "python-runtime-sandbox", "vscode-sandbox"])
def test_each_example_is_ready_only_when_it_answers_and_has_no_token_of_the_cluster(example: str) -> None:
    for kustomization in (f"{example}/base", f"{example}/overlays/local"):
        pod = pod_of(kustomization)
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert "readinessProbe" in container
        for container in pod["containers"][:1]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_sandbox_without_a_template_lets_nobody_in() -> None:
    objects = built("aio-sandbox/base")
    policy, sandbox = objects["NetworkPolicy"]["spec"], objects["Sandbox"]["spec"]

    assert policy["podSelector"]["matchLabels"] == sandbox["podTemplate"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert "ingress" not in policy
