"""Runs a long-lived verb: the fast event loop where it is installed, and a clean end on SIGINT and SIGTERM."""

import importlib.util
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from agent_sandbox.runtime.signals import cancel_when_signalled
from agent_sandbox.signals import arriving_signals
from agent_sandbox.tracing import export_spans


def run_until_signalled(main: Callable[[], Awaitable[None]], *, service: str) -> None:
    """Run `main` until it returns, or until SIGINT or SIGTERM cancels it; a repeated one ends the process at once.

    Args:
        main: the work.
        service: what this process is called in traces, if it exports any.

    Raises:
        Exception: what `main` raised; a group of one is unwrapped, so that callers can name what they catch.
    """
    options: dict[str, Any] = {"use_uvloop": True} if importlib.util.find_spec("uvloop") else {}
    try:
        with arriving_signals(signal.SIGTERM, signal.SIGINT) as arrivals, export_spans(service):
            anyio.run(cancel_when_signalled, main, arrivals, backend_options=options)
    except BaseExceptionGroup as group:
        raise _only_leaf(group) from None


def _only_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
