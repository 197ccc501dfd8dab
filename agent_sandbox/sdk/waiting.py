"""Waits until a Sandbox is as it should be: one watch, begun where the last write ended."""

from collections.abc import Callable

from agent_sandbox.kube import KubeClient
from agent_sandbox.sdk.claims import POD_FAILURE_REASONS
from agent_sandbox.sdk.errors import SandboxPodFailedError
from agent_sandbox.sdk.following import follow_until
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.names import CONDITION_READY, CONDITION_SUSPENDED
from agent_sandbox_api.views import find_condition


def is_ready_now(sandbox: SandboxView) -> bool:
    """True if the Ready condition holds for the spec as it is.

    Raises:
        SandboxPodFailedError: it never will.
    """
    ready = find_condition(sandbox.status.conditions, CONDITION_READY)
    if ready is None or ready.observed_generation not in {None, sandbox.metadata.generation}:
        return False
    if ready.status != "True" and ready.reason in POD_FAILURE_REASONS:
        raise SandboxPodFailedError(
            f"Sandbox {sandbox.metadata.namespace}/{sandbox.metadata.name} cannot become ready: "
            f"{ready.reason}: {ready.message}",
            reason=ready.reason,
            condition_message=ready.message,
        )
    return ready.status == "True"


def is_suspended_now(sandbox: SandboxView) -> bool:
    """True if the Suspended condition holds for the spec as it is: the Pod is gone."""
    suspended = find_condition(sandbox.status.conditions, CONDITION_SUSPENDED)
    return (
        suspended is not None
        and suspended.status == "True"
        and suspended.observed_generation in {None, sandbox.metadata.generation}
    )


async def wait_for_sandbox(
    kube: KubeClient, sandbox: SandboxView, reached: Callable[[SandboxView], bool], *, timeout: float, goal: str
) -> SandboxView:
    """Follow a Sandbox until ``reached`` is true of it.

    Args:
        kube: where it lives.
        sandbox: as it was last seen.
        reached: may also raise.
        timeout: seconds.
        goal: the word for it in the error's message.

    Raises:
        SandboxReadyTimeoutError: it took too long; the error carries the last Ready condition.
        SandboxGoneError: the Sandbox was deleted.
    """
    return await follow_until(
        kube, SANDBOXES, sandbox, lambda seen: seen if reached(seen) else None, timeout=timeout, goal=goal
    )
