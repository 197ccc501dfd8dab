"""What all synchronous classes share: an asynchronous object inside, and the loop thread that it lives in.

The classes themselves are generated from the asynchronous ones (``hack/generate_sync_sdk.py``), so that the two can
not drift apart.
"""

import atexit
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import anyio.to_thread

from agent_sandbox.sdk.errors import SandboxError
from agent_sandbox.sdk.loop_thread import Hosted, Job, shared_loop
from agent_sandbox.sdk.signals import termination_guard

_log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")
F = TypeVar("F", bound="Facade[Any]")


class Facade(Generic[A]):
    """A synchronous view of one asynchronous object."""

    _inner: A

    @classmethod
    def _around(cls, inner: A) -> Self:
        """The view of an object that exists already."""
        view = cls.__new__(cls)
        view._inner = inner  # noqa: SLF001 - our own
        return view

    def _run(self, work: Callable[[Job[T]], Awaitable[T]]) -> T:
        return shared_loop().run(work)

    def _iterate(self, items: AsyncIterator[T]) -> Generator[T, None, None]:
        return shared_loop().iterate(items)

    @contextmanager
    def _enter_manager(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        hosted = shared_loop().host(manager)
        value = hosted.enter()
        try:
            yield value
        except BaseException as error:
            hosted.leave(error)
            raise
        hosted.leave(None)

    @contextmanager
    def _enter_view(self, view: type[F], manager: AbstractAsyncContextManager[Any]) -> Iterator[F]:
        with self._enter_manager(manager) as inner:
            yield view._around(inner)  # noqa: SLF001 - our own

    def __repr__(self) -> str:
        return repr(self._inner).removeprefix("Async")


def in_threads(view: type[Facade[A]], function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """Make a blocking function of a synchronous view into an async one of what is inside; it runs in a thread."""

    async def call(inner: A, *rest: Any) -> T:
        argument = view._around(inner)  # noqa: SLF001 - our own
        return await anyio.to_thread.run_sync(function, argument, *rest, abandon_on_cancel=True)

    return call


class ContextFacade(Facade[A]):
    """A synchronous view of an asynchronous context manager; one that is still open at exit is closed then."""

    _hosted: Hosted[Any] | None = None

    def __enter__(self) -> Self:
        hosted = shared_loop().host(cast("AbstractAsyncContextManager[Any]", self._inner))
        termination_guard.hold()
        try:
            hosted.enter()
        except BaseException:
            termination_guard.release()
            raise
        self._hosted = hosted
        _open_at_exit[id(self)] = (os.getpid(), self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        hosted, self._hosted = self._hosted, None
        if hosted is None:
            return
        _open_at_exit.pop(id(self), None)
        try:
            hosted.leave(error)
        finally:
            termination_guard.release()


_open_at_exit: dict[int, tuple[int, ContextFacade[Any]]] = {}


@atexit.register
def _close_what_is_open() -> None:
    """Delete what nobody deleted: a client that was entered by hand, or a ``with`` block in an abandoned generator."""
    for pid, client in list(_open_at_exit.values()):
        if pid == os.getpid():  # a forked child must not delete its parent's sandboxes
            try:
                client.__exit__()
            except SandboxError as error:
                _log.error("a sandbox was left behind at exit: %s", error)
