"""What all reconcilers share: stores to read from, a client to write with, time, events, options, metrics.

Stores hold what this process wrote at once, and what others wrote a little later.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agent_sandbox.clock import Clock
from agent_sandbox.kube import NotFoundError
from agent_sandbox.runtime import Cache, CachedClient, Store
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import (
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    NetworkPolicyView,
    PodView,
    PvcView,
    ServiceView,
)
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxClaimView,
    SandboxTemplateView,
    SandboxWarmPoolView,
)
from agent_sandbox_api.resource import Resource, V
from agent_sandbox_api.views import View
from agent_sandbox_controllers.metrics import ControllerMetrics
from agent_sandbox_controllers.options import ControllerOptions


class Events(Protocol):
    """Where events go."""

    def event(
        self,
        regarding: View,
        *,
        type: Literal["Normal", "Warning"],
        reason: str,
        action: str,
        note: str,
        resource: Resource[Any],
    ) -> None:
        """Tell people something about an object; never waits and never fails."""


@dataclass
class World:
    """The surroundings of the four reconcilers."""

    client: CachedClient
    cache: Cache
    clock: Clock
    events: Events
    options: ControllerOptions
    metrics: ControllerMetrics
    # Per ``<namespace>/<template id>``: Pods that are being created right now and that no store shows yet.
    _pods_in_flight: Counter[str] = field(default_factory=Counter)
    # The same keys: NetworkPolicies that are being removed, from the last look at who needs them.
    _policies_going: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def creating_pod(self, namespace: str, template_id: str) -> Iterator[None]:
        """While a Pod is being created, its template's NetworkPolicy stays, even if the Sandbox goes meanwhile."""
        with _counted(self._pods_in_flight, f"{namespace}/{template_id}"):
            yield

    def is_creating_pod(self, namespace: str, template_id: str) -> bool:
        """Whether a Pod of this template is being created in this namespace."""
        return self._pods_in_flight[f"{namespace}/{template_id}"] > 0

    @contextmanager
    def removing_policy(self, namespace: str, template_id: str) -> Iterator[None]:
        """From the last look at who needs a template's NetworkPolicy until it is gone, no Pod of it is created."""
        with _counted(self._policies_going, f"{namespace}/{template_id}"):
            yield

    def is_removing_policy(self, namespace: str, template_id: str) -> bool:
        """Whether the NetworkPolicy of this template is being removed from this namespace."""
        return self._policies_going[f"{namespace}/{template_id}"] > 0

    @property
    def sandboxes(self) -> Store[SandboxView]:
        """All Sandboxes."""
        return self.cache.informer(SANDBOXES).store

    @property
    def pods(self) -> Store[PodView]:
        """All Pods."""
        return self.cache.informer(PODS).store

    @property
    def services(self) -> Store[ServiceView]:
        """All Services."""
        return self.cache.informer(SERVICES).store

    @property
    def volumes(self) -> Store[PvcView]:
        """All PersistentVolumeClaims."""
        return self.cache.informer(PERSISTENT_VOLUME_CLAIMS).store

    @property
    def policies(self) -> Store[NetworkPolicyView]:
        """All NetworkPolicies."""
        return self.cache.informer(NETWORK_POLICIES).store

    @property
    def templates(self) -> Store[SandboxTemplateView]:
        """All SandboxTemplates."""
        return self.cache.informer(SANDBOX_TEMPLATES).store

    @property
    def claims(self) -> Store[SandboxClaimView]:
        """All SandboxClaims."""
        return self.cache.informer(SANDBOX_CLAIMS).store

    @property
    def pools(self) -> Store[SandboxWarmPoolView]:
        """All SandboxWarmPools."""
        return self.cache.informer(SANDBOX_WARM_POOLS).store

    async def look(self, resource: Resource[V], namespace: str, name: str) -> V | None:
        """Read one object from the server itself, and let the stores know. For the rare case in which the cache cannot
        be trusted: after a lost answer, or before something final is said.
        """
        try:
            view = await self.client.get(resource, name, namespace)
        except NotFoundError:
            return None
        self.cache.remember(resource, view)
        return view


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    """Count the key while the block runs. Back at zero it is forgotten, or each template would stay for ever."""
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
