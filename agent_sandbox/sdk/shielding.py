"""Work that no cancellation may cut in half."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def unbroken(work: Callable[[], Awaitable[T]], *, keep: Callable[[T], None] | None = None) -> T:
    """Run the work to its end, then let a cancellation that came meanwhile take effect.

    A shielded scope alone stops only anyio's cancellation; ``Task.cancel()`` (``asyncio.timeout``, Ctrl-C under
    ``asyncio.run``) goes through it. A child task of its own is reached by neither.

    Args:
        work: what to do; bound it yourself.
        keep: gets the result even if the caller is being cancelled and so never sees a return value.

    Raises:
        Exception: whatever the work raised.
    """
    results: list[T] = []
    failures: list[Exception] = []

    async def run() -> None:
        with anyio.CancelScope(shield=True):
            try:
                result = await work()
            except Exception as error:
                failures.append(error)
                return
        results.append(result)
        if keep is not None:
            keep(result)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, name="unbroken work")
    if failures:
        raise failures[0]
    return results[0]
