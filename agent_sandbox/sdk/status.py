"""Reads claims and Sandboxes as their owner wants to hear of them: pure."""

from datetime import datetime
from typing import Any

from agent_sandbox.sdk.claims import POD_FAILURE_REASONS, REFUSED_REASONS
from agent_sandbox.sdk.results import SandboxInfo, SandboxState, SandboxStatus
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaimView
from agent_sandbox_api.names import CONDITION_READY
from agent_sandbox_api.views import find_condition, raw_object

_HOPELESS = REFUSED_REASONS | POD_FAILURE_REASONS | {"TemplateNotFound", "WarmPoolNotFound"}


def status_of(claim: SandboxClaimView) -> SandboxStatus:
    """What a claim says of its sandbox now."""
    ready = find_condition(claim.status.conditions, CONDITION_READY)
    bound = claim.status.sandbox
    return SandboxStatus(
        state=_state(claim),
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
        pod_ips=bound.pod_ips if bound else (),
        created=claim.metadata.creation_timestamp,
        expires=expiry_of(claim),
    )


def _state(claim: SandboxClaimView) -> SandboxState:
    ready = find_condition(claim.status.conditions, CONDITION_READY)
    if claim.metadata.deleting:
        return "Deleting"
    if ready is None:
        return "Pending"
    if ready.status == "True":
        return "Ready"
    if ready.reason == "SandboxSuspended":
        return "Suspended"
    return "Failed" if ready.reason in _HOPELESS else "Pending"


def info_of(claim: SandboxClaimView) -> SandboxInfo:
    """One line of a listing."""
    template: dict[str, Any] = raw_object(claim.spec).get("sandboxTemplateRef") or {}
    return SandboxInfo(
        claim_name=claim.metadata.name,
        namespace=claim.metadata.namespace,
        template_name=template.get("name", ""),
        sandbox_name=bound_name(claim) or "",
        status=status_of(claim),
        labels=dict(claim.metadata.labels),
    )


def bound_name(claim: SandboxClaimView) -> str | None:
    """Name of the Sandbox that the claim holds, or None."""
    return claim.status.sandbox_name or (claim.status.sandbox.name if claim.status.sandbox else None)


def expiry_of(claim: SandboxClaimView) -> datetime | None:
    """When the claim ends, or None if never."""
    lifecycle: dict[str, Any] = raw_object(claim.spec).get("lifecycle") or {}
    text = lifecycle.get("shutdownTime")
    return datetime.fromisoformat(text) if isinstance(text, str) else None
