"""The status of a Sandbox as a whole."""

from collections.abc import Sequence

from agent_sandbox_api.names import LABEL_SANDBOX_NAME_HASH
from agent_sandbox_controllers.sandbox.conditions import expired_conditions, has_service, sandbox_conditions
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.status import Status, status_json
from agent_sandbox_controllers.troubles import Trouble


def living_status(observed: Observed, troubles: Sequence[Trouble]) -> Status:
    """The status of a Sandbox that has not expired."""
    status: Status = {
        "conditions": sandbox_conditions(observed, troubles),
        "replicas": len(observed.owned_pods),
        "selector": f"{LABEL_SANDBOX_NAME_HASH}={observed.name_hash}",
    }
    pod = observed.pod
    if pod is not None:
        status["podIPs"] = list(pod.ips)
        status["nodeName"] = pod.spec.node_name
    if observed.wants_service and has_service(observed):
        status["service"] = observed.name
        status["serviceFQDN"] = f"{observed.name}.{observed.namespace}.svc.{observed.cluster_domain}"
    return status


def expiring_status(observed: Observed) -> Status:
    """First pass after expiry: the old status, but not Ready. Nothing is deleted before this is on record."""
    return status_json(observed.view.status) | {"conditions": expired_conditions(observed)}


def expired_status(observed: Observed) -> Status:
    """What stays of a retained Sandbox: its conditions, and how many Pods are still on their way out."""
    return {"conditions": expired_conditions(observed), "replicas": len(observed.owned_pods)}
