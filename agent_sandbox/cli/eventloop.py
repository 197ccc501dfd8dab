"""Runs a long-lived process: the fast event loop where it is installed, and a clean end on SIGINT and SIGTERM."""

import importlib.util
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import structlog

log = structlog.get_logger(__name__)


def run_until_signalled(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` until it returns, or until SIGINT or SIGTERM cancels it; a second signal has its usual effect.

    Raises:
        Exception: what `main` raised; a group of one is unwrapped, so that callers can name what they catch.
    """
    options: dict[str, Any] = {"use_uvloop": True} if importlib.util.find_spec("uvloop") else {}
    try:
        anyio.run(_main_with_signals, main, backend_options=options)
    except BaseExceptionGroup as group:
        raise _only_leaf(group) from None


def _only_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _main_with_signals(main: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_on_signal, group.cancel_scope, name="signals")
        await main()
        group.cancel_scope.cancel()


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for received in signals:
            log.info("stopping", signal=received.name)
            scope.cancel()
            return
