"""Writes statuses of one kind: only differences, only when they are worth a write, only over the version looked at."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import View
from agent_sandbox_controllers.actions import Writer, perform
from agent_sandbox_controllers.holding import WriteHold
from agent_sandbox_controllers.status import Status, status_change, status_json
from agent_sandbox_controllers.urgency import new_obstacle, readiness_changes, urgency_of


class StatusView(View, Protocol):
    """A view of a kind that has a status."""

    @property
    def status(self) -> msgspec.Struct:
        """Its status."""


S = TypeVar("S", bound=StatusView)


class StatusWriter(Generic[S]):
    """The statuses of one kind whose conditions include Ready."""

    def __init__(
        self,
        client: Writer,
        resource: Resource[S],
        delays: Sequence[float],
        on_obstacle: Callable[[S, str, str], None] | None = None,
    ) -> None:
        """
        Args:
            client: writes.
            resource: the kind.
            delays: how long mere progress is held back; see ``WriteHold``.
            on_obstacle: told of the object, a reason and a message when a written status names a new obstacle.
        """
        self._client = client
        self._resource = resource
        self._on_obstacle = on_obstacle
        self._hold = WriteHold(delays)

    async def write(self, view: S, status: Status, now: float, delays: Sequence[float] = ()) -> float | None:
        """Bring an object's status up to date.

        Args:
            view: the object whose status this was computed from.
            status: as it should be.
            now: the monotonic clock.
            delays: how long mere progress of this object is held back; as for its kind if empty.

        Returns:
            Seconds after which to try again, because the difference is held back; None if there is nothing left to do.

        Raises:
            ConflictError: the object changed since it was looked at.
        """
        uid = view.metadata.uid
        old = status_json(view.status)
        change = status_change(self._resource, view.metadata, old, status)
        if change is None:
            self._hold.settled(uid)
            return None
        wait = self._hold.wait_for(uid, urgency_of(old, status), now, delays)
        if wait > 0:
            return wait
        await perform(self._client, change)
        if self._on_obstacle is not None and (obstacle := new_obstacle(old, status)) is not None:
            self._on_obstacle(view, *obstacle)
        if readiness_changes(old, status):
            self._hold.forget(uid)
        else:
            self._hold.written(uid)
        return None

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._hold.forget(uid)
