"""Work that must not be cut in half, whoever cancels whatever there is."""

import asyncio

import anyio
import pytest

from agent_sandbox.shielding import unbroken


async def work() -> str:
    await asyncio.sleep(0.02)
    with anyio.move_on_after(0.01):  # its own deadlines hold
        await asyncio.sleep(60)
    return "done"


def test_the_end_of_the_loop_waits_for_the_work_of_a_task_that_is_left_over() -> None:
    kept: list[str] = []

    async def main() -> None:
        task = asyncio.create_task(unbroken(work, keep=kept.append))  # noqa: TID251 - what users write
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(main())
    assert kept == ["done"]


async def test_a_program_that_cancels_all_tasks_cancels_the_callers_only() -> None:
    kept: list[str] = []
    caller = asyncio.create_task(unbroken(work, keep=kept.append))  # noqa: TID251 - what users write
    await asyncio.sleep(0.01)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    results = await asyncio.gather(*others, return_exceptions=True)

    assert caller in others
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert kept == ["done"]


async def test_a_deadline_takes_effect_when_the_work_is_done() -> None:
    kept: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await unbroken(work, keep=kept.append)
    with anyio.move_on_after(0.001) as scope:
        await unbroken(work, keep=kept.append)

    assert scope.cancelled_caught
    assert kept == ["done", "done"]


async def test_patience_ends_the_work_of_a_cancelled_caller() -> None:
    kept: list[None] = []
    with anyio.move_on_after(0.001) as scope:
        await unbroken(anyio.sleep_forever, keep=kept.append, patience=0.01)

    assert scope.cancelled_caught
    assert kept == []
