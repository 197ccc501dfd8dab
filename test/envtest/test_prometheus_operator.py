"""Monitors and rules of config/prometheus, taken by a real API server with the Prometheus operator's own kinds."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_sandbox.testing.envtest import EnvtestError, Kubernetes

pytestmark = [pytest.mark.envtest, pytest.mark.timeout(480)]

CONFIG = Path(__file__).resolve().parents[2] / "config"
MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
"""Whose example/ has the CRDs. Go's proxy keeps every version, and its checksum database answers for the content."""
SYSTEM = "agent-sandbox-system"


@pytest.fixture(scope="module")
def operator_kinds(cluster: Kubernetes) -> None:
    """PodMonitor and PrometheusRule, as the operator's release defines them."""
    if shutil.which("go") is None:
        pytest.skip("there is no Go to fetch the Prometheus operator's CRDs with (https://go.dev/dl)")
    command = ["go", "mod", "download", "-json", MODULE]
    answer = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "GOFLAGS": "-mod=mod"}
    )
    if answer.returncode != 0:
        pytest.skip(f"the CRDs of {MODULE} cannot be fetched: {answer.stdout} {answer.stderr}")
    definitions = Path(json.loads(answer.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    cluster.define(
        [
            yaml.safe_load((definitions / f"monitoring.coreos.com_{plural}.yaml").read_text())
            for plural in ("podmonitors", "prometheusrules")
        ]
    )


def overlay(folder: Path, *, patches: list[dict[str, Any]] | None = None) -> str:
    """The default with all that watches it."""
    (folder / "config").symlink_to(CONFIG)
    kustomization = {
        "resources": ["config/default"],
        "components": ["config/prometheus", "config/grafana"],
        "patches": patches or [],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return str(folder)


def apply(cluster: Kubernetes, folder: str) -> str:
    built = cluster.kubectl("kustomize", folder, "--load-restrictor=LoadRestrictionsNone").stdout
    return cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=built).stderr


@pytest.mark.usefixtures("operator_kinds")
def test_the_operators_kinds_take_our_monitors_and_rules(cluster: Kubernetes, tmp_path: Path) -> None:
    assert "Warning" not in apply(cluster, overlay(tmp_path))

    kept = cluster.kubectl("get", "podmonitors,prometheusrules", "-n", SYSTEM, "-o", "name").stdout.split()
    assert kept == [
        "podmonitor.monitoring.coreos.com/agent-sandbox-controller",
        "podmonitor.monitoring.coreos.com/sandbox-router",
        "prometheusrule.monitoring.coreos.com/agent-sandbox",
    ]


@pytest.mark.usefixtures("operator_kinds")
def test_a_field_that_the_operator_does_not_know_would_be_refused(cluster: Kubernetes, tmp_path: Path) -> None:
    patch = {
        "target": {"kind": "PodMonitor", "name": "sandbox-router"},
        "patch": '[{"op": "add", "path": "/spec/podMetricsEndpoints/0/intervall", "value": "15s"}]',
    }
    with pytest.raises(EnvtestError, match="intervall"):
        apply(cluster, overlay(tmp_path, patches=[patch]))
