"""Blocking work in a thread that is always waited for.

A web server cancels a handler when its client goes away, in the middle of whatever it awaits. If the handler then
closed a file that a thread still writes to, the bytes could land in another file that got the same descriptor. So here
a cancellation is obeyed only once the thread is done.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread and give its result.

    Raises:
        asyncio.CancelledError: cancelled meanwhile; the call has ended, its result is dropped.
    """
    return await in_thread_or_undo(partial(function, *args, **kwargs), None)


async def in_thread_or_undo(function: Callable[[], T], undo: Callable[[T], None] | None) -> T:
    """As `in_thread`; `undo` gets the result of a successful call whose caller was cancelled meanwhile."""
    call = asyncio.get_running_loop().run_in_executor(None, function)
    cancelled: asyncio.CancelledError | None = None
    # The scope keeps anyio's cancellations away; the loop bears asyncio's own.
    with anyio.CancelScope(shield=True):
        while not call.done():
            try:
                await asyncio.shield(call)
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception:
                break
    if cancelled is None:
        return call.result()
    if call.exception() is None and undo is not None:
        undo(call.result())
    raise cancelled
