"""How long claims took from first sight to Ready, once each."""

from datetime import datetime

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaimView
from agent_sandbox_api.names import (
    ANNOTATION_CLIENT_FIRST_REQUESTED_AT,
    ANNOTATION_TEMPLATE_REF,
    CONDITION_READY,
    LABEL_LAUNCH_TYPE,
)
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.conditions import status_of
from agent_sandbox_controllers.metrics import UNKNOWN
from agent_sandbox_controllers.sandboxclaim.observed import ClaimObserved
from agent_sandbox_controllers.status import Status
from agent_sandbox_controllers.world import World

ANNOTATION_WEBHOOK_FIRST_OBSERVED_AT = "agents.x-k8s.io/webhook-first-observed-at"


class Latency:
    """First sights, in memory: nothing is written for the sake of a measurement.

    A claim that has a Sandbox when it is first seen (after a restart) is not measured; one that loses readiness and
    gets it again is measured once.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        # Per claim UID: when it was first seen without a Sandbox; None once it was measured.
        self._first: dict[str, float | None] = {}

    def first_seen(self, view: SandboxClaimView) -> None:
        """Note a claim that has no Sandbox yet."""
        if view.status.sandbox is None and view.status.sandbox_name is None:
            self._first.setdefault(view.metadata.uid, self._world.clock.monotonic())

    def age(self, uid: str) -> float:
        """Seconds since this process first saw the claim."""
        first = self._first.get(uid)
        return 0.0 if first is None else self._world.clock.monotonic() - first

    def forget(self, uid: str) -> None:
        """The claim is gone."""
        self._first.pop(uid, None)

    def served(self, observed: ClaimObserved, sandbox: SandboxView, status: Status) -> None:
        """A status was written; measure it if it is the claim's first Ready."""
        meta = observed.view.metadata
        first = self._first.get(meta.uid)
        if first is None or status_of(status["conditions"], CONDITION_READY) != "True":
            return
        self._first[meta.uid] = None
        metrics = self._world.metrics
        launch = sandbox.metadata.labels.get(LABEL_LAUNCH_TYPE, UNKNOWN)
        template = sandbox.metadata.annotations.get(ANNOTATION_TEMPLATE_REF, UNKNOWN)
        elapsed = (self._world.clock.monotonic() - first) * 1000
        metrics.claim_controller_startup.labels(launch, template).observe(max(0.0, elapsed))
        for annotation, histogram in (
            (ANNOTATION_WEBHOOK_FIRST_OBSERVED_AT, metrics.claim_startup),
            (ANNOTATION_CLIENT_FIRST_REQUESTED_AT, metrics.client_claim_startup),
        ):
            since = _parse(meta.annotations.get(annotation))
            latency = (observed.now - since).total_seconds() * 1000 if since is not None else -1.0
            if latency >= 0:
                histogram.labels(launch, template).observe(latency)
        ready = find_condition(sandbox.status.conditions, CONDITION_READY)
        made = sandbox.metadata.creation_timestamp
        if made is not None and ready is not None and ready.last_transition_time is not None:
            seconds = (ready.last_transition_time - made).total_seconds()
            metrics.creation.labels(meta.namespace, launch, template).observe(max(0.0, seconds * 1000))


def _parse(value: str | None) -> datetime | None:
    """A time that a client wrote; None if it is absent, or no RFC 3339 time with a zone."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
