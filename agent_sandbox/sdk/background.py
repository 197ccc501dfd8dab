"""Helpers that run beside a block of the user's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


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
