"""What a client sees of one kind: a watch, and the moments at which something first held."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from agent_sandbox.bench.dialect import Seen
from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import Change, Informer, InformerOptions
from agent_sandbox_api.resource import Resource


@dataclass(eq=False)
class Expectation:
    """Something that one object is to show.

    Attributes:
        holds: what it is.
        moment: when the watch first showed it, monotonic; None until then.
        view: the object at that moment.
    """

    holds: Callable[[Seen], bool]
    moment: float | None = None
    view: Seen | None = None
    _met: anyio.Event = field(default_factory=anyio.Event)

    def look(self, view: Seen, now: float) -> None:
        """Take note if it holds for the first time."""
        if self.moment is None and self.holds(view):
            self.moment, self.view = now, view
            self._met.set()

    async def met(self) -> float:
        """Wait for the moment."""
        await self._met.wait()
        assert self.moment is not None
        return self.moment


class Following:
    """Watches one kind in one namespace."""

    def __init__(self, client: KubeClient, resource: Resource[Seen], namespace: str, clock: Clock) -> None:
        self._clock = clock
        self._namespace = namespace
        self._expected: dict[str, list[Expectation]] = {}
        self.changed = clock.monotonic()
        self.informer: Informer[Seen] = Informer(
            client,
            resource,
            clock=clock,
            random=random.Random(),  # noqa: S311 - spreads load
            options=InformerOptions(namespaces=[namespace], resync_period=None),
        )
        self.informer.add_handler(self._changed)

    @property
    def known(self) -> list[Seen]:
        """The objects that the watch shows now."""
        return self.informer.store.list(self._namespace)

    def _changed(self, change: Change[Seen]) -> None:
        self.changed = self._clock.monotonic()
        if change.new is not None:
            for expectation in self._expected.get(change.new.metadata.name, ()):
                expectation.look(change.new, self.changed)

    @contextmanager
    def expect(self, name: str, holds: Callable[[Seen], bool]) -> Iterator[Expectation]:
        """Note from now on when the object of that name first shows it; also if it does so already."""
        expectation = Expectation(holds)
        waiting = self._expected.setdefault(name, [])
        waiting.append(expectation)
        try:
            if (known := self.informer.store.get(self._namespace, name)) is not None:
                expectation.look(known, self._clock.monotonic())
            yield expectation
        finally:
            waiting.remove(expectation)
            if not waiting:
                del self._expected[name]
