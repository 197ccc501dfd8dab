"""The two surfaces, asynchronous and synchronous, are one."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent_sandbox import sdk

ROOT = Path(__file__).parents[3]
PAIRS = [(name, name.removeprefix("Async")) for name in sdk.__all__ if name.startswith("Async")]


def surface(cls: type) -> dict[str, object]:
    """Public methods and properties."""
    return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}


def parameters(method: object) -> list[tuple[str, object, object]]:
    """Names, kinds and defaults."""
    assert callable(method)
    return [(item.name, item.kind, item.default) for item in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_every_method_has_its_twin_with_the_same_parameters(asynchronous: str, synchronous: str) -> None:
    core, facade = getattr(sdk, asynchronous), getattr(sdk, synchronous)
    methods = {name: item for name, item in surface(core).items() if callable(item)}

    assert methods.keys() <= surface(facade).keys()
    for name, method in methods.items():
        assert parameters(method) == parameters(surface(facade)[name]), name
    if hasattr(core, "__aenter__"):
        assert parameters(core.__init__) == parameters(facade.__init__)


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_every_documented_attribute_is_a_property_of_the_synchronous_class(asynchronous: str, synchronous: str) -> None:
    text = inspect.getdoc(getattr(sdk, asynchronous)) or ""
    described = re.findall(r"^    (\w+): ", text.partition("Attributes:")[2], re.MULTILINE)

    assert all(isinstance(surface(getattr(sdk, synchronous)).get(name), property) for name in described)


def test_the_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "hack" / "generate_sync_sdk.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_constructor_is_that_of_the_seed() -> None:
    expected = {
        "template_name": inspect.Parameter.empty,
        "namespace": "default",
        "gateway_name": None,
        "gateway_namespace": "default",
        "api_url": None,
        "server_port": 8888,
        "sandbox_ready_timeout": 180,
        "gateway_ready_timeout": 180,
        "port_forward_ready_timeout": 30,
    }
    for cls in (sdk.SandboxClient, sdk.AsyncSandboxClient):
        positional = [
            item
            for item in inspect.signature(cls).parameters.values()
            if item.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]

        assert [(item.name, item.default) for item in positional] == list(expected.items())


def test_the_methods_are_those_of_the_seed() -> None:
    assert parameters(sdk.SandboxClient.run)[1:] == parameters(lambda command, timeout=60: None)
    assert parameters(sdk.SandboxClient.write)[1:] == parameters(lambda path, content, timeout=60: None)
    assert parameters(sdk.SandboxClient.read)[1:] == parameters(lambda path, timeout=60: None)
    assert sdk.ExecutionResult("out", "err", 3) == sdk.ExecutionResult(stdout="out", stderr="err", exit_code=3)
