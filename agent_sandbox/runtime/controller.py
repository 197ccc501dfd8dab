"""A controller: sources that name keys, a queue that holds them, workers that reconcile them.

In: changes from informers. Out: calls to one ``Reconciler``, and what they mean for the key: done, later, or again.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import anyio
import anyio.abc
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import ConflictError, KubeError
from agent_sandbox.runtime.cache import Cache
from agent_sandbox.runtime.errors import LeadershipLostError, QueueClosed, TerminalError
from agent_sandbox.runtime.metrics import Metrics
from agent_sandbox.runtime.predicates import Predicate
from agent_sandbox.runtime.reconcile import Reconciler, Request, Result
from agent_sandbox.runtime.sources import Mapper, Source, own_key, owner_key
from agent_sandbox.runtime.store import Change
from agent_sandbox.runtime.workqueue import LOW_PRIORITY, WorkQueue
from agent_sandbox_api.resource import Resource, V

log = structlog.get_logger(__name__)

BUGS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError)
"""Exceptions that mean a mistake in the program, as a panic does in Go: counted as panics besides being errors."""


MAX_YIELD: Final = 2.0
"""Longest time, in seconds, for which a key in hand gives way to another controller's: a burst is over by then, and
under an overload that does not end nobody starves."""


class Controller:
    """Reconciles one kind.

    Built step by step, then given to a manager::

        Controller("pool", reconciler, workers=4).watches_for(POOLS).owns(MEMBERS, owner=POOLS)
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        *,
        workers: int = 1,
        reconcile_timeout: float | None = None,
        yields_to: Sequence[str] = (),
        priority: Callable[[Request], int] | None = None,
    ) -> None:
        """
        Args:
            name: label of metrics and logs; unique in a manager.
            reconciler: what is done for a key.
            workers: how many keys at once, default 1 as controller-runtime. More hide the latency of the API server.
            reconcile_timeout: seconds after which one reconcile is cancelled and counts as failed; none by default.
                Without it a hanging call holds a worker for as long as its own timeouts allow.
            yields_to: names of controllers, added to the manager before this one, that somebody waits for: while they
                have more keys than workers, those of this one wait, each key for up to ``MAX_YIELD`` seconds.
            priority: how urgent a key is among those of this controller, when an object has changed; 0 by default.
        """
        if workers < 1:
            raise ValueError(f"controller {name}: it needs at least one worker, not {workers}")
        self.name = name
        self.workers = workers
        self._reconciler = reconciler
        self.yields_to = tuple(yields_to)
        self._timeout = reconcile_timeout
        self._priority = priority or _ordinary
        self._sources: list[Source[Any]] = []

    def watches_for(
        self,
        resource: Resource[V],
        predicate: Predicate[V] | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Self:
        """Reconcile the objects of this kind: each change enqueues the object itself."""
        return self._add(Source(resource, own_key, predicate, label_selector, field_selector))

    def owns(
        self,
        resource: Resource[V],
        *,
        owner: Resource[Any],
        predicate: Predicate[V] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        pause: float = 0.0,
    ) -> Self:
        """A change of this kind enqueues the ``owner`` that its controller reference names, before and after.

        With a ``pause`` it does so that many seconds later, once for all changes until then.
        """
        return self._add(Source(resource, owner_key(owner), predicate, label_selector, field_selector, pause))

    def watches(
        self,
        resource: Resource[V],
        mapper: Mapper[V],
        predicate: Predicate[V] | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Self:
        """A change of this kind enqueues whatever ``mapper`` makes of it. The mapper sees old and new and must not
        wait.
        """
        return self._add(Source(resource, mapper, predicate, label_selector, field_selector))

    def _add(self, source: Source[Any]) -> Self:
        self._sources.append(source)
        return self

    @property
    def sources(self) -> tuple[Source[Any], ...]:
        """What is watched."""
        return tuple(self._sources)

    def bind(
        self,
        cache: Cache,
        *,
        clock: Clock,
        random: random.Random,
        metrics: Metrics,
        ahead: Sequence[WorkQueue[Request]] = (),
    ) -> "BoundController":
        """Attach to a cache: from now on keys are collected; ``BoundController.run`` works on them.

        Keys of the queues ``ahead`` go first, see ``yields_to``.
        """
        queue_metrics = metrics.queue(self.name)
        queue: WorkQueue[Request] = WorkQueue(clock=clock, observer=queue_metrics)
        queue_metrics.follow(queue.unfinished_seconds, queue.longest_running_seconds)
        for source in self._sources:
            informer = cache.informer(
                source.resource, label_selector=source.label_selector, field_selector=source.field_selector
            )
            informer.add_handler(_enqueue(source, queue, self._priority))
        worker = Worker(
            self.name,
            self._reconciler,
            queue,
            clock=clock,
            random=random,
            timeout=self._timeout,
            metrics=metrics,
            workers=self.workers,
            ahead=ahead,
        )
        return BoundController(self.name, queue, worker, self.workers)


def _ordinary(_: Request) -> int:
    return 0


def _enqueue(
    source: Source[Any], queue: WorkQueue[Request], priority_of: Callable[[Request], int] = _ordinary
) -> Callable[[Change[Any]], None]:
    def handler(change: Change[Any]) -> None:
        # What existed before and what is shown again is less urgent than what somebody just did.
        is_news = not (change.initial or change.is_resync)
        for request in source.requests(change):
            queue.add(request, priority=priority_of(request) if is_news else LOW_PRIORITY, after=source.pause)

    return handler


@dataclass(frozen=True)
class BoundController:
    """A controller with its queue, ready to run."""

    name: str
    queue: WorkQueue[Request]
    worker: "Worker"
    workers: int

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until the queue is shut down (and, being cancelled, at once)."""
        async with anyio.create_task_group() as tasks:
            for number in range(self.workers):
                tasks.start_soon(self.worker.work, name=f"{self.name} worker {number}")
            task_status.started()


class Worker:
    """Takes keys and reconciles them, one at a time; several tasks may run ``work``."""

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        queue: WorkQueue[Request],
        *,
        clock: Clock,
        random: random.Random,
        metrics: Metrics,
        timeout: float | None = None,
        workers: int = 1,
        ahead: Sequence[WorkQueue[Request]] = (),
    ) -> None:
        self._name = name
        self._reconciler = reconciler
        self._queue = queue
        self._clock = clock
        self._random = random
        self._timeout = timeout
        self._ahead = tuple(ahead)
        self._metrics = metrics.controller(name, workers)

    async def work(self) -> None:
        """Reconcile keys until the queue is shut down. No exception of a reconciler ends it."""
        while True:
            try:
                request = await self._queue.get()
            except QueueClosed:
                return
            try:
                await self._give_way()
                await self.handle(request)
            finally:
                self._queue.done(request)

    async def _give_way(self) -> None:
        if any(len(queue) for queue in self._ahead):
            with anyio.move_on_after(MAX_YIELD):
                for queue in self._ahead:
                    await queue.wait_until_none_ready()

    async def handle(self, request: Request) -> None:
        """One reconcile of a key in hand, and what follows for the key."""
        started = self._clock.monotonic()
        self._metrics.active.inc()
        bound = structlog.contextvars.bind_contextvars(
            controller=self._name,
            namespace=request.namespace,
            name=request.name,
            reconcileID=str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
        )
        try:
            await self._attempt(request)
        finally:
            structlog.contextvars.reset_contextvars(**bound)
            self._metrics.active.dec()
            self._metrics.seconds.observe(self._clock.monotonic() - started)

    async def _attempt(self, request: Request) -> None:
        try:
            result = await self._within_deadline(request)
        except TerminalError as error:
            self._metrics.terminal_errors.inc()
            self._count_error()
            self._queue.forget(request)
            log.error("reconcile failed for good; only a change of the object starts another", error=str(error))
        except ConflictError as error:
            # Somebody else was first. Normal in a shared world: seen by the counter, not worth a stack trace.
            log.info("reconcile lost a race, trying again", error=str(error), pause=self._retry(request))
        except LeadershipLostError:
            self._retry(request)  # the process is ending; the successor reconciles this key, whatever was cut
        except KubeError as error:
            # The server or the network; the message names the request, a stack trace would only name our own plumbing.
            log.error("reconcile failed, trying again", error=str(error), pause=self._retry(request))
        except Exception as error:
            if isinstance(error, BUGS):
                self._metrics.panics.inc()
            log.exception("reconcile failed, trying again", pause=self._retry(request))
        else:
            self._settle(request, result)

    async def _within_deadline(self, request: Request) -> Result:
        if self._timeout is None:
            return await self._reconciler.reconcile(request)
        with anyio.move_on_after(self._timeout) as scope:
            return await self._reconciler.reconcile(request)
        # Only reached if the scope swallowed its own cancellation: a TimeoutError from inside passes as what it is.
        assert scope.cancelled_caught, "a deadline ended without a result and without having fired"
        self._metrics.timeouts.inc()
        raise TimeoutError(f"the reconcile was cancelled after its deadline of {self._timeout} s")

    def _settle(self, request: Request, result: Result) -> None:
        self._queue.forget(request)
        if result.after is None:
            self._metrics.results["success"].inc()
            return
        self._metrics.results["requeue_after"].inc()
        self._queue.add(request, priority=self._queue.priority_of(request), after=result.after)

    def _retry(self, request: Request) -> float:
        self._count_error()
        return self._queue.add_rate_limited(request, priority=self._queue.priority_of(request))

    def _count_error(self) -> None:
        self._metrics.errors.inc()
        self._metrics.results["error"].inc()
