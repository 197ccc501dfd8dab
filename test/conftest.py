"""What every test has: virtual time on demand, a Ctrl-C that arrives, an access key that is not the developer's."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest

from agent_sandbox.testing import pytest_plugin
from agent_sandbox.testing.pytest_plugin import pytest_asyncio_loop_factories, virtual_clock

__all__ = ["own_access_key", "pytest_asyncio_loop_factories", "pytest_configure", "virtual_clock"]


def pytest_configure(config: pytest.Config) -> None:
    """Take SIGINT back: a shell that starts a job in the background (``&``, nohup, many CI systems) has it ignored.

    Python then installs no handler of its own, and every program that a test starts inherits the deafness.
    """
    pytest_plugin.pytest_configure(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_access_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep clients of tests away from ``~/.config``."""
    os.environ["AGENT_SANDBOX_ACCESS_KEY_FILE"] = str(tmp_path_factory.mktemp("access") / "access.key")
    yield
    del os.environ["AGENT_SANDBOX_ACCESS_KEY_FILE"]


def pytest_collection_finish() -> None:
    """The collector need not look again and again at what exists for as long as the tests run."""
    gc.collect()
    gc.freeze()
