"""One informer per kind and selector, shared by all who ask.

In: requests for informers. Out: the informers, filled as long as ``run`` runs; and the place where own writes enter all
stores that they concern.
"""

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.abc

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime.errors import CacheSyncError
from agent_sandbox.runtime.informer import Informer, InformerOptions
from agent_sandbox.runtime.metrics import Metrics
from agent_sandbox.runtime.watcher import WatchOptions
from agent_sandbox_api.resource import Resource, V


class Cache:
    """Shared informers.

    Each pair of kind and selectors is watched once, whoever asks. Use one ``Resource`` value per kind: informers are
    told apart by it, and own writes reach only informers of the same value.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        clock: Clock,
        random: random.Random | None = None,
        namespaces: Collection[str] | None = None,
        watch: WatchOptions | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """
        Args:
            client: lists and watches; its decorators see all traffic of the cache.
            clock: paces retries.
            random: spreads them.
            namespaces: follow namespaced kinds in these only, which needs no cluster-wide rights; None follows all.
            watch: how the watchers talk to the server.
            metrics: where the informers' metrics go.
        """
        self._client = client
        self._clock = clock
        self._random = random
        self._namespaces = namespaces
        self._watch = watch or WatchOptions()
        self._metrics = metrics
        self._informers: dict[tuple[Resource[Any], str, str], Informer[Any]] = {}
        # The same informers by kind alone: those that an own write concerns.
        self._by_resource: dict[Resource[Any], tuple[Informer[Any], ...]] = {}
        # The group in which informers run; None before run() and after it.
        self._tasks: anyio.abc.TaskGroup | None = None

    def informer(self, resource: Resource[V], *, label_selector: str = "", field_selector: str = "") -> Informer[V]:
        """The informer of that kind and those selectors; made, and started if the cache runs, by the first who asks."""
        key = (resource, label_selector, field_selector)
        known: Informer[V] | None = self._informers.get(key)
        if known is not None:
            return known
        options: InformerOptions[V] = InformerOptions(
            label_selector=label_selector,
            field_selector=field_selector,
            namespaces=self._namespaces if resource.namespaced else None,
            watch=self._watch,
        )
        informer = Informer(
            self._client, resource, clock=self._clock, random=self._random, options=options, metrics=self._metrics
        )
        self._informers[key] = informer
        self._by_resource[resource] = (*self._by_resource.get(resource, ()), informer)
        if self._tasks is not None:
            self._tasks.start_soon(informer.run, name=f"informer {resource}")
        return informer

    @property
    def informers(self) -> list[Informer[Any]]:
        """All informers, in the order of their making."""
        return [*self._informers.values()]

    @property
    def is_synced(self) -> bool:
        """True if every informer asked for so far is synced."""
        return all(informer.is_synced for informer in self._informers.values())

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep all informers running, also those asked for later, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                for informer in self._informers.values():
                    tasks.start_soon(informer.run, name=f"informer {informer.resource}")
                task_status.started()
                await anyio.sleep_forever()
            finally:
                self._tasks = None

    async def wait_until_synced(self, timeout: float | None = None) -> None:
        """Wait until every informer is filled.

        Raises:
            CacheSyncError: that took longer than ``timeout`` seconds; the message names the kinds and what their
                watchers are waiting for.
        """
        try:
            with anyio.fail_after(timeout):
                for informer in self.informers:
                    await informer.wait_until_synced()
        except TimeoutError as error:
            missing = [
                f"{informer.resource} ({'; '.join(str(state) for state in informer.states)})"
                for informer in self.informers
                if not informer.is_synced
            ]
            raise CacheSyncError(
                f"after {timeout} s these caches are not filled: {', '.join(missing)}; are the CRDs installed and may "
                "this account list and watch them?"
            ) from error

    @contextmanager
    def writing(self, resource: Resource[Any], namespace: str, name: str) -> Iterator[None]:
        """While inside, this process writes that object: its changes are told as own; see ``Informer.begin_write``."""
        concerned = self._by_resource.get(resource, ())
        for informer in concerned:
            informer.begin_write(namespace, name)
        try:
            yield
        finally:
            for informer in concerned:
                informer.end_write(namespace, name)

    def remember(self, resource: Resource[V], view: V) -> None:
        """Enter the answer to an own write into every store that it concerns."""
        for informer in self._by_resource.get(resource, ()):
            informer.remember(view)

    def bury(self, resource: Resource[Any], namespace: str, name: str, uid: str) -> None:
        """Enter an own delete into every store that it concerns."""
        for informer in self._by_resource.get(resource, ()):
            informer.bury(namespace, name, uid)
