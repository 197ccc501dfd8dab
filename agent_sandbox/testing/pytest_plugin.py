"""Virtual time for pytest: the marker ``virtual_time`` and the fixture ``virtual_clock``.

In a project's conftest.py::

    pytest_plugins = ["agent_sandbox.testing.pytest_plugin"]

It needs pytest-asyncio 1.4 or newer, whose hook for loop factories it uses.
"""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from agent_sandbox.testing.clock import RealTimeLoop, VirtualClock, VirtualTimeLoop


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "virtual_time: time jumps to the next timer when every task waits")


def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the loop of a test by its marker."""
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualTimeLoop}
    return {"real": RealTimeLoop}


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """The clock of this test's loop; mark the test with ``virtual_time``."""
    return VirtualClock()
