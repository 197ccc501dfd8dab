"""Counts and times suspends and resumes: from the wish, as first seen, to the state."""

from agent_sandbox_api.names import CONDITION_READY, CONDITION_SUSPENDED
from agent_sandbox_api.views import find_condition, is_condition_true
from agent_sandbox_controllers.conditions import status_of
from agent_sandbox_controllers.metrics import ControllerMetrics
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.status import Status


class Transitions:
    """Sandboxes on their way from one state to the other, in memory."""

    def __init__(self, metrics: ControllerMetrics) -> None:
        """
        Args:
            metrics: where counts and times go.
        """
        self._metrics = metrics
        # Per UID: which transition, and when it was first seen.
        self._under_way: dict[str, tuple[str, float]] = {}

    def observe(self, observed: Observed, status: Status, now: float) -> None:
        """Look at a Sandbox and at the status that it is about to have."""
        before = observed.view.status.conditions
        suspended = is_condition_true(before, CONDITION_SUSPENDED)
        known = find_condition(before, CONDITION_SUSPENDED) is not None
        if observed.suspended != suspended and known:
            wish = "suspended" if observed.suspended else "resumed"
            if self._under_way.get(observed.uid, ("", 0.0))[0] != wish:
                self._under_way[observed.uid] = (wish, now)
        under_way = self._under_way.get(observed.uid)
        if under_way is None:
            return
        wish, since = under_way
        reached = CONDITION_SUSPENDED if wish == "suspended" else CONDITION_READY
        if status_of(status["conditions"], reached) == "True":
            del self._under_way[observed.uid]
            self._metrics.transitions.labels(observed.namespace, wish).inc()
            self._metrics.transition_seconds.labels(wish).observe(now - since)

    def forget(self, uid: str) -> None:
        """The Sandbox is gone."""
        self._under_way.pop(uid, None)
