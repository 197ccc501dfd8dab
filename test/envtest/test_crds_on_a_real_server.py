"""Our CRDs on a real kube-apiserver: they apply both ways, explain themselves, merge, default and refuse."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_sandbox.testing.envtest import Kubernetes

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

CONFIG = Path(__file__).resolve().parents[2] / "config"
CRDS = CONFIG / "crd"
KINDS = ["sandboxes.agents.x-k8s.io"] + [
    f"{plural}.extensions.agents.x-k8s.io" for plural in ("sandboxclaims", "sandboxtemplates", "sandboxwarmpools")
]
POD: dict[str, Any] = {"spec": {"containers": [{"name": "main", "image": "python:3.13"}]}}
VOLUME: dict[str, Any] = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Kubernetes) -> None:
    """Our CRDs, applied server-side and served."""
    cluster.kubectl("apply", "--server-side", "-k", str(CRDS))
    cluster.wait_until_served()


@pytest.fixture
def namespace(cluster: Kubernetes, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty namespace of the test's own."""
    name = f"t-{abs(hash(request.node.nodeid)):x}"[:40]
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def sandbox(name: str = "box", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agents.x-k8s.io/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": name},
        "spec": {"podTemplate": POD, **spec},
    }


def extension(kind: str, spec: dict[str, Any], name: str = "thing") -> dict[str, Any]:
    return {
        "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def claim(**spec: Any) -> dict[str, Any]:
    return extension("SandboxClaim", {"sandboxTemplateRef": {"name": "t"}, **spec})


def pool(**spec: Any) -> dict[str, Any]:
    return extension("SandboxWarmPool", {"sandboxTemplateRef": {"name": "t"}, "replicas": 1, **spec})


def apply(cluster: Kubernetes, namespace: str, document: dict[str, Any], *flags: str) -> dict[str, Any]:
    done = cluster.kubectl("apply", "-n", namespace, "-f", "-", "-o", "json", *flags, stdin=json.dumps(document))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refusal(cluster: Kubernetes, namespace: str, document: dict[str, Any]) -> str:
    done = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(document), check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr


@pytest.mark.parametrize("flags", [[], ["--server-side", "--force-conflicts"]], ids=["client-side", "server-side"])
def test_the_crds_apply_again_without_a_complaint(cluster: Kubernetes, flags: list[str]) -> None:
    done = cluster.kubectl("apply", "-k", str(CRDS), *flags)
    assert done.stdout.count("customresourcedefinition") == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_finds_no_fault_with_the_schema(cluster: Kubernetes, kind: str) -> None:
    conditions = json.loads(cluster.kubectl("get", "crd", kind, "-o", "json").stdout)["status"]["conditions"]
    state = {condition["type"]: condition["status"] for condition in conditions}
    assert state["Established"] == state["NamesAccepted"] == "True"
    assert state.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize(
    "path", sorted((CONFIG / "samples").rglob("*.yaml")), ids=lambda path: path.relative_to(CONFIG).as_posix()
)
def test_every_sample_applies_under_strict_validation(cluster: Kubernetes, namespace: str, path: Path) -> None:
    done = cluster.kubectl("apply", "-n", namespace, "--validate=strict", "-f", str(path))
    assert "Warning" not in done.stderr


def test_a_directory_of_samples_applies_at_once(cluster: Kubernetes, namespace: str) -> None:
    done = cluster.kubectl("apply", "-n", namespace, "-f", str(CONFIG / "samples"))
    assert len(done.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("sandbox.spec.podTemplate.spec.containers", "core/v1 PodSpec"),
        ("sandbox.spec.shutdownTime", "When the sandbox expires"),
        ("sandboxtemplate.spec.networkPolicy.egress", "Empty denies all egress"),
        ("sandboxclaim.spec.warmpool", "names the pool to take from"),
        ("swp.spec.updateStrategy.rollingUpdate.maxUnavailable", "a percentage such as 25%"),
    ],
)
def test_explain_answers_in_our_words(cluster: Kubernetes, field: str, words: str) -> None:
    text = " ".join(cluster.kubectl("explain", field).stdout.split())
    parent = " ".join(cluster.kubectl("explain", field.rsplit(".", 1)[0]).stdout.split())
    assert words in text + parent


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (sandbox(replicas=2), "spec.replicas"),
        (sandbox(shutdownPolicy="Burn"), "spec.shutdownPolicy"),
        (sandbox(shutdownTime="tomorrow"), "spec.shutdownTime"),
        (sandbox(podTemplate={"spec": {"containers": []}}), "spec.podTemplate.spec.containers"),
        (sandbox(podTemplate={"spec": {"containers": [{"image": "x"}]}}), "spec.podTemplate.spec.containers[0].name"),
        (sandbox("2-much"), "metadata.name: Invalid value: cannot become the name of a Service"),
        (sandbox("a" * 64), "metadata.name: Invalid value: cannot become the name of a Service"),
        (sandbox("a" * 250, service=False, volumeClaimTemplates=[VOLUME]), "metadata.name: Invalid value: is too long"),
        (sandbox(volumeClaimTemplates=[VOLUME, VOLUME]), "volumeClaimTemplates"),
        (sandbox(volumeClaimTemplates=[{"spec": {}}]), "spec.volumeClaimTemplates[0].metadata"),
        (claim(sandboxTemplateRef={}), "spec.sandboxTemplateRef.name"),
        (claim(sandboxTemplateRef={"name": ""}), "spec.sandboxTemplateRef.name"),
        (claim(lifecycle={"ttlSecondsAfterFinished": -1}), "spec.lifecycle.ttlSecondsAfterFinished"),
        (pool(replicas=-1), "spec.replicas"),
        (pool(updateStrategy={"type": "Never"}), "spec.updateStrategy.type"),
        (pool(updateStrategy={"rollingUpdate": {"maxUnavailable": "many"}}), "maxUnavailable"),
        (
            extension("SandboxTemplate", {"podTemplate": POD, "networkPolicyManagement": "No"}),
            "spec.networkPolicyManagement",
        ),
        (
            extension(
                "SandboxTemplate", {"podTemplate": POD, "networkPolicy": {"egress": [{"to": [{"ipBlock": {}}]}]}}
            ),
            "spec.networkPolicy.egress[0].to[0].ipBlock.cidr",
        ),
    ],
)
def test_wrong_input_is_refused_by_the_name_of_the_field(
    cluster: Kubernetes, namespace: str, document: dict[str, Any], field: str
) -> None:
    assert field in refusal(cluster, namespace, document)


