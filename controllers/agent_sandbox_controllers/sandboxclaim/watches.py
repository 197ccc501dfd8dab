"""Which changes in the world concern which claims."""

from collections.abc import Iterable

from agent_sandbox.runtime import Change, Controller, Request, not_own_status
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxClaimView,
    SandboxTemplateView,
    SandboxWarmPoolView,
)
from agent_sandbox_api.names import CONDITION_FINISHED, CONDITION_READY
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.indexes import BY_POOL_REF, BY_TEMPLATE_REF
from agent_sandbox_controllers.sandboxclaim.adoption import is_pool_member
from agent_sandbox_controllers.sandboxclaim.line import Line
from agent_sandbox_controllers.sandboxclaim.reconciler import ClaimReconciler, pool_place, template_place
from agent_sandbox_controllers.sandboxwarmpool.members import is_ready
from agent_sandbox_controllers.vocabulary import LABEL_TEMPLATE_ID
from agent_sandbox_controllers.world import World


def claim_controller(world: World) -> Controller:
    """The controller with all its watches."""
    line = Line()
    watches = Watches(world, line)
    return (
        Controller("sandboxclaim", ClaimReconciler(world, line), workers=world.options.claim_workers)
        .watches_for(SANDBOX_CLAIMS, not_own_status)
        .owns(SANDBOXES, owner=SANDBOX_CLAIMS, predicate=matters_to_claim)
        .watches(SANDBOXES, watches.of_pool_member)
        .watches(SANDBOXES, watches.of_namesake)
        .watches(SANDBOX_TEMPLATES, watches.of_template)
        .watches(SANDBOX_WARM_POOLS, watches.of_pool)
    )


def matters_to_claim(change: Change[SandboxView]) -> bool:
    """Whether a Sandbox changed in a way that its claim shows: readiness, end, addresses, deletion, owner.

    That it was made for the claim or became the claim's by our own write, the pass knows that wrote it.
    """
    old, new = change.old, change.new
    if new is None or change.is_resync:
        return True
    if old is None:
        return not change.own
    return (
        old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        or (old.metadata.owner_references != new.metadata.owner_references and not change.own)
        or old.status.pod_ips != new.status.pod_ips
        or any(
            find_condition(old.status.conditions, kind) != find_condition(new.status.conditions, kind)
            for kind in (CONDITION_READY, CONDITION_FINISHED)
        )
    )


class Watches:
    """Mappings from changes of other kinds to the claims that they concern."""

    def __init__(self, world: World, line: Line) -> None:
        self._world = world
        self._line = line

    def of_pool_member(self, change: Change[SandboxView]) -> Iterable[Request]:
        """A pool's member became Ready: the claim that has waited longest for one."""
        new, old = change.new, change.old
        if new is None or not is_pool_member(new) or not is_ready(new) or (old is not None and is_ready(old)):
            return ()
        controller = new.metadata.controller
        assert controller is not None, "a pool member has a controller"
        places = [pool_place(new.metadata.namespace, controller.name)]
        if identity := new.metadata.labels.get(LABEL_TEMPLATE_ID):
            places.append(template_place(identity))
        claim = self._line.call_next(places)
        return (claim,) if claim is not None else ()

    def of_namesake(self, change: Change[SandboxView]) -> Iterable[Request]:
        """A Sandbox went: the claim of its name may have waited for that."""
        if change.new is not None:
            return ()
        meta = change.object.metadata
        claim = self._world.claims.get(meta.namespace, meta.name)
        return (Request(meta.namespace, meta.name),) if claim is not None and not is_bound(claim) else ()

    def of_template(self, change: Change[SandboxTemplateView]) -> Iterable[Request]:
        """A template came, changed or went: all claims that name it."""
        if _is_status_only(change):
            return ()
        meta = change.object.metadata
        return [
            _request(claim)
            for claim in self._world.claims.by_index(BY_TEMPLATE_REF, f"{meta.namespace}/{meta.name}")
            if not claim.metadata.deleting
        ]

    def of_pool(self, change: Change[SandboxWarmPoolView]) -> Iterable[Request]:
        """A pool came, changed or went: claims that insist on it and have nothing yet."""
        if _is_status_only(change):
            return ()
        meta = change.object.metadata
        return [
            _request(claim)
            for claim in self._world.claims.by_index(BY_POOL_REF, f"{meta.namespace}/{meta.name}")
            if not claim.metadata.deleting and not is_bound(claim)
        ]


def is_bound(claim: SandboxClaimView) -> bool:
    """Whether the claim's status names a Sandbox."""
    return bool(claim.status.sandbox_name or (claim.status.sandbox and claim.status.sandbox.name))


def _is_status_only(change: Change[SandboxTemplateView] | Change[SandboxWarmPoolView]) -> bool:
    old, new = change.old, change.new
    return (
        old is not None
        and new is not None
        and old is not new
        and old.metadata.generation == new.metadata.generation
        and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
    )


def _request(claim: SandboxClaimView) -> Request:
    return Request(claim.metadata.namespace, claim.metadata.name)
