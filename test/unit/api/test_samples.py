"""The sample manifests: one of each kind, readable by the models, and fit for `kubectl apply -f config/samples`."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_sandbox_api.agents.v1alpha1 import Sandbox
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim, SandboxTemplate, SandboxWarmPool
from agent_sandbox_api.meta import KubeModel

SAMPLES = Path(__file__).resolve().parents[3] / "config" / "samples"
MODELS: dict[str, type[KubeModel]] = {
    "Sandbox": Sandbox,
    "SandboxClaim": SandboxClaim,
    "SandboxTemplate": SandboxTemplate,
    "SandboxWarmPool": SandboxWarmPool,
}


def read(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def test_the_folder_holds_one_manifest_of_each_kind_and_nothing_else() -> None:
    kinds = sorted(document["kind"] for path in SAMPLES.glob("*.*") for document in read(path))
    assert kinds == sorted(MODELS)


@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_models_read_each_sample_without_a_leftover(path: Path) -> None:
    for document in read(path):
        model = MODELS[document["kind"]].model_validate(document)
        assert not model.spec.model_extra  # type: ignore[attr-defined]  # every model of ours has a spec


def test_pool_and_claim_ask_for_the_template_that_is_there() -> None:
    (template,) = read(SAMPLES / "sandboxtemplate.yaml")
    for name in ("sandboxclaim.yaml", "sandboxwarmpool.yaml"):
        (document,) = read(SAMPLES / name)
        assert document["spec"]["sandboxTemplateRef"]["name"] == template["metadata"]["name"]


def test_the_secure_template_allows_dns_and_nothing_else() -> None:
    (secure,) = read(SAMPLES / "needs-a-cluster" / "secure-sandboxtemplate.yaml")
    spec = secure["spec"]
    assert spec["podTemplate"]["spec"]["runtimeClassName"] == "gvisor"
    assert spec["networkPolicy"]["egress"] == [{"ports": [{"protocol": "UDP", "port": 53}]}]
