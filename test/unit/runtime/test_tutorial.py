"""docs/write-an-operator.md runs as written: its operator, its test, on the embedded API server."""

import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "write-an-operator.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


OPERATOR, TEST = blocks("python")


def load(name: str, *sources: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    for source in sources:
        exec(compile(source, f"{PAGE.name}:{name}", "exec"), module.__dict__)
    return module


@pytest.fixture
def crd() -> str:
    (definition,) = blocks("yaml")
    return definition


tutorial: Any = load("tutorial", OPERATOR, TEST)
test_a_crew_has_its_size_whatever_happens = tutorial.test_a_crew_has_its_size_whatever_happens


def test_the_operator_is_as_short_as_the_page_says() -> None:
    code = [line for line in OPERATOR.splitlines() if line.strip()]

    assert len(code) <= 60, f"{len(code)} lines that are not empty"


def test_the_operator_is_typed(tmp_path: Path) -> None:
    (tmp_path / "crew_operator.py").write_text(OPERATOR)
    command = [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", str(tmp_path / "crew_operator.py")]
    result = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


def test_the_names_of_the_last_table_exist() -> None:
    import agent_sandbox.runtime as runtime

    table = PAGE.read_text().split("## 6. Further")[1]
    names = set(re.findall(r"`\.?(?:manager\.)?([A-Za-z_]+)\(", table)) | {
        "Finalizer",
        "WebhookServer",
        "ThreadedReconciler",
    }
    known = {*runtime.__all__, *dir(runtime.Controller)}
    assert names - known - {"events"} == set()
