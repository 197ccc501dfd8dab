"""Follows one object until something is true of it: one watch, begun where the last write ended, and nothing polled.

In: an object as it was last seen and a decision about it. Out: what was decided, or the reason why it never will be.
"""

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

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
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import SandboxGoneError, SandboxReadyTimeoutError
from agent_sandbox_api.names import CONDITION_READY
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, MetaView, find_condition

_WATCH_SECONDS: Final = 30
"""How long one watch lasts; short, because a network that died under it is only noticed behind its end."""

_LATE_SECONDS: Final = 10.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class _Conditioned(Protocol):
    @property
    def conditions(self) -> tuple[ConditionView, ...]: ...


class _Followed(Protocol):
    @property
    def metadata(self) -> MetaView: ...
    @property
    def status(self) -> _Conditioned: ...


F = TypeVar("F", bound=_Followed)
T = TypeVar("T")


async def follow_until(
    kube: KubeClient, resource: Resource[F], seen: F, decide: Callable[[F], T | None], *, timeout: float, goal: str
) -> T:
    """Follow an object until ``decide`` gives something.

    Args:
        kube: where it lives.
        resource: its kind.
        seen: the object as it was last seen.
        decide: None to go on waiting; it may also raise.
        timeout: seconds.
        goal: the state that is waited for, in the words of the error: "did not become ready".

    Raises:
        SandboxReadyTimeoutError: it took too long; the error carries the last Ready condition.
        SandboxGoneError: somebody deleted the object.
        SandboxError: the API server refuses.
    """
    follower = _Follower(kube, resource, seen)
    with anyio.move_on_after(timeout):
        return await follower.until(decide)
    ready = find_condition(follower.seen.status.conditions, CONDITION_READY)
    last = f"its last condition is {ready.reason}: {ready.message}" if ready else "no controller has looked at it"
    raise SandboxReadyTimeoutError(
        f"{follower.name} did not become {goal} within {timeout:g} s; {last}",
        reason=ready.reason if ready else "",
        condition_message=ready.message if ready else "",
    )


class _Follower(Generic[F]):
    """One watch on one object, opened again when it ends, that keeps the newest state seen."""

    def __init__(self, kube: KubeClient, resource: Resource[F], seen: F) -> None:
        self.seen = seen
        self.name = f"{resource.kind} {seen.metadata.namespace}/{seen.metadata.name}"
        self._kube = kube
        self._resource = resource
        self._resource_version = seen.metadata.resource_version
        self._pause = _FIRST_PAUSE

    async def until(self, decide: Callable[[F], T | None]) -> T:
        """What is decided as soon as it is; waits for ever."""
        decided = decide(self.seen)
        while decided is None:
            try:
                decided = await self._watch(decide)
            except (GoneError, TransportError, ServerError, TooManyRequestsError) as error:
                # 410: the resourceVersion is too old. The rest: the API server is away. Look at the object anew.
                if not isinstance(error, GoneError):
                    await anyio.sleep(self._pause)
                    self._pause = min(self._pause * 2, _LONGEST_PAUSE)
                await self._read()
                decided = decide(self.seen)
            except KubeError as error:
                raise explain(error, f"watching {self.name}") from error
        return decided

    async def _watch(self, decide: Callable[[F], T | None]) -> T | None:
        """Follow until it is decided, or (None) until the server ends the watch."""
        meta = self.seen.metadata
        async with self._kube.watch(
            self._resource,
            meta.namespace,
            resource_version=self._resource_version,
            field_selector=f"metadata.name={meta.name}",
            timeout_seconds=_WATCH_SECONDS,
            read_timeout=_WATCH_SECONDS + _LATE_SECONDS,
        ) as events:
            async for event in events:
                self._resource_version = event.resource_version or self._resource_version
                self._pause = _FIRST_PAUSE
                if event.view is None:
                    continue
                self._accept(event.view, deleted=event.type == "DELETED")
                if (decided := decide(self.seen)) is not None:
                    return decided
        return None

    async def _read(self) -> None:
        meta = self.seen.metadata
        try:
            current = await self._kube.get(self._resource, meta.name, meta.namespace)
        except NotFoundError as error:
            raise self._gone() from error
        except (TransportError, ServerError, TooManyRequestsError):
            return  # the next watch fails likewise and comes back here
        except KubeError as error:
            raise explain(error, f"reading {self.name}") from error
        self._resource_version = current.metadata.resource_version
        self._accept(current, deleted=False)

    def _accept(self, current: F, *, deleted: bool) -> None:
        if deleted or current.metadata.uid != self.seen.metadata.uid:
            raise self._gone()
        self.seen = current

    def _gone(self) -> SandboxGoneError:
        return SandboxGoneError(f"{self.name} was deleted while it was waited for")
