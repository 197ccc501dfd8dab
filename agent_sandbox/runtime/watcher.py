"""Follows one kind in one scope: list, watch, and whatever it takes to keep doing that.

In: a client. Out: calls to a ``Feed``, which is an informer's store. It cannot go silent: the server ends each watch
after five to ten minutes, a silence is cut here, and every failure leads, after a pause, back to a state that heals.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, assert_never

import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import (
    ApiError,
    BadRequestError,
    DecodeError,
    EventType,
    GoneError,
    InvalidError,
    KubeClient,
    KubeError,
)
from agent_sandbox.runtime.backoff import Backoff, BackoffOptions
from agent_sandbox_api.resource import Resource, V
from agent_sandbox_api.views import View

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How a watcher talks to the server.

    Attributes:
        page_size: objects per page of a list, 500 as client-go. 0 asks for all at once.
        streamed_list: ask for the initial state through the watch itself, which spares the server's memory, as
            client-go does since 1.35. A server that does not offer it is asked for pages from then on.
        server_timeout: the server ends a watch after a random time between these, 300 to 600 s as client-go.
        max_silence: seconds without a byte, bookmarks included, before the connection counts as dead, 180. Servers send
            a bookmark about once a minute, so much less cuts healthy watches; None trusts the connection.
        backoff: pauses after failures.
    """

    page_size: int = 500
    streamed_list: bool = True
    server_timeout: tuple[float, float] = (300.0, 600.0)
    max_silence: float | None = 180.0
    backoff: BackoffOptions = field(default_factory=BackoffOptions)


V_contra = TypeVar("V_contra", bound=View, contravariant=True)


class Feed(Protocol[V_contra]):
    """Where a watcher's findings go. All calls are synchronous and must be short."""

    def replaced(self, views: Sequence[V_contra], resource_version: str, began: float) -> None:
        """This is the whole scope; the list was asked for at ``began``, monotonic."""

    def applied(self, view: V_contra) -> None:
        """This object was added or changed."""

    def deleted(self, view: V_contra) -> None:
        """This object was deleted or left the selector."""

    def advanced(self, resource_version: str) -> None:
        """Nothing changed up to this version."""


# The states. Each says what is true in it; step() says what follows.


@dataclass(frozen=True)
class Unlisted:
    """Nothing usable is known. Next: the first page of a list, or a streamed list.

    ``whole``: pages expired while they were read, so everything is asked for in one piece.
    """

    whole: bool = False


@dataclass(frozen=True)
class Listing(Generic[V]):
    """Some pages have arrived; ``token`` names the next. Next: that page."""

    views: tuple[V, ...]
    token: str
    began: float


@dataclass(frozen=True)
class Current:
    """The feed holds everything up to this version. Next: a watch from there, for as long as it lasts."""

    resource_version: str


@dataclass(frozen=True)
class Waiting:
    """The last step failed. Next: a pause of that many seconds, then the state that is tried again."""

    seconds: float
    then: "Unlisted | Current"
    reason: str


State: TypeAlias = Unlisted | Listing[Any] | Current | Waiting


