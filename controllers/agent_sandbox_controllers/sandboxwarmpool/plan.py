"""Decides how a pool comes to its size and to its template: pure.

Observed state → how many members to create, which to remove, which orphan to take in. Members on their way out count
against the size, so that a pool never has more than it should; every removal names one version of one member, so that a
member which a claim has just taken stays.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_WARM_POOLS,
    SandboxTemplate,
    SandboxWarmPool,
    SandboxWarmPoolView,
    UpdateStrategyType,
)
from agent_sandbox_controllers.actions import Change, Remove, change, remove
from agent_sandbox_controllers.options import ControllerOptions
from agent_sandbox_controllers.ownership import controller_reference
from agent_sandbox_controllers.sandboxwarmpool.members import Member
from agent_sandbox_controllers.waiting import soonest

GRACE_SLACK = 2.0
"""Seconds by which a look at a stuck member comes after its grace has ended: server times have whole seconds."""


@dataclass(frozen=True)
class PoolObserved:
    """A pool and its members.

    Attributes:
        view: the cached pool.
        pool: its model.
        template: the template that it names; None if it does not exist.
        members: Sandboxes that it controls by UID.
        orphans: Sandboxes that carry its label, are made exactly as its template says, and that nobody controls.
        now: the moment of this pass.
    """

    view: SandboxWarmPoolView
    pool: SandboxWarmPool
    template: SandboxTemplate | None
    members: tuple[Member, ...]
    orphans: tuple[Member, ...]
    now: datetime

    @property
    def desired(self) -> int:
        """How many members the pool should have."""
        return self.pool.spec.replicas

    @cached_property
    def active(self) -> tuple[Member, ...]:
        """Members that stay."""
        return tuple(member for member in self.members if not member.deleting)

    @property
    def strategy(self) -> str:
        """What happens to members of an older template."""
        chosen = self.pool.spec.update_strategy
        return (chosen.type if chosen else None) or UpdateStrategyType.ON_REPLENISH


@dataclass(frozen=True)
class PoolPlan:
    """What a pass does.

    Attributes:
        create: members to create, before pacing.
        remove: members to remove.
        adopt: orphans to take in.
        held: members that are stuck and kept, because a replacement would be no better off.
        look_again: seconds until time alone changes something; None if it does not.
    """

    create: int = 0
    remove: tuple[Remove, ...] = ()
    adopt: tuple[Change, ...] = ()
    held: tuple[Member, ...] = ()
    look_again: float | None = None


def plan_pool(observed: PoolObserved, options: ControllerOptions) -> PoolPlan:
    """Bring a pool to its size."""
    stuck, held, look_again = _stuck(observed, options)
    going = {member.view.metadata.uid: member for member in stuck}
    for member in _outdated(observed, going):
        going.setdefault(member.view.metadata.uid, member)
    staying = [member for member in observed.active if member.view.metadata.uid not in going]
    for member in _excess(staying, observed.desired):
        going[member.view.metadata.uid] = member
    removed = list(going.values())[: options.pool_batch_size]
    missing = observed.desired - len(observed.members)
    if observed.template is None or missing <= 0:
        return PoolPlan(remove=_removals(removed), held=held, look_again=look_again)
    adopted = observed.orphans[:missing]
    return PoolPlan(
        create=min(missing - len(adopted), options.pool_batch_size),
        remove=_removals(removed),
        adopt=tuple(_take_in(observed, orphan) for orphan in adopted),
        held=held,
        look_again=look_again,
    )


def _removals(members: Iterable[Member]) -> tuple[Remove, ...]:
    return tuple(remove(SANDBOXES, member.view.metadata, locked=True) for member in members)


def _take_in(observed: PoolObserved, orphan: Member) -> Change:
    body = {"metadata": {"ownerReferences": [controller_reference(SANDBOX_WARM_POOLS, observed.view.metadata)]}}
    return change(SANDBOXES, orphan.view.metadata, body, locked=True)


def _stuck(observed: PoolObserved, options: ControllerOptions) -> tuple[list[Member], tuple[Member, ...], float | None]:
    """Members that have not been Ready for too long: those to replace, those to hold, and when to look next."""
    grace = timedelta(seconds=options.pool_readiness_grace)
    stuck: list[Member] = []
    held: list[Member] = []
    next_end: float | None = None
    for member in observed.active:
        if member.ready:
            continue
        left = (member.unready_since + grace - observed.now).total_seconds()
        if left > 0:
            next_end = soonest(next_end, left + GRACE_SLACK)
        elif member.obstacle or observed.template is None:
            held.append(member)
            next_end = soonest(next_end, options.pool_recheck_interval)
        else:
            stuck.append(member)
    return stuck, tuple(held), next_end


def _outdated(observed: PoolObserved, going: Iterable[str]) -> list[Member]:
    """Members to replace because of their template.

    A member of another template can serve no claim of this pool: it goes whatever the strategy. Nobody is replaced
    while the template is missing.
    """
    if observed.template is None:
        return []
    leaving = set(going)
    active = [member for member in observed.active if member.view.metadata.uid not in leaving]
    retargeted = [member for member in active if member.retargeted]
    stale = [member for member in active if member.stale and not member.retargeted]
    match observed.strategy:
        case UpdateStrategyType.RECREATE:
            return retargeted + stale
        case UpdateStrategyType.ROLLING:
            return _rolling(observed, retargeted + stale)
        case _:
            return retargeted


def _rolling(observed: PoolObserved, outdated: Sequence[Member]) -> list[Member]:
    """As many outdated members as may be missing at once, those first that are not Ready anyway."""
    unready = [member for member in outdated if not member.ready]
    ready = [member for member in outdated if member.ready]
    serving = sum(member.ready for member in observed.active)
    budget = max_unavailable(observed.pool) - max(0, observed.desired - serving)
    return unready + ready[: max(0, budget)]


def max_unavailable(pool: SandboxWarmPool) -> int:
    """How many members a rolling replacement may take away at once; at least one, or it would never end."""
    strategy = pool.spec.update_strategy
    rolling = strategy.rolling_update if strategy else None
    value = rolling.max_unavailable if rolling and rolling.max_unavailable is not None else 1
    if isinstance(value, str) and value.endswith("%"):
        value = math.floor(pool.spec.replicas * int(value[:-1]) / 100)
    return max(1, int(value))


def _excess(members: Sequence[Member], desired: int) -> list[Member]:
    """Members above the wanted number: the useless first, then the outdated, then the youngest."""
    surplus = len(members) - desired
    if surplus <= 0:
        return []
    order = sorted(
        members, key=lambda each: (each.ready, not each.stale, -each.made.timestamp(), each.view.metadata.name)
    )
    return order[:surplus]
