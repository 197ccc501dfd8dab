"""Objects of a name that a Sandbox wants and that are another's: it waits for those that go, and refuses the rest."""

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.views import MetaView
from agent_sandbox_controllers.ownership import is_of_former, refusal_of_foreign, refusal_of_unowned
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.sandbox.outcome import Plan, stopped
from agent_sandbox_controllers.vocabulary import Reason


def foreign(observed: Observed, what: str, child: MetaView) -> Plan:
    """Another controls it. If that is a Sandbox of this name that is no more, the garbage collector is on its way: who
    deletes a Sandbox and makes it again has made no mistake.
    """
    if is_of_former(child, SANDBOXES, observed.view.metadata):
        return stopped(
            Reason.DEPENDENCIES_NOT_READY,
            f'{what} "{child.name}" of a former sandbox "{observed.name}" is still there; waiting until it is removed',
        )
    return stopped(Reason.RECONCILER_ERROR, refusal_of_foreign(what, child, observed.name))


def unowned(what: str, child: MetaView) -> Plan:
    """Nobody controls it, and it does not offer itself."""
    return stopped(Reason.RECONCILER_ERROR, refusal_of_unowned(what, child))
