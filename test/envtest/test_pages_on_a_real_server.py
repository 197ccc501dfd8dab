"""What the pages show and say about clusters, on a real API server."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from agent_sandbox.testing.envtest import Kubernetes, until
from agent_sandbox.testing.pages import blocks_of

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "docs/start.md",
    *sorted((REPOSITORY / "docs/guides").glob("*.md")),
    *sorted((REPOSITORY / "docs/reference").glob("[!a]*/*.md")),
]


@pytest.fixture(scope="module", autouse=True)
def applied(cluster: Kubernetes) -> None:
    """Everything, and the samples that the pages name."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(REPOSITORY / "config/default"))
    cluster.wait_until_served()
    cluster.kubectl("apply", "-f", str(REPOSITORY / "config/samples"))
    cluster.kubectl("apply", "-f", str(REPOSITORY / "config/samples/needs-a-cluster/secure-sandboxtemplate.yaml"))
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "config/apf/priority_levels.yaml"))
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "config/apf/flow_schemas.yaml"))


def test_a_real_server_takes_every_manifest_of_the_pages_and_knows_all_its_fields(cluster: Kubernetes) -> None:
    manifests = [
        yaml.safe_dump(manifest)
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "yaml"
        for manifest in yaml.safe_load_all(block.text)
        if {"apiVersion", "kind", "metadata"} <= manifest.keys()
    ]
    assert len(manifests) > 10
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin="\n---\n".join(manifests))
    assert "Warning" not in done.stderr


def commands() -> list[str]:
    """The kubectl lines of blocks that need a cluster."""
    texts = [
        block.text for page in PAGES for block in blocks_of(page) if block.language == "sh" and block.needs_cluster
    ]
    lines = "".join(texts).replace("\\\n", " ").splitlines()
    return sorted({line.partition(" #")[0] for line in lines if line.startswith("kubectl ")})


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_pages_works_as_written(
    cluster: Kubernetes, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = cluster.kubectl(*shlex.split(line)[1:], check=False)
    no_leader_yet = "get lease" in line and "NotFound" in done.stderr
    assert done.returncode == 0 or no_leader_yet, done.stderr


def test_requests_of_the_controllers_and_of_claims_go_to_levels_of_their_own(cluster: Kubernetes) -> None:
    """The server itself says which flow schema a request was put under."""
    controllers = "--as=system:serviceaccount:agent-sandbox-system:agent-sandbox-controller"
    uids = {
        cluster.kubectl("get", "flowschema", name, "-o", "jsonpath={.metadata.uid}").stdout: name
        for name in ("agent-sandbox-controllers", "agent-sandbox-clients")
    }

    def is_under(schema: str, *arguments: str) -> bool:
        said = cluster.kubectl("get", *arguments, "-v=8", check=False).stderr
        found = re.search(r"X-Kubernetes-Pf-Flowschema-Uid: ?\[?\"?([0-9a-f-]{36})", said, re.IGNORECASE)
        return found is not None and uids.get(found[1]) == schema

    # It goes by a new schema some time after it has stored it.
    until(lambda: is_under("agent-sandbox-controllers", "pods", "-n", "default", controllers), "controllers are apart")
    until(
        lambda: is_under("agent-sandbox-clients", "sandboxclaims", "-n", "default", "--as=somebody"), "claims are apart"
    )
