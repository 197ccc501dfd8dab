"""Runs a verb to its end: signals cancel it in order, and errors become one line and an exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import anyio
import click

from agent_sandbox.cli.sandboxes.failures import FAILED, SIGNALLED, failure_of, note
from agent_sandbox.signals import Arrivals, arriving_signals

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds after which whoever waits at a terminal is told what for."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SignalHandler = Callable[[signal.Signals], Awaitable[None]]


@dataclass
class Interruptions:
    """What SIGINT, SIGTERM and SIGHUP do: they cancel the verb, unless something else takes them for the moment."""

    scope: anyio.CancelScope
    arrivals: Arrivals
    received: signal.Signals | None = None
    _handlers: list[SignalHandler] = field(default_factory=list)

    @contextmanager
    def passed_to(self, handler: SignalHandler) -> Iterator[None]:
        """Give signals to a handler while the block lasts."""
        self._handlers.append(handler)
        try:
            yield
        finally:
            self._handlers.pop()

    def cancel(self, number: signal.Signals) -> None:
        """End the verb as that signal does."""
        self.arrivals.end()
        self.received = number
        self.scope.cancel()

    async def listen(self) -> None:
        """Take signals, for ever."""
        async with aclosing(self.arrivals.each()) as signals:
            async for number in signals:
                if self._handlers:
                    await self._handlers[-1](number)
                else:
                    self.cancel(number)


def run_verb(work: Callable[[Interruptions], Awaitable[T]], *, status: int = FAILED, endless: bool = False) -> T:
    """Run a verb.

    Args:
        work: the verb.
        status: exit status of a failure.
        endless: True if it runs until Ctrl-C, which is then no failure.

    Raises:
        click.ClickException: it failed in an expected way.
        SystemExit: a signal ended it.
    """
    try:
        with arriving_signals(*_SIGNALS) as arrivals:
            results, received = anyio.run(_interruptible, work, arrivals)
    except Exception as error:
        cause = first_leaf(error)
        if isinstance(cause, click.ClickException):
            raise cause from cause.__cause__
        failure = failure_of(cause, status)
        if failure is None:
            raise
        raise failure from cause
    if received is not None and not results:
        if received is signal.SIGINT and sys.stderr.isatty():
            note("")  # the shell's prompt begins its own line behind the ^C
        raise SystemExit(0 if endless and received is signal.SIGINT else SIGNALLED + received)
    return results[0]


async def _interruptible(
    work: Callable[[Interruptions], Awaitable[T]], arrivals: Arrivals
) -> tuple[list[T], signal.Signals | None]:
    results: list[T] = []
    async with anyio.create_task_group() as tasks:
        interruptions = Interruptions(tasks.cancel_scope, arrivals)
        tasks.start_soon(interruptions.listen, name="signals")
        results.append(await work(interruptions))
        tasks.cancel_scope.cancel()
    return results, interruptions.received


def first_leaf(error: BaseException) -> BaseException:
    """The first error inside groups: tasks of one verb that fail together fail for one reason."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def saying(text: str) -> AsyncIterator[None]:
    """Tell what is waited for, if the block takes longer than a moment and somebody sits before it."""
    from agent_sandbox.sdk.background import background_tasks

    async def tell() -> None:
        await anyio.sleep(PATIENCE)
        note(f"{text} ...")

    if not sys.stderr.isatty():
        yield
        return
    async with background_tasks() as tasks:
        tasks.start_soon(tell, name="patience")
        yield
