"""Waits until a Sandbox is as it should be: one watch, begun where the last write ended."""

from collections.abc import Callable
from typing import Final

import anyio

from agent_sandbox.kube import (
    GoneError,
    KubeClient,
    KubeError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    TransportError,
)
from agent_sandbox.sdk.claims import POD_FAILURE_REASONS, explain
from agent_sandbox.sdk.errors import SandboxGoneError, SandboxPodFailedError, SandboxReadyTimeoutError
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.names import CONDITION_READY, CONDITION_SUSPENDED
from agent_sandbox_api.views import find_condition

_WATCH_SECONDS: Final = 240
_PAUSE: Final = 0.5


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
    follower = _Follower(kube, sandbox)
    with anyio.move_on_after(timeout):
        return await follower.until(reached)
    ready = find_condition(follower.seen.status.conditions, CONDITION_READY)
    last = f"its last condition is {ready.reason}: {ready.message}" if ready else "no controller has looked at it"
    raise SandboxReadyTimeoutError(
        f"{follower.name} was not {goal} within {timeout:g} s; {last}",
        reason=ready.reason if ready else "",
        condition_message=ready.message if ready else "",
    )


class _Follower:
    def __init__(self, kube: KubeClient, sandbox: SandboxView) -> None:
        self.seen = sandbox
        self.name = f"Sandbox {sandbox.metadata.namespace}/{sandbox.metadata.name}"
        self._kube = kube
        self._resource_version = sandbox.metadata.resource_version

    async def until(self, reached: Callable[[SandboxView], bool]) -> SandboxView:
        while not reached(self.seen):
            try:
                await self._watch(reached)
            except (GoneError, TransportError, ServerError, TooManyRequestsError):
                await anyio.sleep(_PAUSE)
                await self._read()
            except KubeError as error:
                raise explain(error, f"watching {self.name}") from error
        return self.seen

    async def _watch(self, reached: Callable[[SandboxView], bool]) -> None:
        meta = self.seen.metadata
        async with self._kube.watch(
            SANDBOXES,
            meta.namespace,
            resource_version=self._resource_version,
            field_selector=f"metadata.name={meta.name}",
            timeout_seconds=_WATCH_SECONDS,
            read_timeout=_WATCH_SECONDS + 30.0,
        ) as events:
            async for event in events:
                self._resource_version = event.resource_version or self._resource_version
                if event.view is not None:
                    self._accept(event.view, deleted=event.type == "DELETED")
                    if reached(self.seen):
                        return

    async def _read(self) -> None:
        meta = self.seen.metadata
        try:
            sandbox = await self._kube.get(SANDBOXES, meta.name, meta.namespace)
        except NotFoundError as error:
            raise SandboxGoneError(f"{self.name} does not exist any more") from error
        except (TransportError, ServerError, TooManyRequestsError):
            return  # the next watch fails likewise and comes back here
        except KubeError as error:
            raise explain(error, f"reading {self.name}") from error
        self._resource_version = sandbox.metadata.resource_version
        self._accept(sandbox, deleted=False)

    def _accept(self, sandbox: SandboxView, *, deleted: bool) -> None:
        if deleted or sandbox.metadata.uid != self.seen.metadata.uid:
            raise SandboxGoneError(f"{self.name} does not exist any more")
        self.seen = sandbox
