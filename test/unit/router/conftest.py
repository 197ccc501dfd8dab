"""Objects as informers hand them to the directory."""

from typing import Any

import msgspec
import pytest

from agent_sandbox.router import Directory
from agent_sandbox.runtime.store import Change
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS

EXTENSIONS = "extensions.agents.x-k8s.io"


class Cluster:
    """Makes objects, and tells a directory of them."""

    def __init__(self) -> None:
        self.directory = Directory()

    def owner(self, kind: str, uid: str, group: str = EXTENSIONS) -> dict[str, Any]:
        return {"apiVersion": f"{group}/v1alpha1", "kind": kind, "name": "x", "uid": uid, "controller": True}

    def sandbox(self, name: str, *, owner: dict[str, Any] | None = None, **more: Any) -> Any:
        metadata = {"name": name, "namespace": "default", "uid": f"{name}-uid", **more.pop("metadata", {})}
        if owner is not None:
            metadata["ownerReferences"] = [owner]
        body = {"metadata": metadata, "spec": {"podTemplate": {"spec": {}}, **more.pop("spec", {})}, **more}
        return SANDBOXES.decode(msgspec.json.encode(body))

    def claim(self, name: str, bound: str | None = None, **status: Any) -> Any:
        if bound is not None:
            status["sandbox"] = {"name": bound}
        body = {
            "metadata": {"name": name, "namespace": "default", "uid": f"{name}-uid"},
            "spec": {"sandboxTemplateRef": {"name": "t"}},
            "status": status,
        }
        return SANDBOX_CLAIMS.decode(msgspec.json.encode(body))

    def pod(
        self, name: str, sandbox_uid: str, address: str = "10.0.0.1", *, ready: bool = True, **metadata: Any
    ) -> Any:
        body = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"{name}-pod-uid",
                "ownerReferences": [self.owner("Sandbox", sandbox_uid, "agents.x-k8s.io")],
                **metadata,
            },
            "status": {
                "phase": "Running",
                "podIP": address,
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }
        return PODS.decode(msgspec.json.encode(body))

    def change(self, old: Any, new: Any) -> None:
        """Tell the directory of a change; either side may be None."""
        observe: Any = {
            "SandboxView": self.directory.observe_sandbox,
            "SandboxClaimView": self.directory.observe_claim,
            "PodView": self.directory.observe_pod,
        }[type(old or new).__name__]
        observe(Change(old, new))

    def add(self, *views: Any) -> None:
        for view in views:
            self.change(None, view)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()
