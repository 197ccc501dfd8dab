"""What a pass over one Sandbox sees, gathered from the caches before anything is decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from agent_sandbox_api.agents.v1alpha1 import SandboxSpec, SandboxView
from agent_sandbox_api.core import PodView, PvcView, ServiceView
from agent_sandbox_api.names import ANNOTATION_POD_NAME, name_hash
from agent_sandbox_controllers.troubles import Trouble

OVERDUE: Final = 60.0
"""Seconds after the end of its grace from which a Pod that is still there has probably lost its node."""


class OwnerKind(Enum):
    """Who controls a Sandbox, as far as its Pod is concerned."""

    NONE = "none"
    """Nobody, or somebody outside our group."""
    POOL = "pool"
    CLAIM = "claim"
    UNVERIFIED = "unverified"
    """A claim or a pool by its reference, but none of that UID is known: not seen yet, gone, or a pretence."""


@dataclass(frozen=True)
class Gate:
    """Whether a Pod may be created as far as network policy goes.

    Attributes:
        trouble: what it waits for; None if the gate is open.
    """

    trouble: Trouble | None = None


@dataclass(frozen=True)
class Observed:
    """One Sandbox and everything around it.

    Attributes:
        view: the cached object, for its metadata and status.
        spec: its spec, validated; shared among equal Sandboxes.
        now: the moment of this pass.
        owned_pods: Pods that it controls by UID; more than one is a fault.
        named_pod: the Pod that has the name ours should have, whoever owns it.
        service: the Service of its name, whoever owns it.
        volumes: PersistentVolumeClaims by name, whoever owns them; absent names are missing.
        owner: who controls the Sandbox.
        gate: whether policy allows a Pod.
        evictable: mark the Pod as safe to evict while a pool owns it.
        cluster_domain: for the Service's DNS name.
    """

    view: SandboxView
    spec: SandboxSpec
    now: datetime
    owned_pods: tuple[PodView, ...] = ()
    named_pod: PodView | None = None
    service: ServiceView | None = None
    volumes: Mapping[str, PvcView] = field(default_factory=dict)
    owner: OwnerKind = OwnerKind.NONE
    gate: Gate = Gate()
    evictable: bool = True
    cluster_domain: str = "cluster.local"

    @property
    def name(self) -> str:
        """The Sandbox's name, which its Pod and Service share."""
        return self.view.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace of everything here."""
        return self.view.metadata.namespace

    @property
    def uid(self) -> str:
        """The UID by which its children know it."""
        return self.view.metadata.uid

    @property
    def name_hash(self) -> str:
        """Value of the tracking label."""
        return name_hash(self.name)

    @property
    def pod(self) -> PodView | None:
        """The one Pod of this Sandbox."""
        return self.owned_pods[0] if len(self.owned_pods) == 1 else None

    @property
    def seconds_until_overdue(self) -> float | None:
        """Seconds until its Pod has been on its way out for suspiciously long; None if it is not on its way out, or
        that has been told.
        """
        pod = self.pod
        if pod is None or pod.metadata.deletion_timestamp is None:
            return None
        left = (pod.metadata.deletion_timestamp - self.now).total_seconds() + OVERDUE
        return left if left > 0 else None

    @property
    def suspended(self) -> bool:
        """Whether the user wants no Pod now."""
        return self.spec.replicas == 0

    @property
    def wants_service(self) -> bool:
        """Unset means yes."""
        return self.spec.service is not False

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it expires, negative afterwards; None if it never does."""
        end = self.spec.shutdown_time
        return None if end is None else (end - self.now).total_seconds()

    @property
    def expired(self) -> bool:
        """Whether its time is up."""
        left = self.seconds_left
        return left is not None and left <= 0


def wanted_pod_name(view: SandboxView) -> str:
    """Name of the Sandbox's Pod: its own name, unless an annotation hands it an existing Pod."""
    return view.metadata.annotations.get(ANNOTATION_POD_NAME) or view.metadata.name
