"""Minutes of churn and faults in virtual time; test/bench/runtime_soak.py does the same for real."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent_sandbox.testing import VirtualClock, run_in_virtual_time

SCRIPT = Path(__file__).parents[2] / "bench" / "runtime_soak.py"


@pytest.fixture
def script() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("runtime_soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["runtime_soak"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["runtime_soak"]


@pytest.fixture
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_quiet")
def test_minutes_of_churn_leave_no_task_no_garbage_and_no_difference(script: Any) -> None:
    found = run_in_virtual_time(lambda: script.soak(60, VirtualClock(), seed=7))

    assert found.grown() == []
    assert len(found.samples) >= 11