class Watcher(Generic[V]):
    """Runs the state machine. ``state`` may be looked at, for readiness and introspection."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource[V],
        feed: Feed[V],
        *,
        clock: Clock,
        random: random.Random,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        options: WatchOptions | None = None,
    ) -> None:
        self.state: State = Unlisted()
        self._client = client
        self._resource = resource
        self._feed = feed
        self._clock = clock
        self._random = random
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._options = options or WatchOptions()
        self._backoff = Backoff(self._options.backoff, clock=clock, random=random)
        self._streams_lists = self._options.streamed_list
        self._log = log.bind(resource=str(resource), namespace=namespace)
        # The version from which a watch that breaks now would be resumed. Moves with every event.
        self._position = ""
        # When the scope was last listed to the end; a 410 soon after is a failure and not a matter of age.
        self._listed_at: float | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self.state = await self.step(self.state)

    async def step(self, state: State) -> State:
        """Do what the state says; the state that follows. Raises nothing but cancellation and bugs."""
        if isinstance(state, Waiting):
            await self._clock.sleep(state.seconds)
            return state.then
        try:
            return await self._advance(state)
        except GoneError as error:
            return self._relist(state, error)
        except KubeError as error:
            return self._retry(state, error)

    async def _advance(self, state: Unlisted | Listing[V] | Current) -> State:
        match state:
            case Unlisted():
                if self._streams_lists:
                    return await self._stream_list()
                return await self._list_page(Listing((), "", self._clock.monotonic()), whole=state.whole)
            case Listing():
                return await self._list_page(state)
            case Current():
                return await self._watch(state)
            case _:
                assert_never(state)

    # One method per thing that a step can do

    async def _list_page(self, so_far: Listing[V], *, whole: bool = False) -> State:
        page = await self._client.list_page(
            self._resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            limit=0 if whole else self._options.page_size,
            continue_token=so_far.token,
            on_undecodable=self._leave_out,
        )
        views = (*so_far.views, *page.items)
        if page.continue_token:
            return Listing(views, page.continue_token, so_far.began)
        return self._listed(views, page.resource_version, so_far.began)

    def _listed(self, views: Sequence[V], resource_version: str, began: float) -> Current:
        self._feed.replaced(views, resource_version, began)
        self._listed_at = self._clock.monotonic()
        self._position = resource_version
        return Current(resource_version)

    async def _watch(self, state: Current) -> State:
        self._position = state.resource_version
        opened = self._clock.monotonic()
        events_seen = 0
        async with self._client.watch(
            self._resource,
            self._namespace,
            resource_version=state.resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=self._server_timeout(),
            read_timeout=self._options.max_silence,
            on_undecodable=self._leave_out,
        ) as events:
            async for event in events:
                events_seen += 1
                self._take(event.type, event.view, event.resource_version)
        if not events_seen and self._clock.monotonic() - opened < 1.0:
            # As client-go: a server or proxy that ends watches at once must not be asked in a busy loop.
            return Waiting(self._backoff.next_pause(), Current(self._position), "the watch ended at once")
        return Current(self._position)

    def _take(self, kind: EventType, view: V | None, resource_version: str) -> None:
        if kind is EventType.BOOKMARK:
            self._feed.advanced(resource_version)
        elif view is not None:
            if kind is EventType.DELETED:
                self._feed.deleted(view)
            else:
                self._feed.applied(view)
        self._position = resource_version or self._position

    async def _stream_list(self) -> State:
        """List and watch in one request; falls back to pages for good if the server does not offer that."""
        began = self._clock.monotonic()
        # By UID, what the stream has shown so far; None once it was complete and the stream has become a watch.
        initial: dict[str, V] | None = {}
        try:
            async with self._client.watch(
                self._resource,
                self._namespace,
                resource_version="",
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                timeout_seconds=self._server_timeout(),
                read_timeout=self._options.max_silence,
                send_initial_events=True,
                on_undecodable=self._leave_out,
            ) as events:
                async for event in events:
                    if initial is None:
                        self._take(event.type, event.view, event.resource_version)
                    elif event.initial_events_end:
                        self._listed([*initial.values()], event.resource_version, began)
                        initial = None
                    elif event.type is EventType.BOOKMARK:
                        # A server older than 1.27 ignores the wish and sends an ordinary bookmark some time.
                        return self._use_pages("an ordinary bookmark came first")
                    elif event.type is EventType.DELETED:
                        initial.pop(event.object.metadata.uid, None)
                    else:
                        initial[event.object.metadata.uid] = event.object
        except (BadRequestError, InvalidError) as error:
            return self._use_pages(str(error))
        except KubeError as error:
            if initial is None:
                return self._retry(Current(self._position), error)
            raise
        if initial is not None:
            return Waiting(self._backoff.next_pause(), Unlisted(), "the streamed list ended before it was complete")
        return Current(self._position)

    def _use_pages(self, reason: str) -> Unlisted:
        self._log.info("the server offers no streamed lists, pages are used", reason=reason)
        self._streams_lists = False
        return Unlisted()

    def _leave_out(self, error: DecodeError) -> None:
        # One odd object must not keep all others from being seen.
        self._log.error("an object is left out of the cache, or stays in it as it was", error=str(error))

    def _server_timeout(self) -> int:
        return round(self._random.uniform(*self._options.server_timeout))

    # What follows a failure

    def _relist(self, state: Unlisted | Listing[V] | Current, error: GoneError) -> State:
        if isinstance(state, Listing):
            return Unlisted(whole=True)
        now = self._clock.monotonic()
        if self._listed_at is not None and now - self._listed_at > self._options.backoff.base:
            self._log.info("the version is too old, listing again", error=str(error))
            self._listed_at = now
            return Unlisted()
        return Waiting(self._backoff.next_pause(), Unlisted(), str(error))

    def _retry(self, state: Unlisted | Listing[V] | Current, error: KubeError) -> Waiting:
        pause = self._backoff.next_pause()
        if isinstance(error, ApiError) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
        then = Current(self._position) if isinstance(state, Current) else Unlisted()
        self._log.warning("watching failed, trying again", error=str(error), pause=round(pause, 2))
        return Waiting(pause, then, str(error))
