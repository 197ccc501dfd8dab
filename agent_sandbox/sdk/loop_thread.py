"""The event loop behind the synchronous classes: one daemon thread, shared by all of them in this process.

In: coroutine functions, from any thread. Out: their results, in the thread that asked. Ctrl-C in the asking thread
cancels the work in the loop and waits for its clean-up, so what an ``async with`` would delete is deleted here too.
"""

import os
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal

from agent_sandbox.sdk.errors import SandboxNotReadyError
from agent_sandbox.sdk.signals import termination_guard

T = TypeVar("T")

CLEANUP_SECONDS: Final = 20.0
"""How long an interrupted caller waits for the clean-up; a second Ctrl-C ends the wait."""


class _CancelledWorkError(Exception):
    """The work was cancelled; carries the notes that its clean-up left on the cancellation."""

    def __init__(self, notes: tuple[str, ...] = ()) -> None:
        super().__init__("cancelled")
        self.notes = notes


@dataclass(frozen=True)
class _Outcome:
    result: Any = None
    error: Exception | None = None

    def unwrap(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


@dataclass(frozen=True)
class _Callback:
    """A call that the work wants made in the caller's thread, because the user's function may block."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    reply: Callable[[_Outcome], None]


class Job(Generic[T]):
    """One piece of work in the loop, and the thread that waits for it."""

    def __init__(self, portal: BlockingPortal, work: Callable[["Job[T]"], Awaitable[T]]) -> None:
        self._portal = portal
        self._work = work
        self._inbox: queue.SimpleQueue[_Outcome | _Callback] = queue.SimpleQueue()
        # Set by the loop before the outcome goes out: an interruption may hit this thread when it has just taken it.
        self._over = False
        # Touched in the loop only.
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    def wait(self) -> T:
        """Run the work and return its result; an interruption cancels it and waits until it has cleaned up."""
        with termination_guard.blocking_call():
            try:
                self._portal.start_task_soon(self._run)
                return self._receive(None)
            except BaseException as error:
                if not self._over:
                    self._portal.start_task_soon(self._cancel)
                    self._drain(error)
                raise

    def callback(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """An async function that calls ``function`` in the waiting thread; the loop goes on meanwhile."""

        async def call_in_waiting_thread(*arguments: Any) -> Any:
            done = anyio.Event()
            outcomes: list[_Outcome] = []

            def reply(outcome: _Outcome) -> None:
                outcomes.append(outcome)
                self._portal.start_task_soon(done.set)

            self._inbox.put(_Callback(function, arguments, reply))
            await done.wait()
            return outcomes[0].unwrap()

        return call_in_waiting_thread

    def _receive(self, timeout: float | None) -> T:
        while True:
            message = self._inbox.get(timeout=timeout)
            if isinstance(message, _Outcome):
                result: T = message.unwrap()
                return result
            message.reply(_outcome_of(message))

    def _drain(self, interruption: BaseException) -> None:
        """Wait for the end of cancelled work; what else goes wrong becomes a note on the interruption."""
        try:
            self._receive(CLEANUP_SECONDS)
        except queue.Empty:
            interruption.add_note(f"Besides, the clean-up took longer than {CLEANUP_SECONDS:g} s: it may be incomplete")
        except _CancelledWorkError as error:
            for note in error.notes:
                interruption.add_note(note)
        except Exception as error:
            interruption.add_note(f"Besides, {error}")

    async def _run(self) -> None:
        outcome = _Outcome(error=_CancelledWorkError())
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self._cancelled:
                    return
                try:
                    outcome = _Outcome(await self._work(self))
                except Exception as error:
                    outcome = _Outcome(error=error)
                except BaseException as error:
                    outcome = _Outcome(error=_CancelledWorkError(tuple(getattr(error, "__notes__", ()))))
                    raise
        finally:
            self._over = True
            self._inbox.put(outcome)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is None:
            self._over = True
            self._inbox.put(_Outcome(error=_CancelledWorkError()))  # it never began, and never will
        else:
            self._scope.cancel()


def _outcome_of(message: _Callback) -> _Outcome:
    try:
        return _Outcome(message.function(*message.arguments))
    except Exception as error:
        return _Outcome(error=error)


class Hosted(Generic[T]):
    """An async context manager that lives in one task of the loop, from ``enter`` to ``leave``."""

    def __init__(self, thread: "LoopThread", manager: AbstractAsyncContextManager[T]) -> None:
        self._thread = thread
        self._manager = manager
        self._reason: BaseException | None = None
        self._outcome = _Outcome(error=_CancelledWorkError())
        self._failure: Exception | None = None
        self._begun = False
        self._entered, self._leaving, self._over = anyio.Event(), anyio.Event(), anyio.Event()

    def enter(self) -> T:
        """Enter the manager; an interruption makes it leave again before this returns."""
        return self._thread.run(lambda _: self._enter())

    def leave(self, reason: BaseException | None) -> None:
        """Leave the manager, which sees the reason; an error of its own is raised only if there was no reason.

        Nothing happens if it was never entered.
        """
        self._thread.run(lambda _: self._leave(reason))

    @property
    def is_open(self) -> bool:
        """Whether the manager was entered, or is just being, and has not been left."""
        return self._begun and not self._over.is_set()

    async def _enter(self) -> T:
        scope = anyio.CancelScope()
        self._begun = True
        self._thread.start_soon(lambda: self._host(scope), "sandbox client")
        try:
            await self._entered.wait()
        except BaseException:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._over.wait()
            raise
        value: T = self._outcome.unwrap()
        return value

    async def _leave(self, reason: BaseException | None) -> None:
        if not self._begun:
            return
        self._reason = reason
        trace = None if reason is None else reason.__traceback__
        self._leaving.set()
        with anyio.CancelScope(shield=True):  # deleting is bounded in time by itself
            await self._over.wait()
        if reason is not None:
            reason.__traceback__ = trace  # the host raised it as well, which is no news to the user
        if self._failure is not None and reason is None:
            raise self._failure

    async def _host(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                async with self._manager as value:
                    self._outcome = _Outcome(value)
                    self._entered.set()
                    await self._leaving.wait()
                    if self._reason is not None:
                        raise self._reason
        except BaseException as error:
            self._note_failure(error)
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
        finally:
            self._entered.set()
            self._over.set()

    def _note_failure(self, error: BaseException) -> None:
        if error is self._reason:
            return
        failure = error if isinstance(error, Exception) else _CancelledWorkError()
        if self._entered.is_set():
            self._failure = failure
        else:
            self._outcome = _Outcome(error=failure)


class LoopThread:
    """A thread with an event loop in it.

    Guarantees: each piece of work runs in a task of its own; the thread never keeps the process alive.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._portal: BlockingPortal | None = None
        self._tasks: TaskGroup | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="agent-sandbox-loop", daemon=True)
        self._thread.start()
        self._ready.wait()

    def run(self, work: Callable[[Job[T]], Awaitable[T]]) -> T:
        """Run the work in the loop and wait for it here.

        Raises:
            SandboxNotReadyError: this is the loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise SandboxNotReadyError(
                "a synchronous sandbox method was called inside the event loop that serves it", reason="WrongThread"
            )
        assert self._portal is not None, "the thread signals readiness after it has made its portal"
        return Job(self._portal, work).wait()

    def host(self, manager: AbstractAsyncContextManager[T]) -> Hosted[T]:
        """Prepare to enter an async context manager from synchronous code."""
        return Hosted(self, manager)

    def iterate(self, items: AsyncIterator[T]) -> Generator[T, None, None]:
        """Iterate from synchronous code over what an async iterator gives."""
        end = object()

        async def next_item(_: Job[Any]) -> Any:
            return await anext(items, end)

        try:
            while (item := self.run(next_item)) is not end:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                self.run(lambda _: close())

    def start_soon(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Start a task of the loop's own; call this in the loop."""
        assert self._tasks is not None, "the thread signals readiness after it has opened its task group"
        self._tasks.start_soon(function, name=name)

    def stop(self) -> None:
        """End the loop with everything in it, and wait for the thread."""
        assert self._portal is not None, "the thread signals readiness after it has made its portal"
        self._portal.start_task_soon(self._portal.stop, True)
        self._thread.join()

    def _main(self) -> None:
        anyio.run(self._serve)

    async def _serve(self) -> None:
        async with BlockingPortal() as portal, anyio.create_task_group() as tasks:
            self._portal, self._tasks = portal, tasks
            self._ready.set()
            await portal.sleep_until_stopped()
            tasks.cancel_scope.cancel()


_lock = threading.Lock()
_shared: LoopThread | None = None


def shared_loop() -> LoopThread:
    """The loop thread of this process, started on first use. A forked child gets one of its own."""
    global _shared  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _shared is None or _shared.pid != os.getpid():
            _shared = LoopThread()
        return _shared
