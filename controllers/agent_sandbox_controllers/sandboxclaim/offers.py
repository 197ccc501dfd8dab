"""Which pool members a claim may take: an in-memory question, answered from indexes."""

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SandboxTemplate,
    SandboxWarmPool,
    SandboxWarmPoolView,
    UpdateStrategyType,
)
from agent_sandbox_controllers.blueprint import template_hash
from agent_sandbox_controllers.indexes import BY_POOL_STATE, BY_TEMPLATE_REF
from agent_sandbox_controllers.sandboxclaim.line import Line
from agent_sandbox_controllers.sandboxclaim.observed import Candidate
from agent_sandbox_controllers.sandboxwarmpool.members import HashMemo, is_of_template
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.world import World


class Offers:
    """What the pools have."""

    def __init__(self, world: World, line: Line, hashes: HashMemo) -> None:
        self._world = world
        self._line = line
        self._hashes = hashes

    def pools_for(self, template: SandboxTemplate, named: SandboxWarmPoolView | None) -> list[SandboxWarmPoolView]:
        """The named pool, or every pool of the template that is not going away."""
        if named is not None:
            return [named]
        key = f"{template.metadata.namespace}/{template.metadata.name}"
        pools = self._world.pools.by_index(BY_TEMPLATE_REF, key)
        return [pool for pool in pools if not pool.metadata.deleting]

    def ready(self, pools: list[SandboxWarmPoolView], template: SandboxTemplate) -> tuple[Candidate, ...]:
        """Members that could be taken now."""
        wanted = template_hash(template) if pools else ""
        found: list[Candidate] = []
        for pool in pools:
            only_fresh = takes_only_fresh(pool.model())
            for member in self._world.sandboxes.by_index(BY_POOL_STATE, f"ready/{pool.metadata.uid}"):
                if self._line.is_reserved(member.metadata.uid):
                    continue
                candidate = self._candidate(member, template, wanted)
                if candidate is not None and (candidate.fresh or not only_fresh):
                    found.append(candidate)
        return tuple(found)

    def pending(self, pools: list[SandboxWarmPoolView], template: SandboxTemplate) -> int:
        """Members on their way to Ready, or being looked at by another claim."""
        record = TemplateRecord.of(template)
        count = 0
        for pool in pools:
            uid = pool.metadata.uid
            coming = self._world.sandboxes.by_index(BY_POOL_STATE, f"pending/{uid}")
            count += sum(is_of_template(member, record) for member in coming)
            there = self._world.sandboxes.by_index(BY_POOL_STATE, f"ready/{uid}")
            count += sum(self._line.is_reserved(member.metadata.uid) for member in there)
        return count

    def _candidate(self, member: SandboxView, template: SandboxTemplate, wanted: str) -> Candidate | None:
        """A member as a candidate; None if it was made from another template.

        Freshness is judged by content, never by a label that whoever made the Sandbox may have written.
        """
        if not is_of_template(member, TemplateRecord.of(template)):
            return None
        return Candidate(member, fresh=self._hashes(member) == wanted)


def takes_only_fresh(pool: SandboxWarmPool) -> bool:
    """Whether members made from an older version of the template are refused to claims."""
    strategy = pool.spec.update_strategy
    return strategy is not None and strategy.type == UpdateStrategyType.RECREATE
