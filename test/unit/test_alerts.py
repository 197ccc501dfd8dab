"""The alerts: Prometheus accepts them, each fires when it should, has a runbook, and asks for metrics that we have."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from agent_sandbox.kube import KubeClient
from agent_sandbox.router.observe import Observer
from agent_sandbox.runtime import Manager
from agent_sandbox.testing import InMemoryApiServer
from agent_sandbox_controllers import register

REPOSITORY = Path(__file__).resolve().parents[2]
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
RULES = yaml.safe_load((REPOSITORY / "config" / "prometheus" / "rules.yaml").read_text())["spec"]
DASHBOARD = json.loads((REPOSITORY / "config" / "grafana" / "dashboard.json").read_text())
PROMTOOL = shutil.which("promtool")
OURS = (
    *("agent_sandbox", "sandbox_router", "controller_runtime", "workqueue", "rest_client", "leader_election"),
    *("event_loop", "informer", "certwatcher", "process"),
)

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: `make tools` brings it")


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *arguments], check=False, capture_output=True, text=True)


@needs_promtool
def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(RULES))
    done = promtool("check", "rules", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_fires_on_its_numbers_and_health_is_silent(tmp_path: Path) -> None:
    """Annotations are for people and change with their wording: here only what fires counts."""
    silent = json.loads(json.dumps(RULES))
    for group in silent["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.json").write_text(json.dumps(silent))
    shutil.copy(Path(__file__).parent / "alerts.yaml", tmp_path)
    done = promtool("test", "rules", str(tmp_path / "alerts.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_seen_firing_in_those_cases() -> None:
    cases = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())["tests"]
    fired = {check["alertname"] for case in cases for check in case["alert_rule_test"] if check["exp_alerts"]}
    assert fired == alerts().keys()


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        text = (RUNBOOKS / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        assert "## Look" in text
        assert "## Do" in text
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == alerts().keys()


def expressions() -> list[str]:
    """Every expression of the rules and of the dashboard."""
    asked = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    return asked + [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


async def test_rules_and_dashboard_ask_for_metrics_that_we_have() -> None:
    async with InMemoryApiServer() as server:
        manager = Manager(KubeClient(server.transport()))
        register(manager)
        declared = names_of(manager.registry) | names_of(Observer(log=False).registry)

    asked = {name for each in expressions() for name in re.findall(r"(?<![:\w])[a-z]\w+(?![:\w])", each)}
    asked = {name for name in asked if name.startswith(OURS)} - {"agent_sandbox"}

    assert asked - declared == set()
    assert len(asked) > 20


def names_of(registry: CollectorRegistry) -> set[str]:
    """The names of all series that the registry may show, whether or not it shows some now."""
    names = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_recorded_names_that_are_used_are_recorded() -> None:
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    used = {name for each in expressions() for name in re.findall(r"\b\w+:\w+:\w+\b", each)}
    assert used <= recorded


def test_the_dashboard_says_what_each_panel_shows() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert all(panel["description"] and panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
