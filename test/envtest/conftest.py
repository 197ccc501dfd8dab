"""A real API server for the tests in this folder, one for all of them; without `make test-envtest` they are skipped."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_sandbox.testing.envtest import ASSETS_VARIABLE, KubeAssets, Kubernetes, kubernetes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is in this folder if there is no Kubernetes, and say how to get one."""
    if os.environ.get(ASSETS_VARIABLE):
        return
    skip = pytest.mark.skip(f"{ASSETS_VARIABLE} is not set: `make test-envtest` builds a Kubernetes and runs this")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """etcd, kube-apiserver and, where there is one, the controller manager; empty."""
    assets = KubeAssets.find()
    with kubernetes(
        tmp_path_factory.mktemp("kubernetes"),
        assets=assets,
        controller_manager=assets.kube_controller_manager is not None,
    ) as server:
        yield server
