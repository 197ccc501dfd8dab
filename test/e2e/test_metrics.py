"""A real Prometheus over a running local stack: dashboard, rules and /metrics."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed: `make tools` brings it")
def test_every_query_of_the_dashboard_gets_data_and_no_alert_fires_on_a_healthy_stack(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "dashboard.png"
    said = run(sys.executable, "hack/show_metrics.py", "--seconds", "8", "--picture", str(picture), timeout=400).stdout

    assert "17 of them alerts" in said
    assert "ok    From claim to Ready" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
