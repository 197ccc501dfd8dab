"""What every test has: virtual time on demand, and one worker for what looks at the whole machine."""

import pytest

from agent_sandbox.testing.pytest_plugin import pytest_asyncio_loop_factories, pytest_configure, virtual_clock

__all__ = ["pytest_asyncio_loop_factories", "pytest_collection_modifyitems", "pytest_configure", "virtual_clock"]

_WHOLE_MACHINE = {"e2e", "node"}


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that compare the machine before and after on one worker: they would see each other's processes."""
    for item in items:
        if _WHOLE_MACHINE & set(item.path.parts):
            item.add_marker(pytest.mark.xdist_group("machine"))
