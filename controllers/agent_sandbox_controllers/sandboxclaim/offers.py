"""Which pool members a claim may take: an in-memory question, answered from indexes."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SandboxTemplate,
    SandboxWarmPool,
    SandboxWarmPoolView,
    UpdateStrategyType,
)
from agent_sandbox_controllers.blueprint import sandbox_hash, template_hash
from agent_sandbox_controllers.indexes import BY_POOL_STATE, BY_READY_CONTENT, BY_TEMPLATE_REF, owner_value
from agent_sandbox_controllers.parsed import pool_model
from agent_sandbox_controllers.sandboxclaim.line import Line
from agent_sandbox_controllers.sandboxclaim.observed import Candidate
from agent_sandbox_controllers.sandboxwarmpool.members import is_of_template
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.world import World

ENOUGH: Final = 16
"""Members that one claim looks at, besides those that others are trying: enough to choose a node among them, and to
have others left if some are gone."""


class Offers:
    """What the pools have."""

    def __init__(self, world: World, line: Line) -> None:
        self._world = world
        self._line = line

    def pools_for(self, template: SandboxTemplate, named: SandboxWarmPoolView | None) -> list[SandboxWarmPoolView]:
        """The named pool, or every pool of the template that is not going away."""
        if named is not None:
            return [named]
        key = f"{template.metadata.namespace}/{template.metadata.name}"
        pools = self._world.pools.by_index(BY_TEMPLATE_REF, key)
        return [pool for pool in pools if not pool.metadata.deleting]

    def ready(self, pools: list[SandboxWarmPoolView], template: SandboxTemplate) -> tuple[Candidate, ...]:
        """Members that could be taken now, those that are made as the template is now before any other.

        Of a large pool only ``ENOUGH`` are looked at, those that have been Ready the longest: what a claim costs must
        not grow with the pool.
        """
        wanted = template_hash(template) if pools else ""
        record = TemplateRecord.of(template)
        found: list[Candidate] = []
        for pool in pools:
            fresh = self._world.sandboxes.by_index(BY_READY_CONTENT, f"{owner_value(pool.metadata)}/{wanted}")
            found += self._takeable(fresh, record, fresh=True)
        for pool in pools:
            if len(found) < ENOUGH and not takes_only_fresh(pool_model(pool)):
                every = self._world.sandboxes.by_index(BY_POOL_STATE, f"ready/{owner_value(pool.metadata)}")
                stale = (member for member in every if sandbox_hash(member.spec) != wanted)
                found += self._takeable(stale, record, fresh=False)
        return tuple(found)

    def _takeable(self, members: Iterable[SandboxView], record: TemplateRecord, *, fresh: bool) -> Iterator[Candidate]:
        """Those made from the template that no other claim is trying.

        Freshness is judged by content, never by a label that whoever made the Sandbox may have written.
        """
        takeable = (
            Candidate(member, fresh=fresh)
            for member in members
            if not self._line.is_reserved(member.metadata.uid) and is_of_template(member, record)
        )
        return itertools.islice(takeable, ENOUGH)

    def pending(self, pools: list[SandboxWarmPoolView], template: SandboxTemplate) -> int:
        """Members on their way to Ready, or being looked at by another claim."""
        record = TemplateRecord.of(template)
        count = 0
        for pool in pools:
            key = owner_value(pool.metadata)
            coming = self._world.sandboxes.by_index(BY_POOL_STATE, f"pending/{key}")
            count += sum(is_of_template(member, record) for member in coming)
            there = self._world.sandboxes.by_index(BY_POOL_STATE, f"ready/{key}")
            count += sum(self._line.is_reserved(member.metadata.uid) for member in there)
        return count


def takes_only_fresh(pool: SandboxWarmPool) -> bool:
    """Whether members made from an older version of the template are refused to claims."""
    strategy = pool.spec.update_strategy
    return strategy is not None and strategy.type == UpdateStrategyType.RECREATE
