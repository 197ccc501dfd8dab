"""What a watcher asks the server for after each kind of end, and how soon: a list is the costliest thing to ask for."""

import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Unpack

import anyio
import pytest

from agent_sandbox.kube import KubeClient, OutcomeUnknownError, RawResponse, RawStream
from agent_sandbox.kube.transport import RequestOptions, StreamOptions, TransportDecorator
from agent_sandbox.runtime import WatchOptions
from agent_sandbox.runtime.watcher import Watcher
from agent_sandbox.testing import InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import PODS, PodView

pytestmark = pytest.mark.virtual_time

STREAMED_LIST = {"sendInitialEvents", "resourceVersionMatch"}


class Ended:
    """A watch that the server closes at once."""

    status = 200
    headers: Mapping[str, str] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""


class Gone(Ended):
    """A watch from a version that the server no longer knows."""

    status = 410

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"kind":"Status","status":"Failure","reason":"Expired","code":410}'


class Breaking(Ended):
    """A watch whose connection dies."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise OutcomeUnknownError("the connection broke")
        yield b""


class Wire(TransportDecorator):
    """Notes what is asked for, and answers the first watches as it is told.

    Attributes:
        lists: when each page of a list was asked for, by the loop's time.
        watches: the version from which each watch was asked for, and when.
        answers: these take the place of the next watches.
        is_old: does not know streamed lists, and ignores what it does not know.
    """

    def __init__(self, server: InMemoryApiServer, *, is_old: bool = False) -> None:
        super().__init__(server.transport())
        self.lists: list[float] = []
        self.watches: list[tuple[str, float]] = []
        self.answers: list[RawStream] = []
        self.is_old = is_old

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        self.lists.append(anyio.current_time())
        return await super().request(method, path, **options)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[RawStream]:
        query = options.get("query", {})
        self.watches.append((query.get("resourceVersion", ""), anyio.current_time()))
        if self.answers:
            yield self.answers.pop(0)
            return
        if self.is_old:
            options["query"] = {key: value for key, value in query.items() if key not in STREAMED_LIST}
        async with super().stream(method, path, **options) as stream:
            yield stream


class Findings:
    """A feed that counts."""

    def __init__(self) -> None:
        self.lists = 0
        self.applied_names: list[str] = []

    def replaced(self, views: Sequence[PodView], resource_version: str, began: float) -> None:
        self.lists += 1

    def applied(self, view: PodView) -> None:
        self.applied_names.append(view.metadata.name)

    def deleted(self, view: PodView) -> None:
        """Nothing is deleted here."""

    def advanced(self, resource_version: str) -> None:
        """Bookmarks are of no concern here."""


@pytest.fixture
async def server(virtual_clock: VirtualClock) -> AsyncIterator[InMemoryApiServer]:
    # Opened by hand: pytest ends fixtures in another task, which a task group does not survive.
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield server
    await server.server.aclose()


@asynccontextmanager
async def watching(wire: Wire, clock: VirtualClock, *, streamed: bool = False) -> AsyncIterator[Findings]:
    findings = Findings()
    watcher = Watcher(
        KubeClient(wire, clock=clock),
        PODS,
        findings,
        clock=clock,
        random=random.Random(1),
        options=WatchOptions(streamed_list=streamed),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        yield findings
        tasks.cancel_scope.cancel()


async def create(server: InMemoryApiServer, name: str) -> PodView:
    spec = {"containers": [{"name": "main", "image": "localhost/host"}]}
    return await KubeClient(server.transport()).create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")


@pytest.mark.parametrize("answer", [Breaking(), Ended()], ids=["broken", "ended"])
async def test_a_watch_that_ends_is_opened_again_behind_its_last_event_without_a_list(
    server: InMemoryApiServer, virtual_clock: VirtualClock, answer: RawStream
) -> None:
    await create(server, "a")
    wire = Wire(server)
    wire.answers = [answer]
    async with watching(wire, virtual_clock) as findings:
        await virtual_clock.sleep(10)
        await create(server, "b")
        await virtual_clock.sleep(1)

    assert findings.applied_names == ["b"]
    assert len(wire.lists) == 1
    assert len({version for version, _ in wire.watches}) == 1


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_busy_loop(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    wire = Wire(server)
    wire.answers = [Ended() for _ in range(6)]
    async with watching(wire, virtual_clock):
        await virtual_clock.sleep(120)

    moments = [moment for _, moment in wire.watches]
    assert len(moments) == 7
    assert all(later - earlier >= 0.8 for earlier, later in itertools.pairwise(moments))


async def test_a_version_that_is_too_old_right_after_the_list_is_a_failure_and_lists_are_spaced(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    wire = Wire(server)
    wire.answers = [Gone() for _ in range(6)]
    async with watching(wire, virtual_clock) as findings:
        await virtual_clock.sleep(300)

    assert findings.lists == len(wire.lists) == 7
    pauses = [later - earlier for earlier, later in itertools.pairwise(wire.lists)]
    assert min(pauses) >= 0.8
    assert max(pauses) > 10, "they grow"


async def test_a_server_that_ignores_the_wish_for_a_streamed_list_is_asked_for_pages(
    server: InMemoryApiServer, virtual_clock: VirtualClock
) -> None:
    await create(server, "a")
    wire = Wire(server, is_old=True)
    async with watching(wire, virtual_clock, streamed=True) as findings:
        await virtual_clock.sleep(200)  # it tells by its first ordinary bookmark, about once a minute

    assert len(wire.lists) == 1
    assert findings.lists == 1
