"""Hands accepted connections to tasks.

asyncio tells of a connection in a callback between tasks. There anyio need not know which event loop runs (it does not
under ``asyncio.run`` where sniffio is installed), so the callback only puts the connection down and a task takes it up.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from agent_sandbox.router.wire import Wire


class Accepted:
    """Connections that wait for their task, for a moment."""

    def __init__(self) -> None:
        self._wires: asyncio.Queue[Wire] = asyncio.Queue()

    def put(self, wire: Wire) -> None:
        """Take a connection; for callbacks."""
        self._wires.put_nowait(wire)

    async def serve(self, serve: Callable[[Wire], Coroutine[Any, Any, None]]) -> None:
        """Serve each in a task of its own, until cancelled; what was not begun by then is reset."""
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    wire = await self._wires.get()
                    tasks.start_soon(serve, wire, name=f"client {wire.peer}")
        finally:
            while not self._wires.empty():
                self._wires.get_nowait().abort()
