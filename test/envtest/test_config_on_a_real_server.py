"""What `kubectl apply -k config/default` brings, on a real API server: accepted without a warning, and no more allowed
than meant."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_sandbox.testing.envtest import Kubernetes

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

CONFIG = Path(__file__).resolve().parents[2] / "config"
SYSTEM = "agent-sandbox-system"
CONTROLLER = f"system:serviceaccount:{SYSTEM}:agent-sandbox-controller"
ROUTER = f"system:serviceaccount:{SYSTEM}:sandbox-router"


@pytest.fixture(scope="module", autouse=True)
def applied(cluster: Kubernetes) -> None:
    """Everything, applied server-side."""
    done = cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CONFIG / "default"))
    assert "Warning" not in done.stderr
    cluster.wait_until_served()
    cluster.wait_until_allowed(CONTROLLER, "create", "pods")
    cluster.wait_until_allowed(CONTROLLER, "update", "leases.coordination.k8s.io", "-n", SYSTEM)
    cluster.wait_until_allowed(ROUTER, "watch", "pods")


@pytest.fixture(scope="module")
def client_namespace(cluster: Kubernetes) -> Iterator[str]:
    """A namespace in which the group `agents` has the role of a program that uses the SDK, and `readers` may view."""
    name = "team"
    cluster.kubectl("create", "namespace", name)
    for role, group in (("agent-sandbox-client", "agents"), ("view", "readers")):
        cluster.kubectl("create", "rolebinding", group, f"--clusterrole={role}", f"--group={group}", "-n", name)
    # The role `view` gets our kinds from the controller manager.
    for verb, resource, group in (("create", "sandboxclaims", "agents"), ("list", "sandboxwarmpools", "readers")):
        qualified = f"{resource}.extensions.agents.x-k8s.io"
        cluster.wait_until_allowed("somebody", verb, qualified, f"--as-group={group}", "-n", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def allowed(cluster: Kubernetes, verb: str, resource: str, namespace: str, *, user: str, group: str = "") -> bool:
    resource, _, subresource = resource.partition("/")
    flags = [f"--as={user}", *([f"--as-group={group}"] if group else []), "-n", namespace]
    flags += [f"--subresource={subresource}"] if subresource else []
    answer = cluster.kubectl("auth", "can-i", verb, resource, *flags, check=False).stdout
    assert answer.strip() in {"yes", "no"}, answer
    return answer.strip() == "yes"


def test_it_also_applies_client_side(cluster: Kubernetes) -> None:
    done = cluster.kubectl("apply", "-k", str(CONFIG / "default"))
    assert "Warning: resource" in done.stderr or "Warning" not in done.stderr  # it may note its missing annotation
    assert "deployment.apps/sandbox-router" in done.stdout


def test_applying_it_again_changes_nothing(cluster: Kubernetes) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CONFIG / "default"))
    deployments = ["get", "deployment", "-n", SYSTEM, "-o", "jsonpath={.items[*].metadata.generation}"]
    before = cluster.kubectl(*deployments).stdout
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CONFIG / "default"))
    assert cluster.kubectl(*deployments).stdout == before


def test_the_pods_of_our_deployments_pass_the_restricted_standard_of_their_namespace(cluster: Kubernetes) -> None:
    found = json.loads(cluster.kubectl("get", "deployment", "-n", SYSTEM, "-o", "json").stdout)
    for deployment in found["items"]:
        template = deployment["spec"]["template"]
        name = deployment["metadata"]["name"]
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] |= {"name": f"try-{name}", "namespace": SYSTEM}
        cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", SYSTEM, "--timeout=30s")
        cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_the_components_build(cluster: Kubernetes, tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(CONFIG)
    overlay = tmp_path / "kustomization.yaml"
    overlay.write_text("resources: [config/default]\ncomponents: [config/prometheus]\n")
    built = cluster.kubectl("kustomize", str(tmp_path), "--load-restrictor=LoadRestrictionsNone").stdout
    assert "kind: PodMonitor" in built
    assert "kind: CustomResourceDefinition" in built


@pytest.mark.parametrize(
    ("verb", "resource", "expected"),
    [
        ("create", "pods", True),
        ("patch", "sandboxes.agents.x-k8s.io/status", True),
        ("update", "sandboxes.agents.x-k8s.io/finalizers", True),
        ("get", "secrets", False),
        ("create", "sandboxclaims.extensions.agents.x-k8s.io", False),
        ("create", "pods/exec", False),
        ("patch", "deployments.apps", False),
    ],
)
def test_the_controllers_may_do_what_they_must_and_no_more(
    cluster: Kubernetes, verb: str, resource: str, expected: bool
) -> None:
    assert allowed(cluster, verb, resource, "default", user=CONTROLLER) is expected


def test_the_lease_of_the_election_is_writable_in_our_namespace_only(cluster: Kubernetes) -> None:
    lease = "leases.coordination.k8s.io"
    assert allowed(cluster, "update", lease, SYSTEM, user=CONTROLLER)
    assert not allowed(cluster, "update", lease, "kube-system", user=CONTROLLER)


def test_the_router_only_looks(cluster: Kubernetes) -> None:
    assert allowed(cluster, "watch", "pods", "default", user=ROUTER)
    assert allowed(cluster, "list", "sandboxes.agents.x-k8s.io", "default", user=ROUTER)
    assert not allowed(cluster, "patch", "sandboxes.agents.x-k8s.io", "default", user=ROUTER)
    assert not allowed(cluster, "get", "secrets", SYSTEM, user=ROUTER)


def test_a_program_with_the_sdk_may_claim_and_nothing_that_widens_it(
    cluster: Kubernetes, client_namespace: str
) -> None:
    def may(verb: str, resource: str) -> bool:
        return allowed(cluster, verb, resource, client_namespace, user="agent", group="agents")

    assert may("create", "sandboxclaims.extensions.agents.x-k8s.io")
    assert may("watch", "sandboxes.agents.x-k8s.io")
    assert may("patch", "sandboxes.agents.x-k8s.io/scale")
    assert not may("patch", "sandboxes.agents.x-k8s.io")
    assert not may("create", "sandboxtemplates.extensions.agents.x-k8s.io")
    assert not may("get", "pods")


def test_whoever_may_view_a_namespace_sees_our_kinds(cluster: Kubernetes, client_namespace: str) -> None:
    def may(verb: str, resource: str) -> bool:
        return allowed(cluster, verb, resource, client_namespace, user="reader", group="readers")

    assert may("list", "sandboxwarmpools.extensions.agents.x-k8s.io")
    assert not may("delete", "sandboxwarmpools.extensions.agents.x-k8s.io")


NEEDS_A_KUBELET = re.compile(r"\b(logs|exec|top)\b|\bNAME\b")


def documented_commands() -> list[str]:
    """The kubectl commands of the runbooks and of what is said about metrics and traces; pipes are cut off."""
    documents = [
        *sorted((CONFIG.parent / "docs" / "runbooks").glob("*.md")),
        CONFIG.parent / "docs" / "observability.md",
    ]
    blocks = [
        block
        for each in documents
        for block in re.findall(r"^```sh\n(.*?)^```", each.read_text(), re.MULTILINE | re.DOTALL)
    ]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = {line.partition(" | ")[0] for line in lines if line.startswith("kubectl ")}
    return sorted(line for line in commands if not NEEDS_A_KUBELET.search(line))


@pytest.mark.parametrize("line", documented_commands())
def test_a_command_of_the_runbooks_works_as_written(cluster: Kubernetes, line: str) -> None:
    done = cluster.kubectl(*shlex.split(line)[1:], check=False)
    no_leader_yet = "get lease" in line and "NotFound" in done.stderr
    assert done.returncode == 0 or no_leader_yet, done.stderr
