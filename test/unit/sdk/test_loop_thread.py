"""The loop behind the synchronous classes: results, errors, interruptions, callbacks, forks."""

import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from agent_sandbox.sdk import SandboxNotReadyError
from agent_sandbox.sdk.loop_thread import LoopThread, shared_loop


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


def interrupt_soon() -> None:
    """Press Ctrl-C while the main thread waits."""
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_results_and_errors_come_back_to_the_caller(loop: LoopThread) -> None:
    async def work(value: int) -> float:
        await anyio.lowlevel.checkpoint()
        return 1 / value

    assert loop.run(lambda _: work(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        loop.run(lambda _: work(0))


def test_an_interruption_waits_for_the_clean_up(loop: LoopThread) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            steps.append("begun")
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            steps.append("cleaned up")

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        loop.run(lambda _: work())
    assert steps == ["begun", "cleaned up"]


def test_what_goes_wrong_while_cleaning_up_is_a_note_on_the_interruption(loop: LoopThread) -> None:
    async def work() -> None:
        try:
            await anyio.sleep(60)
        finally:
            raise ValueError("the claim still exists")

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt) as caught:
        loop.run(lambda _: work())
    assert caught.value.__notes__ == ["Besides, the claim still exists"]


def test_a_second_interruption_does_not_wait(loop: LoopThread) -> None:
    release = threading.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            interrupt_soon()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(release.wait)

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        loop.run(lambda _: work())
    assert not release.is_set(), "nobody let it end"
    release.set()


def test_a_hosted_manager_lives_in_one_task_and_sees_why_it_is_left(loop: LoopThread) -> None:
    tasks: list[int] = []
    reasons: list[BaseException | None] = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        tasks.append(anyio.get_current_task().id)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                yield "value"
                group.cancel_scope.cancel()
        except BaseException as error:
            reasons.append(error)
            raise
        finally:
            tasks.append(anyio.get_current_task().id)

    hosted = loop.host(manager())
    assert hosted.enter() == "value"
    hosted.leave(None)
    failing = loop.host(manager())
    failing.enter()
    failing.leave(ZeroDivisionError("why"))

    assert tasks[0] == tasks[1]
    assert tasks[2] == tasks[3]
    assert len(reasons) == 1


def test_an_error_on_leaving_is_raised_only_if_there_is_no_other(loop: LoopThread) -> None:
    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise ValueError("cannot leave")

    hosted = loop.host(manager())
    hosted.enter()
    with pytest.raises(ValueError, match="cannot leave"):
        hosted.leave(None)
    other = loop.host(manager())
    other.enter()
    other.leave(KeyError("the user's"))


def test_an_interruption_while_entering_leaves_again(loop: LoopThread) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        try:
            await anyio.sleep(60)
            yield
        finally:
            steps.append("left")

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        loop.host(manager()).enter()
    assert steps == ["left"]


def test_callbacks_run_in_the_waiting_thread_and_may_use_the_loop(loop: LoopThread) -> None:
    def callback(value: int) -> int:
        assert threading.current_thread() is threading.main_thread()

        async def nested() -> int:
            return value * 2

        return loop.run(lambda _: nested())

    assert loop.run(lambda job: job.callback(callback)(21)) == 42


def test_items_are_iterated_and_an_abandoned_iteration_is_closed(loop: LoopThread) -> None:
    closed: list[bool] = []

    async def items() -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            closed.append(True)

    assert list(loop.iterate(items())) == [0, 1, 2]
    with contextlib.closing(loop.iterate(items())) as some:
        assert next(some) == 0
    assert closed == [True, True]


def test_the_loop_is_not_waited_for_from_inside_itself(loop: LoopThread) -> None:
    async def inside() -> None:
        loop.run(lambda _: anyio.lowlevel.checkpoint())

    with pytest.raises(SandboxNotReadyError, match="inside the event loop"):
        loop.run(lambda _: inside())


def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    async def answer() -> int:
        return 42

    assert shared_loop().run(lambda _: answer()) == 42
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(shared_loop().run(lambda _: answer())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)

    assert os.read(reader, 10) == b"42"
    os.close(reader)
