"""The manifests under config/: complete, consistent with each other, and restricted."""

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from agent_sandbox.cli import main

CONFIG = Path(__file__).resolve().parents[2] / "config"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def documents(folder: str) -> list[dict[str, Any]]:
    """Every object that a kustomization brings, itself or through others."""
    return list(_documents(CONFIG / folder))


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_dir():
        kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
        for resource in kustomization.get("resources", []):
            yield from _documents((path / resource).resolve())
    else:
        yield from (document for document in yaml.load_all(path.read_text(), Loader=LOADER) if document)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents("default") if document["kind"] == kind]


def names_of(kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in of_kind(kind)}


def test_every_manifest_belongs_to_a_kustomization() -> None:
    for kustomization in CONFIG.rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text())
        listed = {*content.get("resources", []), *(patch.get("path") for patch in content.get("patches", []))}
        present = {path.name for path in kustomization.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert present <= listed, kustomization


def test_the_default_brings_crds_controllers_and_router() -> None:
    assert len(names_of("CustomResourceDefinition")) == 4
    assert names_of("Deployment") == {"agent-sandbox-controller", "sandbox-router"}
    assert "sandbox-router-svc" in names_of("Service")


def test_no_object_comes_twice() -> None:
    keys = [(document["kind"], document["metadata"]["name"]) for document in documents("default")]
    assert len(keys) == len(set(keys))


def test_the_role_of_the_controllers_is_what_they_declare() -> None:
    command = [sys.executable, str(CONFIG.parent / "hack" / "generate_rbac.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bindings_bind_roles_and_accounts_that_are_there() -> None:
    for binding in of_kind("ClusterRoleBinding") + of_kind("RoleBinding"):
        assert binding["roleRef"]["name"] in names_of(binding["roleRef"]["kind"])
        for subject in binding["subjects"]:
            assert subject["name"] in names_of("ServiceAccount")


def test_every_namespaced_object_says_its_namespace() -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"}
    for document in documents("default"):
        if document["kind"] not in cluster_wide:
            assert document["metadata"]["namespace"] == "agent-sandbox-system", document["metadata"]["name"]


@pytest.mark.parametrize("name", ["agent-sandbox-controller", "sandbox-router"])
def test_our_own_pods_meet_the_restricted_standard(name: str) -> None:
    (deployment,) = [document for document in of_kind("Deployment") if document["metadata"]["name"] == name]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= container["resources"].keys()
        assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_selectors_select_the_pods_of_our_deployments() -> None:
    labels = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in of_kind("Deployment")]
    selectors = [service["spec"]["selector"] for service in of_kind("Service")]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of_kind("PodDisruptionBudget")]
    selectors += [policy["spec"]["podSelector"].get("matchLabels", {}) for policy in of_kind("NetworkPolicy")]
    for selector in selectors:
        assert any(selector.items() <= found.items() for found in labels), selector


def test_nobody_of_ours_may_read_secrets_or_do_everything() -> None:
    for role in of_kind("ClusterRole") + of_kind("Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], role["metadata"]["name"]
            assert "secrets" not in rule["resources"], role["metadata"]["name"]


@pytest.mark.parametrize("name", ["agent-sandbox-controller", "sandbox-router"])
def test_the_commands_of_our_deployments_have_the_flags_they_are_given(name: str) -> None:
    (deployment,) = [document for document in of_kind("Deployment") if document["metadata"]["name"] == name]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    verb, *flags = container["args"]
    assert container["command"] == ["agent-sandbox"]
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {flag.partition("=")[0] for flag in flags} <= known
