"""Makes views from wire form, as the caches do, for tests of plans."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES, PodView
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxTemplate,
    SandboxWarmPool,
)
from agent_sandbox_api.resource import Resource
from agent_sandbox_controllers.options import ControllerOptions
from agent_sandbox_controllers.parsed import sandbox_spec
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.sandboxclaim.observed import ClaimObserved
from agent_sandbox_controllers.sandboxwarmpool.members import Member, new_member
from agent_sandbox_controllers.sandboxwarmpool.plan import PoolObserved

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
UID = "sandbox-uid"
SPEC: dict[str, Any] = {"containers": [{"name": "main", "image": "python"}]}
TRACKED = {"agents.x-k8s.io/sandbox-name-hash": "872213e7"}


def stamp(seconds: float = 0) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def reference(kind: str = "Sandbox", uid: str = UID, name: str = "alice") -> dict[str, Any]:
    group = "agents.x-k8s.io" if kind == "Sandbox" else "extensions.agents.x-k8s.io"
    if kind == "ReplicaSet":
        group = "apps"
    return {"apiVersion": f"{group}/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": True}


class Make:
    """Builders; every argument beyond the first ones goes into the object's spec, metadata or status as named."""

    now = NOW
    uid = UID
    tracked = TRACKED
    spec = SPEC
    reference = staticmethod(reference)
    stamp = staticmethod(stamp)
    options = ControllerOptions()

    @staticmethod
    def view(resource: Resource[Any], name: str, **parts: Any) -> Any:
        metadata = {"name": name, "namespace": "default", "uid": f"{name}-uid", "resourceVersion": "7", "generation": 1}
        metadata |= {"creationTimestamp": stamp(), **parts.pop("metadata", {})}
        return resource.decode(msgspec.json.encode({"metadata": metadata, **parts}))

    @classmethod
    def pod(
        cls, phase: str = "Running", *, owner: dict[str, Any] | None = None, name: str = "alice", **rest: Any
    ) -> PodView:
        """A Pod of the Sandbox alice; ``owner=None`` is hers, ``owner={}`` is nobody's."""
        references = [reference()] if owner is None else [owner] if owner else []
        metadata = {"uid": f"pod-{name}", "ownerReferences": references, **rest.pop("metadata", {})}
        status = {"phase": phase, **rest.pop("status", {})}
        view: PodView = cls.view(PODS, name, metadata=metadata, status=status, spec=rest)
        return view

    @classmethod
    def ready_pod(cls, **rest: Any) -> PodView:
        status = {
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        }
        return cls.pod(status=status, nodeName="node-1", **rest)

    @classmethod
    def service(cls, *, owner: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Any:
        references = [reference()] if owner is None else [owner] if owner else []
        metadata = {"ownerReferences": references, "labels": TRACKED if labels is None else labels}
        defaults = {"clusterIP": "None", "selector": {**TRACKED, "agents.x-k8s.io/sandbox-uid": UID}}
        return cls.view(SERVICES, "alice", metadata=metadata, spec={**defaults, **spec})

    @classmethod
    def volume(cls, *, owner: dict[str, Any] | None = None, **metadata: Any) -> Any:
        references = [reference()] if owner is None else [owner] if owner else []
        return cls.view(PERSISTENT_VOLUME_CLAIMS, "data-alice", metadata={"ownerReferences": references, **metadata})

    @classmethod
    def sandbox(cls, name: str = "alice", *, status: Any = None, metadata: Any = None, **spec: Any) -> SandboxView:
        view: SandboxView = cls.view(
            SANDBOXES,
            name,
            metadata={"uid": UID if name == "alice" else f"{name}-uid", **(metadata or {})},
            spec={"podTemplate": {"spec": SPEC}, **spec},
            status=status or {},
        )
        return view

    @classmethod
    def observed(cls, *, status: Any = None, metadata: Any = None, pod_template: Any = None, **rest: Any) -> Observed:
        """What a pass over the Sandbox alice sees; fields of ``Observed`` by name, everything else is her spec."""
        fields = {key: rest.pop(key) for key in list(rest) if key in Observed.__dataclass_fields__}
        spec = {**rest, **({"podTemplate": pod_template} if pod_template else {})}
        view = cls.sandbox(status=status, metadata=metadata, **spec)
        return Observed(view=view, spec=sandbox_spec(view), now=fields.pop("now", NOW), **fields)

    @classmethod
    def template(cls, name: str = "python", **spec: Any) -> SandboxTemplate:
        view = cls.view(SANDBOX_TEMPLATES, name, spec={"podTemplate": {"spec": SPEC}, **spec})
        model: SandboxTemplate = view.model()
        return model

    @classmethod
    def template_view(cls, name: str = "python", **spec: Any) -> Any:
        return cls.view(SANDBOX_TEMPLATES, name, spec={"podTemplate": {"spec": SPEC}, **spec})

    @classmethod
    def policy(cls, name: str = "python-network-policy", **rest: Any) -> Any:
        return cls.view(NETWORK_POLICIES, name, **rest)

    @classmethod
    def claim(cls, *, status: Any = None, metadata: Any = None, claim: Any = None, **fields: Any) -> ClaimObserved:
        """What a pass over the claim mine sees; ``claim`` is its spec, the rest are fields of ``ClaimObserved``."""
        spec = {"sandboxTemplateRef": {"name": "python"}, **(claim or {})}
        view = cls.view(SANDBOX_CLAIMS, "mine", metadata=metadata or {}, spec=spec, status=status or {})
        fields.setdefault("template", cls.template())
        return ClaimObserved(view=view, claim=view.model(), now=NOW, **fields)

    @classmethod
    def pool_model(cls, **spec: Any) -> SandboxWarmPool:
        spec = {"replicas": 3, "sandboxTemplateRef": {"name": "python"}, **spec}
        model: SandboxWarmPool = cls.view(SANDBOX_WARM_POOLS, "pool", spec=spec).model()
        return model

    @classmethod
    def member(cls, name: str = "m1", *, ready: bool = True, age: float = 1000, **rest: Any) -> SandboxView:
        """A Sandbox as the pool makes it, some seconds old."""
        pool = cls.view(SANDBOX_WARM_POOLS, "pool", spec={}).metadata
        body = new_member(pool, rest.pop("template", cls.template()), name)
        metadata = {**body["metadata"], "creationTimestamp": stamp(-age), **rest.pop("metadata", {})}
        conditions = [
            {"type": "Ready", "status": "True" if ready else "False", "reason": rest.pop("reason", "Any"),
             "message": "", "lastTransitionTime": stamp(rest.pop("since", -age))},
            *rest.pop("conditions", []),
        ]  # fmt: skip
        status = {"conditions": conditions, "podIPs": ["10.0.0.1"] if ready else [], **rest.pop("status", {})}
        view: SandboxView = cls.view(SANDBOXES, name, metadata=metadata, spec=body["spec"], status=status)
        return view

    @classmethod
    def pool(cls, members: Any = (), *, template: Any = "same", status: Any = None, **spec: Any) -> PoolObserved:
        """What a pass over the pool sees."""
        spec = {"replicas": 3, "sandboxTemplateRef": {"name": "python"}, **spec}
        view = cls.view(SANDBOX_WARM_POOLS, "pool", spec=spec, status=status or {})
        wrapped = tuple(each if isinstance(each, Member) else Member(each) for each in members)
        chosen = cls.template() if template == "same" else template
        return PoolObserved(view, view.model(), chosen, wrapped, (), NOW)


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make
