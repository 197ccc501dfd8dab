"""The direction of imports, and what `import agent_sandbox` costs."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HEAVY = {
    "agent_sandbox_controllers",
    "aiohttp",
    "anyio",
    "asyncio",
    "cryptography",
    "kubernetes_asyncio",
    "msgspec",
    "prometheus_client",
    "pydantic",
    "structlog",
    "yaml",
}


def _loaded_by(statement: str) -> set[str]:
    program = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(json.loads(done.stdout))


def test_import_agent_sandbox_loads_nothing_heavy() -> None:
    assert not _loaded_by("import agent_sandbox") & HEAVY


def test_the_sandbox_daemon_loads_nothing_of_kubernetes() -> None:
    loaded = _loaded_by("import agent_sandbox.sandboxd")
    foreign = {"agent_sandbox.kube", "agent_sandbox.local", "agent_sandbox.runtime", "agent_sandbox_api", "pydantic"}
    assert not loaded & (foreign | {"kubernetes_asyncio", "msgspec", "cryptography"})


def test_the_api_loads_no_network_and_no_kubernetes_client() -> None:
    loaded = _loaded_by("import agent_sandbox_api.agents.v1alpha1, agent_sandbox_api.extensions.v1alpha1")
    assert not loaded & {"aiohttp", "anyio", "kubernetes_asyncio", "agent_sandbox", "yaml"}


def test_rooms_import_each_other_in_one_direction_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
