"""Lets a reconciler be an ordinary function that blocks, in a bounded number of threads."""

from collections.abc import Callable

import anyio
import anyio.to_thread

from agent_sandbox.runtime.reconcile import Request, Result


class ThreadedReconciler:
    """Runs ``function`` in a thread for each reconcile.

    Caveats:
        A thread cannot be cancelled: a reconcile deadline ends only when the function does. It must not touch the
        manager's client or stores, which belong to the event loop; use ``anyio.from_thread.run`` to call back.
    """

    def __init__(self, function: Callable[[Request], Result], *, threads: int = 8) -> None:
        """
        Args:
            function: what is done for a key.
            threads: most threads at once; workers beyond that wait.
        """
        self._function = function
        self._limiter = anyio.CapacityLimiter(threads)

    async def reconcile(self, request: Request) -> Result:
        """Run the function, and wait for it."""
        return await anyio.to_thread.run_sync(self._function, request, limiter=self._limiter)
