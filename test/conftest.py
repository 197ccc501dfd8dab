"""What every test has: virtual time on demand, and a Ctrl-C that arrives."""

import signal

import pytest

from agent_sandbox.testing import pytest_plugin
from agent_sandbox.testing.pytest_plugin import pytest_asyncio_loop_factories, virtual_clock

__all__ = ["pytest_asyncio_loop_factories", "pytest_configure", "virtual_clock"]


def pytest_configure(config: pytest.Config) -> None:
    """Take SIGINT back: a shell that starts a job in the background (``&``, nohup, many CI systems) has it ignored.

    Python then installs no handler of its own, and every program that a test starts inherits the deafness.
    """
    pytest_plugin.pytest_configure(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
