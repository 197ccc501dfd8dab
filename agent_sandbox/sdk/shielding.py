"""Work that no cancellation may cut in half, and helpers that run beside a block of the user's."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


@asynccontextmanager
async def background_tasks() -> AsyncIterator[TaskGroup]:
    """A task group for helpers of a block of the user's: they are cancelled at its end.

    An error of the block leaves as it is; a bare task group would wrap it in an ExceptionGroup, which ``except``
    clauses written for the error itself do not catch. The helpers must not raise.
    """
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except BaseException as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def unbroken(
    work: Callable[[], Awaitable[T]], *, keep: Callable[[T], None] | None = None, patience: float = math.inf
) -> T:
    """Run the work to its end, then let a cancellation that came meanwhile take effect.

    A shielded scope alone stops only anyio's cancellation; ``Task.cancel()`` (``asyncio.timeout``, Ctrl-C under
    ``asyncio.run``) goes through it. A child task of its own is reached by neither.

    Args:
        work: what to do; bound it yourself.
        keep: gets the result even if the caller is being cancelled and so never sees a return value.
        patience: seconds that the work may go on once the caller is cancelled; then it is cancelled, too.

    Raises:
        Exception: whatever the work raised.
    """
    results: list[T] = []
    failures: list[Exception] = []
    done = anyio.Event()
    shield = anyio.CancelScope(shield=True)

    async def run() -> None:
        with shield:
            try:
                result = await work()
                results.append(result)
                if keep is not None:
                    keep(result)
            except Exception as error:
                failures.append(error)
            finally:
                done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, name="unbroken work")
        try:
            await done.wait()
        except BaseException:
            shield.deadline = anyio.current_time() + patience
            raise
    if failures:
        raise failures[0]
    return results[0]
