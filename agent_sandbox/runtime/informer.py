"""Keeps a store filled with one kind and tells handlers what changed.

In: watchers (one per namespace set member) and this process's own writes. Out: a ``Store`` and calls to handlers. It
decides nothing; the next step is a controller's mapping from changes to keys.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeAlias

import anyio
import anyio.lowlevel
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient, parse_selector
from agent_sandbox.runtime.errors import InformerStoppedError
from agent_sandbox.runtime.metrics import Metrics
from agent_sandbox.runtime.store import Change, IndexFunction, Key, Store, StoreWriter
from agent_sandbox.runtime.watcher import State, Watcher, WatchOptions
from agent_sandbox_api.resource import Resource, V
from agent_sandbox_api.views import key_of

log = structlog.get_logger(__name__)

Handler: TypeAlias = Callable[[Change[V]], None]

RESYNC_PERIOD: Final = 36_000.0
"""Seconds between two resyncs, 10 h as controller-runtime. A resync shows every stored object to the handlers again,
as a safety net under lost keys; it asks the server nothing."""

RESYNC_JITTER: Final = 0.1
"""Up to this share longer, so that the kinds do not resync together."""


@dataclass(frozen=True, kw_only=True)
class InformerOptions(Generic[V]):
    """What an informer follows, and how.

    Attributes:
        label_selector: only matching objects are cached.
        field_selector: only matching objects are cached. Own writes of objects that the watch has not shown are not
            entered early, because only the server can judge such a selector.
        namespaces: these namespaces only, one watch each; None follows all with one watch.
        transform: changes each view before it is stored, to spare memory; managedFields are never decoded anyway.
        resync_period: seconds, 36,000; None switches resync off.
        watch: how the watchers talk to the server.
    """

    label_selector: str = ""
    field_selector: str = ""
    namespaces: Collection[str] | None = None
    transform: Callable[[V], V] | None = None
    resync_period: float | None = RESYNC_PERIOD
    watch: WatchOptions = field(default_factory=WatchOptions)


class Informer(Generic[V]):
    """One kind, cached.

    Flow:
        ``run`` lists, fills the store, then follows the watch. Each change goes to the indexes first, then to the
        handlers in the order in which they were added.
    Guarantees:
        When ``wait_until_synced`` returns the store holds at least everything that the first list saw. Handlers see
        every object that exists for longer than a relist takes; between two views of one object any number of changes
        may be folded into one. Own writes are visible before the writing call returns.
    Assumptions:
        Handlers are quick and do not wait: they run inside the watch loop, or inside the writer's call.
    Caveats:
        The store lags behind the server by other people's writes, without bound while the server cannot be reached. An
        object that does not decode into its view is logged and left out, or stays as it was when it last did.
    Errors:
        Failures of the watch are logged and retried for ever; ``states`` shows them. A handler that raises is logged
        and does not stop the others.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource[V],
        *,
        clock: Clock,
        random: random.Random | None = None,
        options: InformerOptions[V] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.resource = resource
        self.options: InformerOptions[V] = options or InformerOptions()
        self._clock = clock
        self._random = random or _system_random()
        selector = parse_selector(self.options.label_selector)
        self._writer: StoreWriter[V] = StoreWriter(
            clock=clock,
            admits=(lambda view: selector.matches(view.metadata.labels)) if selector.requirements else None,
            admits_unknown=not self.options.field_selector,
        )
        self._handlers: list[Handler[V]] = []
        # Objects of which own writes are under way.
        self._writes: dict[Key, _OwnWrites[V]] = {}
        # Scopes whose first list has not arrived. Invariant: empty if and only if _synced is set.
        self._unsynced: set[str] = {*(self.options.namespaces or [""])}
        self._synced = anyio.Event()
        # True once run() has ended: whoever waits for a sync then would wait for ever.
        self._did_stop = False
        self._metrics = metrics.informer(resource) if metrics is not None else None
        if self._metrics is not None:
            self._metrics.follow(lambda: self.progress)
        self._watchers = [self._watcher(client, scope) for scope in sorted(self._unsynced)]

    @property
    def store(self) -> Store[V]:
        """What is known, read-only."""
        return self._writer.store

    @property
    def is_synced(self) -> bool:
        """True once the first list of every scope is in the store."""
        return self._synced.is_set()

    @property
    def states(self) -> list[State]:
        """Where each watcher stands."""
        return [watcher.state for watcher in self._watchers]

    @property
    def progress(self) -> int:
        """The resourceVersion up to which the store is complete; 0 before the first list."""
        return self._writer.progress

    def add_index(self, name: str, function: IndexFunction[V]) -> None:
        """Keep an index: ``function`` gives the values under which an object is to be found.

        Raises:
            ValueError: the name is taken by another function.
        """
        self._writer.add_index(name, function)

    def add_handler(self, handler: Handler[V]) -> None:
        """Call this with every change from now on, and at once with what is stored already, as initial."""
        self._handlers.append(handler)
        for view in self.store:
            self._call(handler, Change(None, view, initial=True))

    async def wait_until_synced(self) -> None:
        """Wait until the store is filled.

        Raises:
            InformerStoppedError: the informer ended before.
        """
        await self._synced.wait()
        if self._did_stop and self._unsynced:
            raise InformerStoppedError(f"the informer of {self.resource} ended before it was synced")

    async def run(self) -> None:
        """Follow the server until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                for watcher in self._watchers:
                    tasks.start_soon(watcher.run, name=f"watch {self.resource}")
                if self.options.resync_period is not None:
                    tasks.start_soon(self._resync, self.options.resync_period, name=f"resync {self.resource}")
        finally:
            self._did_stop = True
            self._synced.set()

    # Own writes

    def begin_write(self, namespace: str, name: str) -> None:
        """From now to ``end_write`` this process writes an object: what is news of it is told as an ``own`` change.

        The watch is often faster than the answer, which alone can tell whose change it was. What turns out to have been
        somebody else's is told once more, as such, so that whoever left it out as ``own`` hears of it after all.
        """
        self._writes.setdefault((namespace, name), _OwnWrites()).under_way += 1

    def end_write(self, namespace: str, name: str) -> None:
        """The write that began is over, however it ended."""
        writes = self._writes[namespace, name]
        writes.under_way -= 1
        if not writes.under_way:
            del self._writes[namespace, name]
            self._tell([replace(change, own=False) for change in writes.presumed if not writes.made(change)])

    def remember(self, view: V) -> None:
        """Enter the answer to an own write, so that the next reconcile sees it."""
        if not self._follows(view.metadata.namespace):
            return
        if (writes := self._writes.get(key_of(view))) is not None:
            writes.answers.add(view.metadata.resource_version)
        self._tell(self._writer.remember(self._transformed(view)))

    def bury(self, namespace: str, name: str, uid: str) -> None:
        """Enter an own delete that left nothing behind."""
        if not self._follows(namespace):
            return
        if (writes := self._writes.get((namespace, name))) is not None:
            writes.buried.add(uid)
        self._tell(self._writer.bury(namespace, name, uid))

    def _follows(self, namespace: str) -> bool:
        return self.options.namespaces is None or namespace in self.options.namespaces

    # From the watchers

    def _watcher(self, client: KubeClient, scope: str) -> Watcher[V]:
        return Watcher(
            client,
            self.resource,
            _Scope(self, scope),
            clock=self._clock,
            random=self._random,
            namespace=scope or None,
            label_selector=self.options.label_selector,
            field_selector=self.options.field_selector,
            options=self.options.watch,
        )

    def _replaced(self, scope: str, views: Sequence[V], resource_version: str, began: float) -> None:
        initial = scope in self._unsynced
        transformed = [self._transformed(view) for view in views]
        for change in self._writer.replace(scope, transformed, resource_version, began=began):
            self._tell([Change(change.old, change.new, initial=initial and change.old is None)])
        self._unsynced.discard(scope)
        if not self._unsynced:
            self._synced.set()

    def _applied(self, scope: str, view: V) -> None:
        self._tell(self._writer.apply(scope, self._transformed(view)))

    def _deleted(self, scope: str, view: V) -> None:
        self._tell(self._writer.remove(scope, view))

    def _advanced(self, scope: str, resource_version: str) -> None:
        self._writer.advance(scope, resource_version)

    def _transformed(self, view: V) -> V:
        transform = self.options.transform
        return view if transform is None else transform(view)

    # To the handlers

    def _tell(self, changes: list[Change[V]]) -> None:
        for each in changes:
            change = self._attributed(each)
            began = self._clock.monotonic()
            for handler in self._handlers:
                self._call(handler, change)
            if self._metrics is not None:
                self._metrics.seconds.observe(self._clock.monotonic() - began)

    def _attributed(self, change: Change[V]) -> Change[V]:
        writes = self._writes.get(key_of(change.object))
        if writes is None:
            return change
        presumed = replace(change, own=True)
        writes.presumed.append(presumed)
        return presumed

    def _call(self, handler: Handler[V], change: Change[V]) -> None:
        try:
            handler(change)
        except Exception:
            metadata = change.object.metadata
            log.exception(
                "a handler failed, its other objects are not affected",
                resource=str(self.resource),
                namespace=metadata.namespace,
                name=metadata.name,
            )

    async def _resync(self, period: float) -> None:
        await self.wait_until_synced()
        while True:
            await self._clock.sleep(period * (1 + RESYNC_JITTER * self._random.random()))
            for view in self.store:
                # What changed since the loop began was told, and what is gone must not look alive again.
                if self.store.get(view.metadata.namespace, view.metadata.name) is view:
                    self._tell([Change(view, view)])
                await anyio.lowlevel.checkpoint()


class _OwnWrites(Generic[V]):
    """The own writes of one object that are under way."""

    def __init__(self) -> None:
        self.under_way = 0
        self.presumed: list[Change[V]] = []  # told as own
        self.answers: set[str] = set()  # resourceVersions that they made
        self.buried: set[str] = set()  # UIDs that they deleted

    def made(self, change: Change[V]) -> bool:
        """Whether the answers say that the change was theirs."""
        if change.new is None:
            return change.object.metadata.uid in self.buried
        return change.new.metadata.resource_version in self.answers


class _Scope(Generic[V]):
    """The end of one watcher inside an informer: adds the scope to every call."""

    def __init__(self, informer: Informer[V], scope: str) -> None:
        self._informer = informer
        self._scope = scope

    def replaced(self, views: Sequence[V], resource_version: str, began: float) -> None:
        self._informer._replaced(self._scope, views, resource_version, began)  # noqa: SLF001

    def applied(self, view: V) -> None:
        self._informer._applied(self._scope, view)  # noqa: SLF001

    def deleted(self, view: V) -> None:
        self._informer._deleted(self._scope, view)  # noqa: SLF001

    def advanced(self, resource_version: str) -> None:
        self._informer._advanced(self._scope, resource_version)  # noqa: SLF001


def _system_random() -> random.Random:
    return random.Random()  # noqa: S311 - spreads load, guards nothing
