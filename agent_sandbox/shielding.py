"""Work that no cancellation may cut in half."""

import asyncio
import math
from asyncio import _register_task, _unregister_task  # documented, under "Extending"
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def unbroken(
    work: Callable[[], Awaitable[T]], *, keep: Callable[[T], None] | None = None, patience: float = math.inf
) -> T:
    """Run the work to its end, then let a cancellation that came meanwhile take effect.

    A shielded scope alone stops only anyio's cancellation; ``Task.cancel()`` (``asyncio.timeout``, Ctrl-C under
    ``asyncio.run``) goes through it. So the work has a task of its own, and one that ``asyncio.all_tasks`` does not
    show: the end of ``asyncio.run``, and many a program's own shutdown, cancel every task that they find there.
    They find this one's caller, which waits for it.

    Args:
        work: what to do; bound it yourself.
        keep: gets the result even if the caller is being cancelled and so never sees a return value.
        patience: seconds that the work may go on once the caller is cancelled; then it is cancelled, too.

    Raises:
        Exception: whatever the work raised.
    """
    shield = anyio.CancelScope(shield=True)
    results: list[T] = []

    async def run() -> None:
        with shield:
            result = await work()
            results.append(result)
            if keep is not None:
                keep(result)

    task = asyncio.get_running_loop().create_task(run(), name="unbroken work")
    _unregister_task(task)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            with anyio.CancelScope(shield=interruption is not None):
                await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if interruption is None:
                interruption = error
                shield.deadline = anyio.current_time() + patience
        except BaseException:
            _register_task(task)  # raised by a signal handler: whoever ends the loop ends the work
            raise
    if interruption is not None:
        if not task.cancelled():
            task.exception()  # seen: the cancellation goes first
        raise interruption
    task.result()
    return results[0]
