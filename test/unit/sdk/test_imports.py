"""What importing the package costs, and what its names are. Each test looks into a fresh interpreter."""

import subprocess
import sys

import agent_sandbox
from agent_sandbox import sdk


def run_python(code: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import agent_sandbox, agent_sandbox.sdk, sys;"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'aiohttp', 'anyio', 'kubernetes_asyncio', 'pydantic', 'msgspec', 'agent_sandbox_controllers'}))"
    )

    assert run_python(code) == "[]\n"


def test_an_error_class_costs_no_client() -> None:
    code = "from agent_sandbox import SandboxError; import sys; print('aiohttp' in sys.modules)"

    assert run_python(code) == "False\n"


def test_the_client_loads_neither_kubernetes_asyncio_nor_the_controllers_nor_the_stack() -> None:
    code = (
        "from agent_sandbox import SandboxClient; SandboxClient('t'); import sys;"
        "print([name for name in sys.modules if name.startswith(('kubernetes_asyncio', 'agent_sandbox_controllers',"
        " 'agent_sandbox.runtime', 'agent_sandbox.local.apiserver', 'agent_sandbox.local.node'))])"
    )

    assert run_python(code) == "[]\n"


def test_every_exported_name_exists_and_is_sorted() -> None:
    for module in (agent_sandbox, sdk):
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert set(module.__all__) <= set(dir(module))
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_the_package_exports_what_the_sdk_exports() -> None:
    assert set(agent_sandbox.__all__) == set(sdk.__all__)


def test_programs_written_for_the_seed_import_these_classes() -> None:
    """Each of these imports stands in a program of the seed's or of its documents."""
    code = (
        "import agent_sandbox\n"
        "from agentic_sandbox import SandboxClient\n"
        "from agentic_sandbox.sandbox_client import ExecutionResult\n"
        "from agentic_sandbox.extensions import ComputerUseExtension\n"
        "from agentic_sandbox.extensions.computer_use import ComputerUseSandbox\n"
        "print(SandboxClient is agent_sandbox.SandboxClient, ExecutionResult is agent_sandbox.ExecutionResult,"
        " ComputerUseExtension is ComputerUseSandbox is agent_sandbox.ComputerUseExtension)"
    )
    assert run_python(code) == "True True True\n"
