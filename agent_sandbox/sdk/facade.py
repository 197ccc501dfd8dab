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

from agent_sandbox.sdk.errors import SandboxError, SandboxNotReadyError
from agent_sandbox.sdk.loop_thread import Hosted, Job, shared_loop
from agent_sandbox.sdk.signals import Hold, termination_guard

_log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")
F = TypeVar("F", bound="Facade[Any]")


class Facade(Generic[A]):
    """A synchronous view of one asynchronous object."""

    _inner: A
    _blocks: list[Hosted[Any]] | None = None

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
        if self._blocks is not None:
            self._blocks.append(hosted)
        try:
            try:
                yield hosted.enter()
            except BaseException as error:
                hosted.leave(error)
                raise
            hosted.leave(None)
        finally:
            if self._blocks is not None and not hosted.is_open:
                self._blocks.remove(hosted)

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
    _hold: Hold | None = None

    def __enter__(self) -> Self:
        if self._hosted is not None:
            raise SandboxNotReadyError("this client is open already: use another one", reason="Open")
        # Noted before anything is made, and forgotten when all is gone: Ctrl-C may come between any two steps.
        self._hosted = shared_loop().host(cast("AbstractAsyncContextManager[Any]", self._inner))
        self._blocks = []
        _open_at_exit[id(self)] = (os.getpid(), self)
        self._hold = termination_guard.hold()
        try:
            self._hosted.enter()
        except BaseException:
            self._forget_if_closed()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self._hosted is None:
            return
        try:
            for block in reversed(self._blocks or ()):
                if block.is_open:  # interrupted before it was left, and in need of this client
                    block.leave(error)
            self._hosted.leave(error)
        finally:
            self._forget_if_closed()

    def _forget_if_closed(self) -> None:
        if self._hosted is None or self._hosted.is_open:
            return  # interrupted before it was left: it is closed at exit
        if self._hold is not None:
            self._hold.release()
        _open_at_exit.pop(id(self), None)
        self._hosted = self._hold = self._blocks = None


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