def test_a_name_too_long_for_a_service_is_fine_without_one(cluster: Kubernetes, namespace: str) -> None:
    found = apply(cluster, namespace, sandbox("a" * 100, service=False))
    assert found["spec"]["service"] is False


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([VOLUME], [{**VOLUME, "metadata": {"name": "other"}}]),
        ([VOLUME], None),
        (None, [VOLUME]),
    ],
    ids=["changed", "taken away", "added"],
)
def test_volume_claim_templates_cannot_change(
    cluster: Kubernetes, namespace: str, before: list[Any] | None, after: list[Any] | None
) -> None:
    old, new = sandbox(), sandbox()
    old["spec"] |= {"volumeClaimTemplates": before} if before else {}
    new["spec"] |= {"volumeClaimTemplates": after} if after else {}
    apply(cluster, namespace, old)
    words = refusal(cluster, namespace, new)
    assert "spec.volumeClaimTemplates" in words
    assert "immutable" in words


def test_the_server_fills_in_the_defaults(cluster: Kubernetes, namespace: str) -> None:
    assert apply(cluster, namespace, sandbox())["spec"] == {
        "podTemplate": POD,
        "replicas": 1,
        "shutdownPolicy": "Retain",
    }
    assert apply(cluster, namespace, claim())["spec"]["warmpool"] == "default"


