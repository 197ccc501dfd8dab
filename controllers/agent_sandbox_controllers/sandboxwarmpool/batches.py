"""Does many writes at once, starting slowly: if the first fails, hundreds of others are not tried in vain."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import anyio

T = TypeVar("T")

LARGEST: Final = 32
"""Writes at once: about half of the connections to the API server, so that a claim's write never queues behind a
refill's hundreds."""


async def in_batches(items: Sequence[T], write: Callable[[T], Awaitable[None]]) -> tuple[int, Exception | None]:
    """Write items in batches of 1, 2, 4, ... ``LARGEST``; stop after the first batch in which one failed.

    Returns:
        How many succeeded, and the first failure.
    """
    done, position, size = 0, 0, 1
    while position < len(items):
        batch = items[position : position + size]
        failures: list[Exception] = []

        async def attempt(item: T, failures: list[Exception] = failures) -> None:
            try:
                await write(item)
            except Exception as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            for item in batch:
                tasks.start_soon(attempt, item)
        done += len(batch) - len(failures)
        if failures:
            return done, failures[0]
        position += size
        size = min(2 * size, LARGEST)
    return done, None
