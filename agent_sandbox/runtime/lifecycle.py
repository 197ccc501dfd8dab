"""Starts the parts of a process in order, notices when one fails, stops them in reverse order within a time.

In: coroutine functions. Out: one ``stop`` event that is set when somebody wants an end or a part has failed.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import anyio.abc
import structlog

log = structlog.get_logger(__name__)

CANCEL_GRACE = 1.0
"""Seconds that a part has to react to its cancellation, after its grace is used up, before it is reported as stuck."""


class Runnable(Protocol):
    """Something that runs until cancelled, and says when it is ready by ``task_status.started()``."""

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Run until cancelled."""


@dataclass(eq=False)
class Part:
    """One running part."""

    name: str
    stop: Callable[[], Awaitable[None]] | None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Lifecycle:
    """The running parts of a process, in the order of their start.

    Guarantees:
        A part starts after the ones before it are ready, and is stopped before them. A part that fails sets
        ``stopping``; the first failure is kept.
    Assumptions:
        ``tasks`` outlives the parts and is shielded from outside cancellation, so that an end is always an orderly one.
    """

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.stopping = anyio.Event()
        self.failure: BaseException | None = None
        self._tasks = tasks
        # In order of start; stop_all takes from the end.
        self._parts: list[Part] = []

    @property
    def running(self) -> list[str]:
        """Names of the parts that have not ended."""
        return [part.name for part in self._parts if not part.ended.is_set()]

    async def start(
        self,
        name: str,
        run: Callable[..., Awaitable[None]],
        *,
        stop: Callable[[], Awaitable[None]] | None = None,
        waits_until_ready: bool = True,
    ) -> None:
        """Start a part, and wait until it is ready if it can say so.

        Args:
            name: for logs and failures.
            run: runs until cancelled; takes ``task_status`` if ``waits_until_ready``.
            stop: asks it to end in its own way, and returns when it has; it is cancelled after that in any case.
            waits_until_ready: whether ``run`` calls ``task_status.started()``.
        """
        part = Part(name, stop)
        self._parts.append(part)
        if waits_until_ready:
            await self._tasks.start(self._run_ready, part, run, name=name)
        else:
            self._tasks.start_soon(self._run, part, run, name=name)

    async def _run_ready(
        self, part: Part, run: Callable[..., Awaitable[None]], *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        status = _StartedOnce(task_status)
        await self._run(part, lambda: run(task_status=status))
        status.started()  # it ended before it was ready: `stopping` tells why, start() must not wait for ever

    async def _run(self, part: Part, run: Callable[[], Awaitable[None]]) -> None:
        try:
            with part.scope:
                await run()
        except Exception as error:
            self.fail(error)
            log.error("a part of the process failed, everything stops", part=part.name, error=repr(error))
        finally:
            part.ended.set()

    def fail(self, error: BaseException) -> None:
        """Note a failure, if it is the first, and ask for the end."""
        if self.failure is None:
            self.failure = error
        self.stopping.set()

    async def stop_all(self, grace: float) -> None:
        """Stop the parts, last first, all within ``grace`` seconds; then cancel what is left."""
        self.stopping.set()
        deadline = anyio.current_time() + grace
        while self._parts:
            part = self._parts.pop()
            await self._stop(part, deadline)

    async def _stop(self, part: Part, deadline: float) -> None:
        if part.stop is not None and not part.ended.is_set():
            with anyio.CancelScope(deadline=deadline) as polite:
                try:
                    await part.stop()
                except Exception as error:
                    log.exception("a part failed while it was stopped", part=part.name, error=repr(error))
            if polite.cancelled_caught:
                log.warning("a part did not stop within the grace and is cancelled", part=part.name)
        part.scope.cancel()
        with anyio.CancelScope(deadline=max(deadline, anyio.current_time()) + CANCEL_GRACE) as last:
            await part.ended.wait()
        if last.cancelled_caught:
            log.error("a part does not react to its cancellation", part=part.name)


class _StartedOnce:
    """Passes on the first ``started()``; further ones, as by a part that ends, mean nothing."""

    def __init__(self, inner: anyio.abc.TaskStatus[None]) -> None:
        self._inner = inner
        self._did_start = False

    def started(self, value: None = None) -> None:
        if not self._did_start:
            self._did_start = True
            self._inner.started(value)
