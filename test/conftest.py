"""What every test has: virtual time on demand."""

from agent_sandbox.testing.pytest_plugin import pytest_asyncio_loop_factories, pytest_configure, virtual_clock

__all__ = ["pytest_asyncio_loop_factories", "pytest_configure", "virtual_clock"]
