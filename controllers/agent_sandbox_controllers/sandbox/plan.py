"""Decides what one pass over a Sandbox writes, from what it sees: pure, and the whole truth about order.

Observed state → actions, troubles, notices. Actions are carried out in order and stop at the first that fails, and the
Pod comes last: whatever is refused or foreign stands in front of it.
"""

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, ShutdownPolicy
from agent_sandbox_api.core import PODS, SERVICES
from agent_sandbox_api.names import CONDITION_READY
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.actions import Action, remove
from agent_sandbox_controllers.ownership import Ownership, ownership_of
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.sandbox.outcome import Plan
from agent_sandbox_controllers.sandbox.pod import plan_running_pod, plan_suspended_pod
from agent_sandbox_controllers.sandbox.service import plan_service
from agent_sandbox_controllers.sandbox.volumes import plan_volumes
from agent_sandbox_controllers.vocabulary import Reason


def plan_children(observed: Observed) -> Plan:
    """What a living Sandbox needs: volumes, then its Service, then its Pod."""
    before_pod = plan_volumes(observed) + plan_service(observed)
    if observed.suspended:
        return plan_suspended_pod(observed) + before_pod
    return before_pod + plan_running_pod(observed, blocked=bool(before_pod.troubles))


def is_marked_expired(observed: Observed) -> bool:
    """Whether an earlier pass has already told everybody that the Sandbox expired."""
    ready = find_condition(observed.view.status.conditions, CONDITION_READY)
    return ready is not None and ready.reason == Reason.SANDBOX_EXPIRED


def plan_expiry(observed: Observed) -> Plan:
    """What goes when a Sandbox has expired and says so: every Pod of its own, its Service, and with Delete itself.

    The Sandbox goes only in the version that was looked at: an extension of its time that crosses the delete wins.
    """
    actions: list[Action] = [remove(PODS, pod.metadata) for pod in observed.owned_pods if not pod.metadata.deleting]
    service = observed.service
    if (
        service is not None
        and not service.metadata.deleting
        and ownership_of(service.metadata, observed.uid) is Ownership.OWNED
    ):
        actions.append(remove(SERVICES, service.metadata))
    if observed.spec.shutdown_policy == ShutdownPolicy.DELETE:
        actions.append(remove(SANDBOXES, observed.view.metadata, locked=True))
    return Plan(tuple(actions))
