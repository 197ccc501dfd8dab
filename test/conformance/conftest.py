"""The servers that the conformance suite holds to the same behaviour.

Every test runs against the embedded server; with ``KUBE_CONFORMANCE_KUBECONFIG`` naming a kubeconfig it runs against
that server as well. Tests see HTTP only, and each has a namespace of its own.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agent_sandbox.testing.apiserver import InMemoryApiServer, load_manifests
from agent_sandbox.testing.clock import RealTimeLoop, VirtualClock, VirtualTimeLoop
from agent_sandbox.testing.conformance import UNCONNECTED, Api, EmbeddedWire, Wire, is_established, kubeconfig_wire

KUBECONFIG = os.environ.get("KUBE_CONFORMANCE_KUBECONFIG", "")
DEFINITIONS = load_manifests([Path(__file__).parent / "definitions.yaml"])
INSTALLED: set[str] = set()
"""The definitions that this run has brought to the real server."""


@asynccontextmanager
async def _embedded() -> AsyncIterator[Wire]:
    async with InMemoryApiServer(crds=DEFINITIONS, clock=VirtualClock()) as server:
        yield EmbeddedWire(server)


@asynccontextmanager
async def _kubernetes() -> AsyncIterator[Wire]:
    async with kubeconfig_wire(Path(KUBECONFIG)) as wire:
        await _install(wire)
        yield wire


async def _install(wire: Wire) -> None:
    """Bring the suite's definitions to a server that may have them already."""
    api = Api("kubernetes", wire)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for definition in DEFINITIONS:
        name = definition["metadata"]["name"]
        if name in INSTALLED:
            continue
        answer = await api.apply(f"{path}/{name}", dict(definition), "conformance", force=True)
        assert answer.status < 300, answer.body.decode()
        await api.wait_for(path, name, is_established)
        await api.wait_served(definition)
        INSTALLED.add(name)


@asynccontextmanager
async def _opened(api: Api) -> AsyncIterator[None]:
    """Connect to the server, and give the test its namespace."""
    open_wire = _embedded if api.server == "embedded" else _kubernetes
    async with open_wire() as wire:
        api.wire = wire
        await api.create("/api/v1/namespaces", {"metadata": {"name": api.namespace}})
        if api.server == "kubernetes":
            # Another program makes it; without it a Pod is refused, after a second or two.
            await api.wait_for(f"{api.core}/serviceaccounts", "default", lambda account: True)
        yield
        for path in api.cluster_objects:
            await api.delete(path)
        await api.delete(f"/api/v1/namespaces/{api.namespace}")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test once per server; against the embedded one, time jumps."""
    servers: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"embedded": VirtualTimeLoop}
    return servers | ({"kubernetes": RealTimeLoop} if KUBECONFIG else {})


@pytest.fixture
def api() -> Api:
    """A client of the server under test, with a namespace of its own; it is connected while the test runs."""
    return Api("", UNCONNECTED, f"conformance-{uuid4().hex[:10]}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run each test inside its server: an async fixture would leave its task groups in another task."""
    if not isinstance(item, pytest.Function) or "api" not in item.fixturenames:
        return
    test = item.obj

    @wraps(test)
    async def connected(**arguments: Any) -> None:
        api: Api = arguments["api"]
        api.server = "embedded" if isinstance(asyncio.get_running_loop(), VirtualTimeLoop) else "kubernetes"
        async with _opened(api):
            await test(**arguments)

    item.obj = connected
