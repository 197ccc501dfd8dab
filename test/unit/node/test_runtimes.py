"""The choice of a runtime by ``runtimeClassName``."""

from typing import Any

import pytest

from agent_sandbox.local.node.errors import RuntimeUnavailableError
from agent_sandbox.local.node.network import Survivor
from agent_sandbox.local.node.runtime import About, ContainerProcess, Launch, Runtimes


class NamedRuntime:
    """A runtime that only has a name."""

    pod_overhead = None

    def __init__(self, name: str) -> None:
        self.name = name

    async def start(self, launch: Launch) -> ContainerProcess:
        raise NotImplementedError

    async def adopt(self, survivor: Survivor, about: About) -> ContainerProcess:
        raise NotImplementedError

    async def release(self, pod: str) -> None:
        """Nothing."""


PLAIN, STRONG = NamedRuntime("bubblewrap"), NamedRuntime("gvisor")


async def _strong() -> Any:
    return STRONG


async def _missing() -> Any:
    raise RuntimeUnavailableError("runsc is not installed; run `apt-get install runsc`")


async def test_a_pod_without_a_class_gets_the_default_and_a_class_names_its_runtime() -> None:
    runtimes = Runtimes(PLAIN, {"gvisor": _strong})

    found = [await runtimes.find(name) for name in ("", "bubblewrap", "gvisor")]

    assert found == [PLAIN, PLAIN, STRONG]


async def test_a_class_that_this_machine_lacks_is_never_replaced_by_another_runtime() -> None:
    runtimes = Runtimes(PLAIN, {"gvisor": _missing})

    with pytest.raises(RuntimeUnavailableError, match="apt-get install runsc"):
        await runtimes.find("gvisor")
    with pytest.raises(RuntimeUnavailableError, match=r"kata.*knows: bubblewrap, gvisor.*not replaced by a weaker"):
        await runtimes.find("kata")