def test_an_unknown_field_is_refused_by_strict_validation(cluster: Kubernetes, namespace: str) -> None:
    document = sandbox(podTemplate={"spec": {**POD["spec"], "contaniers": []}})
    assert 'unknown field "spec.podTemplate.spec.contaniers"' in refusal(cluster, namespace, document)


def test_two_appliers_each_keep_their_part_of_a_list(cluster: Kubernetes, namespace: str) -> None:
    def template(container: dict[str, Any]) -> dict[str, Any]:
        return sandbox(podTemplate={"spec": {"containers": [{"name": "main", **container}]}})

    first = template({"image": "python:3.13", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]})
    second = template({"env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "protocol": "UDP"}]})
    apply(cluster, namespace, first, "--server-side", "--field-manager=first")
    found = apply(cluster, namespace, second, "--server-side", "--field-manager=second")

    (container,) = found["spec"]["podTemplate"]["spec"]["containers"]
    assert container["image"] == "python:3.13"
    assert [entry["name"] for entry in container["env"]] == ["A", "B"]
    assert [entry["protocol"] for entry in container["ports"]] == ["TCP", "UDP"]


def test_a_sandbox_is_suspended_and_a_pool_grown_by_kubectl_scale(cluster: Kubernetes, namespace: str) -> None:
    apply(cluster, namespace, sandbox())
    apply(cluster, namespace, pool())
    cluster.kubectl("scale", "-n", namespace, "sandbox/box", "--replicas=0")
    cluster.kubectl("scale", "-n", namespace, "swp/thing", "--replicas=3")

    def replicas(resource: str) -> str:
        return cluster.kubectl("get", "-n", namespace, resource, "-o", "jsonpath={.spec.replicas}").stdout

    assert (replicas("sandbox/box"), replicas("swp/thing")) == ("0", "3")
    assert (
        "spec.replicas" in cluster.kubectl("scale", "-n", namespace, "sandbox/box", "--replicas=2", check=False).stderr
    )


def test_people_see_our_columns(cluster: Kubernetes, namespace: str) -> None:
    apply(cluster, namespace, sandbox())
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "DependenciesReady",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    patch = json.dumps({"status": {"conditions": [ready], "podIPs": ["10.1.2.3"], "nodeName": "n1"}})
    cluster.kubectl("patch", "-n", namespace, "sandbox/box", "--subresource=status", "--type=merge", "-p", patch)
    head, row = cluster.kubectl("get", "-n", namespace, "sandbox", "-o", "wide").stdout.splitlines()
    assert head.split() == ["NAME", "READY", "REASON", "REPLICAS", "ADDRESSES", "NODE", "AGE"]
    assert row.split()[:4] == ["box", "True", "DependenciesReady", "1"]
    assert "10.1.2.3" in row


def test_two_conditions_of_one_type_are_refused(cluster: Kubernetes, namespace: str) -> None:
    apply(cluster, namespace, sandbox())
    condition = {"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    patch = json.dumps({"status": {"conditions": [condition, condition]}})
    command = ["patch", "-n", namespace, "sandbox/box", "--subresource=status", "--type=merge", "-p", patch]
    assert "Duplicate value" in cluster.kubectl(*command, check=False).stderr


def test_our_four_kinds_answer_to_one_category(cluster: Kubernetes, namespace: str) -> None:
    for document in (sandbox(), claim(), pool(), extension("SandboxTemplate", {"podTemplate": POD})):
        apply(cluster, namespace, document)
    names = cluster.kubectl("get", "agent-sandbox", "-n", namespace, "-o", "name").stdout.split()
    assert len(names) == 4


def test_the_roles_for_users_are_accepted_as_they_are(cluster: Kubernetes) -> None:
    documents = list(yaml.safe_load_all((CONFIG / "rbac" / "user_roles.yaml").read_text()))
    done = cluster.kubectl("apply", "-f", str(CONFIG / "rbac" / "user_roles.yaml"))
    assert len(done.stdout.splitlines()) == len(documents)
