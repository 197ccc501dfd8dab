"""The examples' manifests on a real kube-apiserver: accepted as they are, without a warning."""

from pathlib import Path

import pytest

from agent_sandbox.testing.envtest import Kubernetes

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BUILDS = sorted(str(path.parent.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("kustomization.yaml"))


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Kubernetes) -> None:
    """Our kinds, served."""
    cluster.kubectl("apply", "--server-side", "-k", str(REPOSITORY / "config" / "crd"))
    cluster.wait_until_served()


@pytest.mark.parametrize("name", BUILDS)
def test_an_api_server_takes_what_kustomize_builds(cluster: Kubernetes, name: str) -> None:
    said = cluster.kubectl("apply", "-k", str(EXAMPLES / name), "--dry-run=server", "--validate=strict")

    assert "(server dry run)" in said.stdout
    assert "Warning" not in said.stderr
