"""The conditions of a Sandbox, computed from what is there: Ready, Suspended, Finished, PodScheduled, PodUpToDate."""

from collections.abc import Sequence
from typing import Any

from agent_sandbox_api.core import PodView
from agent_sandbox_api.names import (
    CONDITION_FINISHED,
    CONDITION_POD_SCHEDULED,
    CONDITION_READY,
    CONDITION_SUSPENDED,
)
from agent_sandbox_api.views import find_condition, is_condition_true
from agent_sandbox_controllers.conditions import Conditions
from agent_sandbox_controllers.ownership import Ownership, ownership_of
from agent_sandbox_controllers.sandbox.explain import container_problem, failure_of, scheduling_problem
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.sandbox.pod import is_outdated
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import CONDITION_POD_UP_TO_DATE, Reason

_MESSAGE_LIMIT = 4096
"""Longest message we write; the schema allows 32768, but nobody reads that."""
_EXPIRED = (
    "Sandbox has expired: spec.shutdownTime has passed, so its Pod and Service are deleted; volumes stay as long as "
    "this object. Set a later spec.shutdownTime to start it again, or delete it"
)
_SUSPENDED = "Sandbox is suspended: spec.replicas is 0; set it to 1 to resume"


def sandbox_conditions(observed: Observed, troubles: Sequence[Trouble]) -> list[dict[str, Any]]:
    """All conditions of a Sandbox that has not expired.

    Args:
        observed: what there is after this pass's writes.
        troubles: what stood in the way of them, most important first.
    """
    conditions = _start(observed)
    conditions.set(CONDITION_SUSPENDED, *_suspended(observed))
    _set_finished(conditions, observed.pod)
    _set_scheduled(conditions, observed.pod)
    _set_up_to_date(conditions, observed)
    status, reason, message = _ready(observed, troubles)
    conditions.set(CONDITION_READY, status, reason, message[:_MESSAGE_LIMIT])
    return conditions.to_json()


def expired_conditions(observed: Observed) -> list[dict[str, Any]]:
    """The conditions of an expired Sandbox: what was finished or suspended stays on record."""
    conditions = _start(observed)
    conditions.drop(CONDITION_POD_SCHEDULED)
    conditions.drop(CONDITION_POD_UP_TO_DATE)
    conditions.set(CONDITION_READY, "False", Reason.SANDBOX_EXPIRED, _EXPIRED)
    return conditions.to_json()


def _start(observed: Observed) -> Conditions:
    meta = observed.view.metadata
    return Conditions(observed.view.status.conditions, generation=meta.generation, now=observed.now)


def _suspended(observed: Observed) -> tuple[str, str, str]:
    if not observed.suspended:
        return "False", Reason.NOT_SUSPENDED, "Sandbox is not suspended"
    if observed.owned_pods:
        return "False", Reason.POD_TERMINATING, "Pod is terminating. Sandbox is suspending"
    if _stranger(observed) is not None:
        return "False", Reason.POD_NOT_OWNED, "Refused to delete pod because it is not owned by this sandbox"
    return "True", Reason.POD_TERMINATED, "Pod has been terminated. Sandbox is suspended"


def _stranger(observed: Observed) -> PodView | None:
    pod = observed.named_pod
    if pod is None or ownership_of(pod.metadata, observed.uid) is Ownership.OWNED:
        return None
    return pod


def _set_finished(conditions: Conditions, pod: PodView | None) -> None:
    match pod.status.phase if pod else "":
        case "Succeeded":
            conditions.set(CONDITION_FINISHED, "True", Reason.POD_SUCCEEDED, "Pod completed successfully")
        case "Failed":
            conditions.set(CONDITION_FINISHED, "True", Reason.POD_FAILED, "Pod failed")
        case _:
            conditions.drop(CONDITION_FINISHED)


def _set_scheduled(conditions: Conditions, pod: PodView | None) -> None:
    if pod is None:
        conditions.drop(CONDITION_POD_SCHEDULED)
        return
    seen = find_condition(pod.status.conditions, "PodScheduled")
    if seen is None:
        text = "Pod has not reported a PodScheduled condition yet"
        conditions.set(CONDITION_POD_SCHEDULED, "Unknown", Reason.POD_SCHEDULING_UNKNOWN, text)
        return
    fallback = Reason.POD_SCHEDULED if seen.status == "True" else Reason.POD_SCHEDULING_UNKNOWN
    conditions.set(CONDITION_POD_SCHEDULED, seen.status, seen.reason or fallback, seen.message)


