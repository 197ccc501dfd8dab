"""config/default and each of its components, as kubectl builds them: complete, and changed as meant."""

import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[2] / "config"
COMPONENTS = ["apf", "grafana", "high-availability", "namespaced", "prometheus", "tokenreview"]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KUBECTL = shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH; it builds kustomizations")


@functools.cache
def built(*components: str) -> list[dict[str, Any]]:
    """What kubectl makes of the default with these components; CRDs are left out, they are many lines."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(CONFIG, Path(folder) / "config")
        overlay = {
            "resources": ["config/rbac", "config/manager", "config/router"],
            "components": [f"config/{name}" for name in components],
        }
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(overlay))
        assert KUBECTL is not None
        done = subprocess.run([KUBECTL, "kustomize", folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(yaml.load_all(done.stdout, Loader=LOADER))


def found(kind: str, *components: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in built(*components) if each["kind"] == kind}


def test_every_component_is_in_this_list() -> None:
    found = {path.parent.name: yaml.safe_load(path.read_text()) for path in CONFIG.glob("*/kustomization.yaml")}
    assert sorted(name for name, content in found.items() if content["kind"] == "Component") == COMPONENTS


@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_builds_alone(name: str) -> None:
    assert built(name) != built()


@pytest.mark.parametrize("one", ["namespaced", "tokenreview"])
def test_all_components_build_together_apart_from_the_two_that_exclude_each_other(one: str) -> None:
    names = [name for name in COMPONENTS if name not in {"namespaced", "tokenreview"}] + [one]
    assert {"PodMonitor", "PrometheusRule", "ConfigMap", "HorizontalPodAutoscaler", "Role"} <= {
        each["kind"] for each in built(*names)
    }


def test_namespaced_leaves_no_right_beyond_namespaces() -> None:
    assert found("ClusterRole", "namespaced") == {}
    assert found("ClusterRoleBinding", "namespaced") == {}
    roles, cluster_roles = found("Role", "namespaced"), found("ClusterRole")
    for name in ("agent-sandbox-controller", "sandbox-router", "agent-sandbox-client"):
        assert roles[name]["metadata"]["namespace"] == "default"
        assert roles[name]["rules"] == cluster_roles[name]["rules"]
    for binding in found("RoleBinding", "namespaced").values():
        reference = binding["roleRef"]
        assert reference["kind"] == "Role"
        assert roles[reference["name"]]["metadata"]["namespace"] == binding["metadata"]["namespace"]


@pytest.mark.parametrize("name", ["agent-sandbox-controller", "sandbox-router"])
def test_namespaced_processes_watch_that_namespace_only(name: str) -> None:
    (container,) = found("Deployment", "namespaced")[name]["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--watch-namespaces=default"


def test_high_availability_survives_a_node_and_lets_the_router_grow() -> None:
    deployments = found("Deployment", "high-availability")
    controller, router = deployments["agent-sandbox-controller"], deployments["sandbox-router"]
    assert controller["spec"]["replicas"] == 3
    affinity = controller["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert affinity["requiredDuringSchedulingIgnoredDuringExecution"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert "replicas" not in router["spec"], "the autoscaler decides"
    scaler = found("HorizontalPodAutoscaler", "high-availability")["sandbox-router"]["spec"]
    assert scaler["minReplicas"] == 3
    for budget in found("PodDisruptionBudget", "high-availability").values():
        assert budget["spec"]["minAvailable"] == 2


def test_monitors_name_ports_and_labels_that_the_pods_have() -> None:
    pods = [deployment["spec"]["template"] for deployment in found("Deployment").values()]
    for monitor in found("PodMonitor", "prometheus").values():
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (pod,) = [pod for pod in pods if wanted.items() <= pod["metadata"]["labels"].items()]
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in ports
            assert endpoint["honorLabels"] is True, "or the operator hides the namespaces of sandboxes"


def test_the_dashboard_is_where_grafana_looks() -> None:
    config_map = found("ConfigMap", "grafana")["agent-sandbox-dashboard"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"]["agent-sandbox.json"])["title"] == "Agent Sandbox"


def test_our_namespace_lets_nobody_in_unasked() -> None:
    policies = found("NetworkPolicy")
    assert policies["default-deny-ingress"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (controller,) = policies["agent-sandbox-controller"]["spec"]["ingress"]
    assert controller["from"] == [{"namespaceSelector": {"matchLabels": {"metrics": "enabled"}}}]
