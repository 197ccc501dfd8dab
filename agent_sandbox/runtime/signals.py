"""Runs a program until the process is asked to end, as a Pod's main program does."""

import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import structlog

from agent_sandbox.runtime.manager import Manager
from agent_sandbox.signals import Arrivals, arriving_signals

log = structlog.get_logger(__name__)


async def run_until_signalled(manager: Manager) -> None:
    """Run until SIGTERM or SIGINT, then stop in order.

    An echo of the signal, within a second, changes nothing; a later one ends the process without grace.

    Raises:
        RuntimeFault, OSError: what made the manager end by itself; see ``Manager``.
    """
    with arriving_signals(signal.SIGTERM, signal.SIGINT) as arrivals:
        await cancel_when_signalled(manager.run, arrivals)


async def cancel_when_signalled(main: Callable[[], Awaitable[None]], arrivals: Arrivals) -> None:
    """Run ``main`` until it returns or, with the first signal, until its cancellation is done.

    Raises:
        Exception: what ``main`` raised, in no group of ours.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_signal, tasks.cancel_scope, arrivals, name="signals")
        try:
            await main()
        except Exception as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_on_signal(scope: anyio.CancelScope, arrivals: Arrivals) -> None:
    async with aclosing(arrivals.each()) as signals:
        async for number in signals:
            arrivals.end()
            log.info("asked to end", signal=number.name)
            scope.cancel()
            return
