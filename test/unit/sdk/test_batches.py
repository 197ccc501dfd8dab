"""Work on many items, some of them at a time."""

from collections.abc import Iterator

import anyio
import pytest

from agent_sandbox.sdk.batches import run_batch


async def test_an_error_of_whoever_gives_the_items_leaves_as_it_is_and_ends_the_rest() -> None:
    ended: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    async def work(item: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(item)

    with pytest.raises(ValueError, match="no more"):
        await run_batch(work, items(), at_once=3)
    assert sorted(ended) in ([], [1, 2])  # what has not begun when the others are cancelled never does


async def test_the_first_error_of_a_call_is_the_one_that_is_raised() -> None:
    async def work(item: int) -> None:
        try:
            if item == 1:
                raise ValueError("first")
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            raise RuntimeError("second") from error

    with pytest.raises(ValueError, match="first"):
        await run_batch(work, [0, 1, 2], at_once=3)
