"""Computes the next list of conditions from the last one, the way Kubernetes controllers must."""

from collections.abc import Iterable
from datetime import datetime

from agent_sandbox_api.views import ConditionView


def next_condition(
    previous: Iterable[ConditionView],
    *,
    type: str,
    status: str,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> ConditionView:
    """A condition whose ``lastTransitionTime`` moves only when the status does."""
    since = now.replace(microsecond=0)
    for old in previous:
        if old.type == type and old.status == status and old.last_transition_time is not None:
            since = old.last_transition_time
    return ConditionView(
        type=type,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
