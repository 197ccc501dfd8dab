"""A real API server for the tests in this folder, one for all of them; without `make test-envtest` they are skipped."""

import os
from collections.abc import Iterator

import pytest

from agent_sandbox.testing.envtest import ASSETS_VARIABLE, KubeAssets, Kubernetes, kubernetes


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """etcd, kube-apiserver and the controller manager, empty."""
    if not os.environ.get(ASSETS_VARIABLE):
        pytest.skip(f"{ASSETS_VARIABLE} is not set: `make test-envtest` builds a Kubernetes and runs this")
    assets = KubeAssets.find()
    with kubernetes(
        tmp_path_factory.mktemp("kubernetes"),
        assets=assets,
        controller_manager=assets.kube_controller_manager is not None,
    ) as server:
        yield server
