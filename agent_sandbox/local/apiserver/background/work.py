"""A worker that handles keys: each once at a time, again after a pause if it failed."""

from collections.abc import Awaitable, Callable

import anyio
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.errors import StatusError
from agent_sandbox.local.apiserver.storage import Key

_RETRY_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class KeyWorker:
    """Calls ``handle`` for every key that was added, in order, without doubles."""

    def __init__(self, name: str, handle: Callable[[Key], Awaitable[None]], clock: Clock) -> None:
        self._name = name
        self._handle = handle
        self._clock = clock
        self._keys: dict[Key, None] = {}
        self._added = anyio.Event()

    def add(self, key: Key) -> None:
        """Have a key handled soon."""
        self._keys[key] = None
        self._added.set()

    async def run(self) -> None:
        """Handle keys until cancelled."""
        while True:
            await self._added.wait()
            self._added = anyio.Event()
            failed = await self._handle_all()
            if failed:
                await self._clock.sleep(_RETRY_SECONDS)
                for key in failed:
                    self.add(key)

    async def _handle_all(self) -> list[Key]:
        failed = []
        while self._keys:
            key = next(iter(self._keys))
            del self._keys[key]
            try:
                await self._handle(key)
            except StatusError as error:
                _log.warning("background work failed and is tried again", worker=self._name, key=key, error=str(error))
                failed.append(key)
        return failed