def _set_up_to_date(conditions: Conditions, observed: Observed) -> None:
    pod = observed.pod
    if pod is None or observed.suspended or pod.metadata.deleting or not is_outdated(observed, pod):
        conditions.drop(CONDITION_POD_UP_TO_DATE)
        return
    conditions.set(
        CONDITION_POD_UP_TO_DATE,
        "False",
        Reason.POD_TEMPLATE_CHANGED,
        "spec.podTemplate.spec was changed; the running Pod still has the former one, because a Pod cannot be changed "
        f'in place. Suspend and resume the sandbox (replicas 0, then 1) or delete Pod "{pod.metadata.name}" to apply '
        "the change",
    )


def _ready(observed: Observed, troubles: Sequence[Trouble]) -> tuple[str, str, str]:
    for trouble in troubles:
        if trouble.reason == Reason.MULTIPLE_PODS:
            return "False", Reason.MULTIPLE_PODS, trouble.message
    if failures := [trouble for trouble in troubles if trouble.reason == Reason.RECONCILER_ERROR]:
        return "False", Reason.RECONCILER_ERROR, "Error seen: " + "\n".join(each.message for each in failures)
    if observed.suspended:
        present = observed.owned_pods or _stranger(observed) is not None
        text = "Sandbox is suspending" if present else _SUSPENDED
        return "False", Reason.SANDBOX_SUSPENDED, text
    if troubles:
        return "False", troubles[0].reason, "; ".join(trouble.message for trouble in troubles)
    return _ready_by_pod(observed)


def _ready_by_pod(observed: Observed) -> tuple[str, str, str]:
    pod = observed.pod
    service = _service_clause(observed)
    if pod is None:
        return "False", Reason.DEPENDENCIES_NOT_READY, "Pod does not exist" + service
    match pod.status.phase:
        case "Succeeded":
            return "False", Reason.POD_SUCCEEDED, "Pod completed successfully"
        case "Failed":
            why = failure_of(pod)
            return "False", Reason.POD_FAILED, f"Pod failed: {why}" if why else "Pod failed"
    reason, message = _pod_state(pod)
    if pod.metadata.deleting and observed.seconds_until_overdue is None:
        message += _overdue(pod)
    if reason == Reason.DEPENDENCIES_READY and observed.wants_service and not has_service(observed):
        reason = Reason.DEPENDENCIES_NOT_READY
    return "True" if reason == Reason.DEPENDENCIES_READY else "False", reason, message + service


def _pod_state(pod: PodView) -> tuple[str, str]:
    """Reason and message for a Pod that has not ended; the reason says Ready if the Pod is."""
    if pod.metadata.deleting:
        return Reason.DEPENDENCIES_NOT_READY, "Pod is terminating"
    running = pod.status.phase == "Running"
    if pod.ready:
        return Reason.DEPENDENCIES_READY, "Pod is Ready"
    if running and is_condition_true(pod.status.conditions, "Ready"):
        return Reason.DEPENDENCIES_NOT_READY, "Pod is Ready but has no podIPs yet"
    text = "Pod is Running but not Ready" if running else f"Pod exists with phase: {pod.status.phase or 'Pending'}"
    problem = container_problem(pod)
    if problem is not None:
        return problem.reason, f"{text}; {problem.message}"
    unplaced = scheduling_problem(pod)
    return Reason.DEPENDENCIES_NOT_READY, f"{text}; not scheduled: {unplaced}" if unplaced else text


def _overdue(pod: PodView) -> str:
    """A second Pod would be a second writer of the volumes: that a node is dead a person must say."""
    node = pod.spec.node_name
    where = f'node "{node}"' if node else "its node"
    return (
        f" since {pod.metadata.deletion_timestamp:%Y-%m-%dT%H:%M:%SZ}, which is long: {where} does not confirm, or a "
        "finalizer holds it. The sandbox goes on when the Pod is gone. If the node is down for good, taint it with "
        f"node.kubernetes.io/out-of-service, or kubectl delete pod {pod.metadata.name} --force"
    )


def has_service(observed: Observed) -> bool:
    """Whether the Sandbox has a Service of its own that stays."""
    service = observed.service
    return (
        service is not None
        and not service.metadata.deleting
        and ownership_of(service.metadata, observed.uid) is Ownership.OWNED
    )


def _service_clause(observed: Observed) -> str:
    if not observed.wants_service:
        return ""
    return "; Service Exists" if has_service(observed) else "; Service does not exist"
