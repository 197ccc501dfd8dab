"""Forgets Events after an hour, as Kubernetes does (--event-ttl)."""

from datetime import datetime, timedelta
from typing import Final

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.builtin import EVENTS
from agent_sandbox.local.apiserver.errors import StatusError
from agent_sandbox.local.apiserver.objects import DeleteOptions, Objects, Preconditions
from agent_sandbox.local.apiserver.storage import ObjectStore

EVENT_LIFETIME: Final = timedelta(hours=1)
_SWEEP_SECONDS: Final = 300.0


class EventExpiry:
    """Sweeps old Events now and then."""

    def __init__(self, store: ObjectStore, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self._clock.sleep(_SWEEP_SECONDS)
            await self._sweep()

    async def _sweep(self) -> None:
        oldest = self._clock.now() - EVENT_LIFETIME
        for stored in self._store.objects(EVENTS.bucket):
            if datetime.fromisoformat(stored.metadata["creationTimestamp"]) >= oldest:
                continue
            options = DeleteOptions(preconditions=Preconditions(uid=stored.uid))
            try:
                await self._objects.delete(EVENTS, stored.key.namespace, stored.key.name, options)
            except StatusError:
                # Gone already, or the disk refuses: the next sweep tries again.
                continue
