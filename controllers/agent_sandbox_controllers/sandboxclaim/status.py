"""The status of a claim: its Sandbox's state under the claim's own generation and transition times."""

from collections.abc import Sequence

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.extensions.v1alpha1 import ClaimShutdownPolicy, SandboxClaim
from agent_sandbox_api.names import CONDITION_FINISHED, CONDITION_READY
from agent_sandbox_api.views import ConditionView, find_condition
from agent_sandbox_controllers.conditions import Conditions
from agent_sandbox_controllers.sandboxclaim.observed import ClaimObserved
from agent_sandbox_controllers.status import Status
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason

CONDITION_METADATA_APPLIED = "MetadataApplied"
"""On a claim, present only while False: its Pod metadata was changed to something that cannot be applied."""


def bound_status(observed: ClaimObserved, sandbox: SandboxView, unapplied: Trouble | None) -> Status:
    """The status of a claim that has its Sandbox.

    Args:
        observed: the claim.
        sandbox: its Sandbox.
        unapplied: why a later change of the claim's metadata is not applied; the Sandbox works on regardless.
    """
    conditions = _start(observed)
    conditions.set(CONDITION_READY, *_mirrored_ready(sandbox))
    finished = find_condition(sandbox.status.conditions, CONDITION_FINISHED)
    if finished is None:
        conditions.drop(CONDITION_FINISHED)
    else:
        conditions.put(finished)
    if unapplied is None:
        conditions.drop(CONDITION_METADATA_APPLIED)
    else:
        conditions.set(CONDITION_METADATA_APPLIED, "False", unapplied.reason, unapplied.message)
    return {"conditions": conditions.to_json(), **_binding(sandbox.metadata.name, sandbox.status.pod_ips)}


def _mirrored_ready(sandbox: SandboxView) -> tuple[str, str, str]:
    name = sandbox.metadata.name
    if sandbox.metadata.deleting:
        return "False", Reason.SANDBOX_NOT_READY, f'Sandbox "{name}" is being deleted'
    ready: ConditionView | None = find_condition(sandbox.status.conditions, CONDITION_READY)
    if ready is None:
        return "False", Reason.SANDBOX_NOT_READY, "Sandbox is not ready"
    if ready.reason == Reason.SANDBOX_EXPIRED:
        text = "Underlying Sandbox resource has expired independently of the Claim."
        return "False", Reason.SANDBOX_EXPIRED, text
    return ready.status, ready.reason, ready.message


def refused_status(observed: ClaimObserved, trouble: Trouble) -> Status:
    """The status of a claim without a Sandbox: what stands in the way."""
    conditions = _start(observed)
    conditions.set(CONDITION_READY, "False", trouble.reason, trouble.message)
    return {"conditions": conditions.to_json(), **_kept_binding(observed)}


def vanished_status(observed: ClaimObserved, name: str) -> Status:
    """The status of a claim whose Sandbox is gone. The name stays on record, so that no other takes its place."""
    conditions = _start(observed)
    conditions.set(
        CONDITION_READY,
        "False",
        Reason.SANDBOX_MISSING,
        f'Sandbox does not exist: "{name}", which this claim had, was deleted with its state; delete the claim and '
        "make a new one",
    )
    return {"conditions": conditions.to_json(), **_binding(name, ())}


def expired_status(observed: ClaimObserved, *, done: bool, foreign: str | None = None) -> Status:
    """The status of an expired claim.

    Args:
        observed: the claim.
        done: whether its Sandbox is gone, so that the claim no longer names it.
        foreign: the name of a Sandbox on record that is not the claim's to delete.
    """
    conditions = _start(observed)
    text = (
        "Claim expired. Sandbox cleanup initiated. Its state is gone: make a new claim, or extend spec.lifecycle to "
        "get a new, empty sandbox under this one"
    )
    if foreign is not None:
        claim = observed.view.metadata.name
        text = (
            f'Claim expired. sandbox not owned by this claim: sandbox "{foreign}" is not owned by claim "{claim}"; '
            "deletion skipped."
        )
    conditions.set(CONDITION_READY, "False", Reason.CLAIM_EXPIRED, text)
    conditions.drop(CONDITION_METADATA_APPLIED)
    return {"conditions": conditions.to_json(), **({} if done else _kept_binding(observed))}


def is_marked_expired(observed: ClaimObserved) -> bool:
    """Whether an earlier pass has already told everybody that the claim expired."""
    ready = find_condition(observed.view.status.conditions, CONDITION_READY)
    return ready is not None and ready.reason == Reason.CLAIM_EXPIRED


def deletes_itself(claim: SandboxClaim) -> bool:
    """Whether the expired claim goes, instead of staying as a record."""
    lifecycle = claim.spec.lifecycle
    return lifecycle is not None and lifecycle.shutdown_policy in (
        ClaimShutdownPolicy.DELETE,
        ClaimShutdownPolicy.DELETE_FOREGROUND,
    )


def _start(observed: ClaimObserved) -> Conditions:
    meta = observed.view.metadata
    return Conditions(observed.view.status.conditions, generation=meta.generation, now=observed.now)


def _binding(name: str, addresses: Sequence[str]) -> Status:
    sandbox: Status = {"name": name}
    if addresses:
        sandbox["podIPs"] = list(addresses)
    return {"sandboxName": name, "sandbox": sandbox}


def _kept_binding(observed: ClaimObserved) -> Status:
    name = observed.recorded_name
    if name is None:
        return {}
    recorded = observed.view.status.sandbox
    return _binding(name, recorded.pod_ips if recorded else ())
