"""When a claim ends: at its shutdownTime, or some time after its Pod finished, whichever comes first."""

from datetime import datetime, timedelta

from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim, SandboxClaimView
from agent_sandbox_api.names import CONDITION_FINISHED
from agent_sandbox_api.views import ConditionView, find_condition


def finished_condition(view: SandboxClaimView) -> ConditionView | None:
    """The claim's own record that its Pod finished."""
    condition = find_condition(view.status.conditions, CONDITION_FINISHED)
    return condition if condition is not None and condition.status == "True" else None


def expiry_of(claim: SandboxClaim, finished: ConditionView | None) -> datetime | None:
    """When the claim expires; None if never. A TTL counts from the moment the Pod finished and means nothing before."""
    lifecycle = claim.spec.lifecycle
    if lifecycle is None:
        return None
    ends = [lifecycle.shutdown_time] if lifecycle.shutdown_time is not None else []
    ttl = lifecycle.ttl_seconds_after_finished
    if ttl is not None and finished is not None and finished.last_transition_time is not None:
        ends.append(finished.last_transition_time + timedelta(seconds=ttl))
    return min(ends, default=None)


def seconds_until(moment: datetime | None, now: datetime) -> float | None:
    """Seconds from now, zero or negative if it has passed; None for never."""
    return None if moment is None else (moment - now).total_seconds()
