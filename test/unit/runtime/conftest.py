"""No code of kube or the runtime may block the event loop: a test during which it does fails."""

from collections.abc import Iterator

import pytest
import structlog
from blockbuster import blockbuster_ctx

import agent_sandbox.kube
import agent_sandbox.runtime


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    # Rendering a stack trace reads source files; how traces are rendered is the program's choice, not the room's.
    structlog.configure(processors=[structlog.processors.KeyValueRenderer(sort_keys=True)])
    with blockbuster_ctx([agent_sandbox.kube, agent_sandbox.runtime]) as watched:
        # /proc is memory: reading a process's own figures waits for nothing.
        for name in ("io.BufferedReader.read", "os.listdir"):
            if name in watched.functions:
                watched.functions[name].can_block_in("prometheus_client/process_collector.py", {"collect"})
        yield
    structlog.reset_defaults()
