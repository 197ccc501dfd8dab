"""Clusters for the SDK's tests: one in the test's own event loop, one behind the synchronous classes.

Their API server is the embedded one; with ``KUBE_CONFORMANCE_KUBECONFIG`` it is the one that the kubeconfig names, and
tests that need the embedded one are left out.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent_sandbox.sdk.loop_thread import shared_loop
from agent_sandbox.testing.pretend_cluster import PretendCluster, open_pretend_cluster

KUBECONFIG = Path(os.environ["KUBE_CONFORMANCE_KUBECONFIG"]) if os.environ.get("KUBE_CONFORMANCE_KUBECONFIG") else None


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A loop that anyio does not recognise between tasks, as under ``asyncio.run`` where sniffio is installed."""
    return {"real": asyncio.SelectorEventLoop}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[PretendCluster]:
    """A cluster in the test's own event loop."""
    # pytest-asyncio runs the two halves of a fixture in different tasks, which cancel scopes do not survive; asyncio's
    # own task group does, and its child keeps the cluster in one task.
    opened: asyncio.Future[PretendCluster] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()

    async def host() -> None:
        async with open_pretend_cluster(tmp_path / "workspace", kubeconfig=KUBECONFIG) as made:
            opened.set_result(made)
            await closing.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host())
        yield await opened
        closing.set()


@pytest.fixture
def sync_cluster(tmp_path: Path) -> Iterator[PretendCluster]:
    """A cluster in the loop thread, where the synchronous classes do their work."""
    hosted = shared_loop().host(open_pretend_cluster(tmp_path / "workspace", kubeconfig=KUBECONFIG))
    yield hosted.enter()
    hosted.leave(None)
