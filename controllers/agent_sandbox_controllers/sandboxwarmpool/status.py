"""The status of a pool: its numbers, and whether anything keeps it from its size."""

from collections import Counter
from typing import Any

from agent_sandbox_api.names import CONDITION_PROGRESSING, CONDITION_READY, LABEL_WARM_POOL, name_hash
from agent_sandbox_controllers.conditions import Conditions, reason_of, status_of
from agent_sandbox_controllers.options import ControllerOptions
from agent_sandbox_controllers.sandboxwarmpool.members import Member
from agent_sandbox_controllers.sandboxwarmpool.plan import PoolObserved
from agent_sandbox_controllers.status import Status
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason

NOT_PROGRESSING = "WarmPoolNotProgressing"
PROGRESSING = "WarmPoolProgressing"


def pool_status(
    observed: PoolObserved, trouble: Trouble | None, held: tuple[Member, ...], options: ControllerOptions
) -> Status:
    """The pool's status after this pass's writes.

    Args:
        observed: the pool and its members as they are now.
        trouble: why members could not be created.
        held: stuck members that are kept.
        options: for the grace, in a message.
    """
    meta = observed.view.metadata
    active = observed.active
    ready = sum(member.ready for member in active)
    conditions = Conditions(observed.view.status.conditions, generation=meta.generation, now=observed.now)
    _set_ready(conditions, ready, observed.desired)
    obstacle = trouble or _obstacle(observed, held, options)
    if obstacle is None:
        conditions.set(CONDITION_PROGRESSING, "True", PROGRESSING, "Warm pool is progressing")
    else:
        conditions.set(CONDITION_PROGRESSING, "False", obstacle.reason, obstacle.message)
    return {
        "replicas": len(active),
        "readyReplicas": ready,
        "selector": f"{LABEL_WARM_POOL}={name_hash(meta.name)}",
        "observedGeneration": meta.generation,
        "conditions": conditions.to_json(),
    }


def _set_ready(conditions: Conditions, ready: int, desired: int) -> None:
    if ready >= desired:
        conditions.set(CONDITION_READY, "True", Reason.POOL_READY, "all members are Ready")
    else:
        conditions.set(CONDITION_READY, "False", Reason.POOL_NOT_READY, f"{ready} of {desired} members are Ready")


def _obstacle(observed: PoolObserved, held: tuple[Member, ...], options: ControllerOptions) -> Trouble | None:
    """Why the pool does not come to its size, from the template and from what its members say."""
    name = observed.pool.spec.sandbox_template_ref.name
    if observed.template is None:
        return Trouble(
            Reason.TEMPLATE_NOT_FOUND,
            f'SandboxTemplate "{name}" not found; create it or correct spec.sandboxTemplateRef. No member is created '
            "meanwhile",
        )
    if any(member.unschedulable for member in held):
        count = sum(member.unschedulable for member in held)
        return Trouble(
            Reason.POOL_UNSCHEDULABLE,
            f"{count}/{observed.desired} sandboxes are unschedulable past the {options.pool_readiness_grace:g}s "
            "readiness grace period; holding them instead of replacing (replacements would be equally unschedulable)",
        )
    blocked = Counter(member.reason for member in observed.active if not member.ready and member.obstacle)
    if not blocked:
        return None
    reason, count = blocked.most_common(1)[0]
    example = next(member for member in observed.active if member.reason == reason)
    return Trouble(reason, f"{count}/{observed.desired} sandboxes cannot start: {example.message}")


def is_urgent(old: Status, new: Status) -> bool:
    """Whether a difference must be written at once: the size, an obstacle, or the pool becoming full."""
    for key in ("replicas", "selector", "observedGeneration"):
        if old.get(key) != new.get(key):
            return True
    before, after = old.get("conditions", []), new.get("conditions", [])
    if _progress(before) != _progress(after):
        return True
    return status_of(before, CONDITION_READY) != "True" and status_of(after, CONDITION_READY) == "True"


def _progress(conditions: list[dict[str, Any]]) -> tuple[str, str]:
    return status_of(conditions, CONDITION_PROGRESSING), reason_of(conditions, CONDITION_PROGRESSING)
