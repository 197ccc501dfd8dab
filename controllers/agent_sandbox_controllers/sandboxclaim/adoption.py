"""Takes a pool member for a claim: one conditional write that either succeeds or never happened.

A lost answer is the only difficulty: the write may have happened. Then the same member is looked at live before
anything else is tried, and nothing else is tried before the server has said whose it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from agent_sandbox.kube import ConflictError, NotFoundError, ServerError, TransportError, UnreachableError
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_WARM_POOLS, SandboxTemplate
from agent_sandbox_api.names import EXTENSIONS_GROUP
from agent_sandbox_api.views import MetaView
from agent_sandbox_controllers.actions import perform
from agent_sandbox_controllers.ownership import Ownership, ownership_of
from agent_sandbox_controllers.sandboxclaim.line import Line
from agent_sandbox_controllers.sandboxclaim.observed import Candidate, ClaimObserved
from agent_sandbox_controllers.sandboxclaim.plan import adoption
from agent_sandbox_controllers.world import World

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Unanswered:
    """A write that was sent and not answered, and that the server does not show.

    Attributes:
        name: the Sandbox.
        member: it, if it is a pool's; None if it was to be created.
    """

    name: str
    member: SandboxView | None = None


class Adoptions:
    """The attempts of claims to take members.

    Guarantees:
        At most one member per claim: after a lost answer the claim tries nothing but the same member until the server
        has answered about it.
    """

    def __init__(self, world: World, line: Line) -> None:
        self._world = world
        self._line = line
        # Per claim UID: the Sandbox whose write was sent without an answer.
        self._unanswered: dict[str, str] = {}

    async def settle(self, claim: MetaView) -> Unanswered | None:
        """Learn what became of a write without an answer; call before looking at the caches.

        Returns:
            What to try again before anything else, if the write did not happen; None if nothing is open.

        Raises:
            KubeError: the server does not answer this either.
        """
        name = self._unanswered.get(claim.uid)
        if name is None:
            return None
        sandbox = await self._world.look(SANDBOXES, claim.namespace, name)
        if sandbox is None and name == claim.name:
            return Unanswered(name)
        if sandbox is not None and is_pool_member(sandbox):
            return Unanswered(name, sandbox)
        # Ours, somebody else's, or gone: what may still be on its way cannot succeed any more.
        del self._unanswered[claim.uid]
        return None

    def note_unanswered(self, claim_uid: str, name: str) -> None:
        """A write about this Sandbox was sent and not answered."""
        self._unanswered[claim_uid] = name

    def forget(self, claim_uid: str) -> None:
        """The write was answered, or the claim is gone."""
        self._unanswered.pop(claim_uid, None)

    async def take_first(
        self,
        observed: ClaimObserved,
        candidates: Sequence[Candidate],
        template: SandboxTemplate,
        still_fits: Callable[[SandboxView], bool],
    ) -> SandboxView | None:
        """Try the candidates in order until the server grants one.

        Args:
            observed: the claim.
            candidates: members that nobody else is trying, best first.
            template: the template that they were made from.
            still_fits: whether a member, read again, may still be taken.

        Returns:
            The Sandbox, now the claim's; None if all were gone.
        """
        for candidate in candidates:
            if self._line.is_reserved(candidate.view.metadata.uid):
                continue
            with self._line.reserve(candidate.view.metadata.uid):
                taken = await self._take(observed, candidate.view, template, still_fits)
            if taken is not None:
                return taken
        return None

    async def _take(
        self,
        observed: ClaimObserved,
        member: SandboxView,
        template: SandboxTemplate,
        still_fits: Callable[[SandboxView], bool],
    ) -> SandboxView | None:
        claim_uid, namespace, name = observed.view.metadata.uid, observed.namespace, member.metadata.name
        target: SandboxView | None = member
        for _ in range(2):
            if target is None:
                return None
            try:
                taken = await perform(self._world.client, adoption(observed, target, template))
            except (ConflictError, NotFoundError) as error:
                log.info("a pool member changed while it was being adopted", sandbox=name, error=str(error))
                target = await self._world.look(SANDBOXES, namespace, name)
                if target is not None and ownership_of(target.metadata, claim_uid) is Ownership.OWNED:
                    self.forget(claim_uid)
                    return target
                if target is not None and not (is_pool_member(target) and still_fits(target)):
                    target = None
            except UnreachableError:
                raise
            except (TransportError, ServerError):
                self.note_unanswered(claim_uid, name)
                raise
            else:
                assert isinstance(taken, SandboxView), "the answer to a patch of a Sandbox is a Sandbox"
                self.forget(claim_uid)
                return taken
        return None


def is_pool_member(sandbox: SandboxView) -> bool:
    """Whether a pool controls this Sandbox, and it stays."""
    controller = sandbox.metadata.controller
    return (
        controller is not None
        and not sandbox.metadata.deleting
        and (controller.group, controller.kind) == (EXTENSIONS_GROUP, SANDBOX_WARM_POOLS.kind)
    )
