"""Runs a program until the process is asked to end, as a Pod's main program does."""

import signal
from collections.abc import Awaitable, Callable

import anyio
import structlog

from agent_sandbox.runtime.manager import Manager

log = structlog.get_logger(__name__)


async def run_until_signalled(manager: Manager) -> None:
    """Run until SIGTERM or SIGINT, then stop in order; a second signal stops without grace.

    Raises:
        RuntimeFault, OSError: what made the manager end by itself; see ``Manager``.
    """
    await cancel_when_signalled(manager.run)


async def cancel_when_signalled(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main`` until it returns or, with the first SIGTERM or SIGINT, until its cancellation is done.

    Raises:
        Exception: what ``main`` raised, in no group of ours.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_signal, tasks.cancel_scope, name="signals")
        try:
            await main()
        except Exception as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("asked to end", signal=signal.Signals(number).name)
            break
    # The receiver is closed now, so the next signal has its ordinary effect and ends the process at once.
    scope.cancel()
