"""Does one thing for many items, some of them at a time."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

Item = TypeVar("Item")


async def run_batch(do: Callable[[Item], Awaitable[None]], items: Iterable[Item], *, at_once: int) -> None:
    """Call ``do`` for each item, never more than ``at_once`` at a time. An item is taken when a place is free.

    Raises:
        ValueError: ``at_once`` is less than one.
        Exception: the first that a call, or the giving of items, raised; the others were cancelled and have ended.
    """
    if at_once < 1:
        raise ValueError(f"at_once is {at_once}, but at least one must be allowed")
    places = anyio.Semaphore(at_once)
    failures: list[Exception] = []

    async def one(item: Item) -> None:
        try:
            await do(item)
        except Exception as error:
            failures.append(error)
            tasks.cancel_scope.cancel()
        finally:
            places.release()

    async with anyio.create_task_group() as tasks:
        try:
            for item in items:
                await places.acquire()
                tasks.start_soon(one, item)
        except Exception as error:
            failures.append(error)
            tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
