"""The bench that scenarios work on: a namespace with a template and a pool, watches, meters, and a way back to rest."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

import anyio

from agent_sandbox.bench.dialect import Dialect, DialectError, Seen
from agent_sandbox.bench.following import Following
from agent_sandbox.bench.hollow_node import SCHEDULER
from agent_sandbox.bench.meters import Cost, CountingTransport, ProcessReading, ServerReading, Writes, read_server
from agent_sandbox.bench.removal import remove_all
from agent_sandbox.bench.subject import Subject
from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient, MergePatch, NotFoundError
from agent_sandbox_api.core import PODS
from agent_sandbox_api.resource import Resource

T = TypeVar("T")

TEMPLATE: Final = "bench"
POOL: Final = "bench-pool"
QUIET: Final = 6.0
"""Seconds without a change after which nothing is held back any more: controllers delay status writes by up to five."""


ANSWER: Final = 60.0
"""Seconds within which some controller must have written the status of some object; far more than any needs."""
TELL_EVERY: Final = 10.0
"""Seconds between two words of progress."""


class BenchError(Exception):
    """A state was not reached in time; the message says which, and what there was instead."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much a scenario does.

    Attributes:
        claims: claims (or Sandboxes) in all.
        pool: members of the warm pool.
        in_flight: how many clients ask at a time, where a scenario has several.
        rate: claims per second of the sustained scenario.
        seconds: how long it lasts.
        objects: Sandboxes that exist when the controllers are restarted.
        patience: seconds until a state that is not reached is a failure.
    """

    claims: int = 100
    pool: int = 100
    in_flight: int = 20
    rate: float = 20.0
    seconds: float = 10.0
    objects: int = 10_000
    patience: float = 300.0


@dataclass
class Taken:
    """What a measured block was about: filled by the scenario, completed when the cluster is at rest again."""

    began: float
    seconds: list[float] = field(default_factory=list)
    ended: float = 0.0
    cost: Cost = field(default_factory=Cost)

    def add(self, asked: float, answered: float) -> None:
        """One sample."""
        self.seconds.append(answered - asked)
        self.ended = max(self.ended, answered)

    @property
    def elapsed(self) -> float:
        """From the first request to the last answer."""
        return self.ended - self.began


class Bench:
    """One namespace of one API server.

    Assumptions: the namespace is this benchmark's alone, and controllers serve it.
    Errors: ``BenchError`` for a state that is not reached within ``Sizes.patience``; what the server refuses passes.
    """

    def __init__(
        self,
        client: KubeClient,
        dialect: Dialect,
        namespace: str,
        subject: Subject,
        *,
        sizes: Sizes,
        image: str,
        hollow: bool,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            client: may do everything in the namespace, and read the server's ``/metrics`` if writes are to be counted.
            dialect: the version of the API.
            namespace: exists, and is empty.
            subject: the controllers.
            sizes: how much is done.
            image: what Pods run.
            hollow: Pods are made Ready by a hollow node and must not be scheduled.
            clock: measures.
            say: told of every step, for people.
        """
        self.counting = CountingTransport(client.transport)
        self.client = client.with_transport(self.counting)
        self.dialect = dialect
        self.namespace = namespace
        self.subject = subject
        self.sizes = sizes
        self.clock = clock
        self.say = say
        self.claims = Following(self.client, dialect.claims, namespace, clock)
        self.sandboxes = Following(self.client, dialect.sandboxes, namespace, clock)
        self.pools = Following(self.client, dialect.pools, namespace, clock)
        self._kinds: tuple[Resource[Any], ...] = (dialect.pools, dialect.claims, dialect.sandboxes, PODS)
        """What a scenario makes, owners first."""
        self.pod: dict[str, Any] = {
            "containers": [{"name": "main", "image": image, "ports": [{"containerPort": 8888}]}],
            **({"schedulerName": SCHEDULER} if hollow else {}),
        }

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Watch while inside.

        Raises:
            KubeError: something may not be read, which a watch would go on trying.
            DialectError: a kind is missing.
            BenchError: a watch does not begin in time.
        """
        for kind in self._kinds:
            try:
                await self.client.list_page(kind, self.namespace, limit=1)
            except NotFoundError as error:
                host = self.client.transport.host
                raise DialectError(
                    f"{host} does not serve {kind} as {kind.version}: kubectl apply -k config/crd brings it"
                ) from error
        async with anyio.create_task_group() as tasks:
            for following in (self.claims, self.sandboxes, self.pools):
                tasks.start_soon(following.informer.run)
                await self.within_patience(following.informer.wait_until_synced(), "a watch has not begun")
            if not self.subject.is_ours:  # else an end is noticed, and a slow start is no failure
                tasks.start_soon(self._expect_an_answer)
            yield self
            tasks.cancel_scope.cancel()

    async def _expect_an_answer(self) -> None:
        followings = (self.claims, self.sandboxes, self.pools)
        while not any(following.known for following in followings):
            await self.clock.sleep(1.0)
        await self.clock.sleep(ANSWER)
        if not any(seen.is_answered for following in followings for seen in following.known):
            raise BenchError(
                f"no controller has said anything about the objects in namespace {self.namespace} within "
                f"{ANSWER:.0f} s: does one run (kubectl get deployments -A | grep agent-sandbox), and does it watch "
                "all namespaces? --controller COMMAND starts one"
            )

    # The stage of a scenario

    async def prepare(self, pool: int) -> None:
        """Make the template and a pool of that size (none for 0), and wait until the pool is full and all is quiet."""
        await self.create(self.dialect.templates, self.dialect.template(TEMPLATE, self.pod))
        if (cold := self.dialect.cold_pool(TEMPLATE)) is not None:
            await self.create(self.dialect.pools, cold)
        if pool:
            await self.fill(pool)
        await self.settle()

    async def fill(self, size: int) -> None:
        """Make the pool and wait until all members are Ready."""
        with self.pools.expect(POOL, lambda seen: seen.status.ready_replicas == size) as full:
            await self.create(self.dialect.pools, self.dialect.pool(POOL, TEMPLATE, size))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tell_how_full, size)
                await self.within_patience(full.met(), f"the pool is not full with {size} members")
                tasks.cancel_scope.cancel()

    async def _tell_how_full(self, size: int) -> None:
        while True:
            await self.clock.sleep(TELL_EVERY)
            ready = sum(seen.is_ready for seen in self.sandboxes.known)
            self.say(f"  {ready:,} of {size:,} members of the pool are Ready{self._trouble()[:120]} …")

    async def clear(self, *, watched: bool) -> None:
        """Delete what the scenario made, and wait until the Pods are gone.

        Args:
            watched: controllers still run and would replace what is missing.

        Raises:
            BenchError: Pods are left after ``Sizes.patience``.
        """
        self.say("  removing what it made …")
        kinds = [*(self._kinds if watched else reversed(self._kinds)), self.dialect.templates]
        await remove_all(self.client, kinds, self.namespace, clock=self.clock, say=self.say)
        with anyio.move_on_after(self.sizes.patience):
            while (await self.client.list_page(PODS, self.namespace, limit=1)).items:
                await self.clock.sleep(0.5)
            return
        raise BenchError(
            f"Pods are still there after {self.sizes.patience:.0f} s: kubectl get pods -n {self.namespace}"
        )

    async def settle(self) -> None:
        """Wait until nothing changes any more."""
        followings = (self.claims, self.sandboxes, self.pools)
        since = self.clock.monotonic()
        while (left := max(since, *(each.changed for each in followings)) + QUIET - self.clock.monotonic()) > 0:
            await self.clock.sleep(left)

    # One step of a scenario

    async def claim(self, taken: Taken, name: str, pool: str | None) -> Seen:
        """Ask for a Sandbox and wait until the claim is Ready; one sample."""
        with self.claims.expect(name, lambda seen: seen.is_ready) as ready:
            asked = self.clock.monotonic()
            await self.create(self.dialect.claims, self.dialect.claim(name, TEMPLATE, pool))
            taken.add(asked, await self.within_patience(ready.met(), f"claim {name} is not Ready"))
        assert ready.view is not None
        return ready.view

    async def many(self, work: Callable[[int], Any], count: int, in_flight: int) -> None:
        """Do a numbered step many times, so many at a time."""
        numbers: Iterable[int] = iter(range(count))

        async def client() -> None:
            for number in numbers:
                await work(number)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(count, in_flight)):
                tasks.start_soon(client)

    async def create(self, resource: Resource[Seen], body: dict[str, Any]) -> Seen:
        """Create an object in the namespace."""
        return await self.client.create(resource, body, self.namespace)

    async def change(self, resource: Resource[Seen], name: str, patch: dict[str, Any]) -> Seen:
        """Merge a change into an object."""
        return await self.client.patch(resource, name, MergePatch(patch), self.namespace)

    async def within_patience(self, waiting: Awaitable[T], otherwise: str) -> T:
        """Await something.

        Raises:
            BenchError: it did not come in time.
        """
        with anyio.move_on_after(self.sizes.patience):
            return await waiting
        raise BenchError(f"{otherwise} after {self.sizes.patience:.0f} s{self._trouble()}")

    def _trouble(self) -> str:
        """What one of the objects that are not Ready says of itself."""
        for following in (self.claims, self.sandboxes):
            for seen in following.known:
                if words := seen.trouble:
                    return f"; {seen.metadata.name}: {words}"
        return ""

    # Measuring

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[Taken]:
        """Meter the block and everything that follows from it, until the cluster is at rest again."""
        server, own = await read_server(self.client), Counter(self.counting.writes)
        process = await self.subject.read()
        taken = Taken(self.clock.monotonic())
        yield taken
        await self.settle()
        taken.cost = _difference(
            (server, await read_server(self.client)),
            (process, await self.subject.read()),
            self.counting.writes - own,
        )


def _difference(
    server: tuple[ServerReading, ServerReading],
    process: tuple[ProcessReading | None, ProcessReading | None],
    own: Writes,
) -> Cost:
    before, after = server
    writes = None if before.writes is None or after.writes is None else after.writes - before.writes - own
    server_cpu = (
        None if before.cpu_seconds is None or after.cpu_seconds is None else after.cpu_seconds - before.cpu_seconds
    )
    began, ended = process
    if began is None or ended is None:
        return Cost(writes=writes, server_cpu=server_cpu)
    return Cost(writes, server_cpu, ended.cpu_seconds - began.cpu_seconds, ended.memory_bytes)
