"""The store between a server that changes, a watch that lags and repeats, lists that are old when they arrive, and own
writes whose answers come late: it never lies about its own writes, and in the end equals the server."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_sandbox.runtime.store import Key, StoreWriter
from agent_sandbox_api.core import MetaOnlyView
from agent_sandbox_api.views import MetaView, key_of

names = st.sampled_from("abc")


class TickingClock:
    """Each look is a little later than the one before."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        self.seconds += 0.001
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(frozen=True)
class Event:
    """One entry of the server's history."""

    deleted: bool
    view: MetaOnlyView


@dataclass
class Server:
    """A model of an API server: objects, one counter, a history."""

    version: int = 0
    uids: int = 0
    objects: dict[Key, MetaOnlyView] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)

    def write(self, name: str) -> MetaOnlyView:
        """Create or change."""
        self.version += 1
        known = self.objects.get(("n", name))
        if known is None:
            self.uids += 1
        uid = known.metadata.uid if known is not None else f"uid-{self.uids}"
        view = MetaOnlyView(MetaView(name=name, namespace="n", uid=uid, resource_version=str(self.version)))
        self.objects["n", name] = view
        self.history.append(Event(deleted=False, view=view))
        return view

    def delete(self, name: str) -> str:
        """Delete; the UID of what is gone."""
        self.version += 1
        old = self.objects.pop(("n", name)).metadata
        last = MetaOnlyView(MetaView(name=name, namespace="n", uid=old.uid, resource_version=str(self.version)))
        self.history.append(Event(deleted=True, view=last))
        return old.uid


class StoreMachine(RuleBasedStateMachine):
    """A server, a watch with a cursor, and a store."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = TickingClock()
        self.server = Server()
        self.writer: StoreWriter[MetaOnlyView] = StoreWriter(clock=self.clock)
        self.cursor = 0
        self.late_writes: list[MetaOnlyView] = []
        self.late_deletes: list[tuple[str, str]] = []
        self.snapshot: tuple[list[MetaOnlyView], str, float, int] | None = None
        self.answered: dict[str, int] = {}
        self.buried: set[str] = set()
        self.last_versions: dict[str, int] = {}

    # What happens at the server

    @rule(name=names)
    def somebody_writes(self, name: str) -> None:
        self.server.write(name)

    @rule(name=names)
    def somebody_deletes(self, name: str) -> None:
        if ("n", name) in self.server.objects:
            self.server.delete(name)

    # Own writes

    @rule(name=names, late=st.booleans())
    def own_write(self, name: str, late: bool) -> None:
        view = self.server.write(name)
        if late:
            self.late_writes.append(view)
        else:
            self.answer_write(view)

    @rule(name=names, late=st.booleans())
    def own_delete(self, name: str, late: bool) -> None:
        if ("n", name) not in self.server.objects:
            return
        uid = self.server.delete(name)
        if late:
            self.late_deletes.append((name, uid))
        else:
            self.answer_delete(name, uid)

    @precondition(lambda self: self.late_writes)
    @rule(data=st.data())
    def a_late_answer_arrives(self, data: st.DataObject) -> None:
        view = data.draw(st.sampled_from(self.late_writes))
        self.late_writes.remove(view)
        self.answer_write(view)

    @precondition(lambda self: self.late_deletes)
    @rule()
    def a_late_delete_is_answered(self) -> None:
        self.answer_delete(*self.late_deletes.pop(0))

    def answer_write(self, view: MetaOnlyView) -> None:
        self.writer.remember(view)
        uid = view.metadata.uid
        self.answered[uid] = max(int(view.metadata.resource_version), self.answered.get(uid, 0))

    def answer_delete(self, name: str, uid: str) -> None:
        self.writer.bury("n", name, uid)
        self.buried.add(uid)

    # The watch and the lists

    @precondition(lambda self: self.snapshot is None)
    @rule(count=st.integers(1, 4))
    def events_arrive(self, count: int) -> None:
        for event in self.server.history[self.cursor : self.cursor + count]:
            self.deliver(event)
        self.cursor = min(self.cursor + count, len(self.server.history))

    @precondition(lambda self: self.snapshot is None and self.cursor)
    @rule(data=st.data())
    def an_old_event_is_repeated(self, data: st.DataObject) -> None:
        self.deliver(self.server.history[data.draw(st.integers(0, self.cursor - 1))])

    def deliver(self, event: Event) -> None:
        if event.deleted:
            self.writer.remove("", event.view)
        else:
            self.writer.apply("", event.view)

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def a_list_is_taken(self) -> None:
        began = self.clock.monotonic()
        server = self.server
        self.snapshot = ([*server.objects.values()], str(server.version), began, len(server.history))

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def the_list_arrives(self) -> None:
        assert self.snapshot is not None
        views, version, began, self.cursor = self.snapshot
        self.snapshot = None
        self.writer.replace("", views, version, began=began)

    # What must hold

    @invariant()
    def own_writes_are_visible(self) -> None:
        deleted = {event.view.metadata.uid for event in self.server.history if event.deleted}
        held = {view.metadata.uid: view for view in self.writer.store}
        for uid, version in self.answered.items():
            if uid in held:
                assert int(held[uid].metadata.resource_version) >= version, "older than an own write"
            else:
                assert uid in deleted, "an own write is missing"

    @invariant()
    def own_deletes_stay_deleted(self) -> None:
        assert not self.buried & {view.metadata.uid for view in self.writer.store}

    @invariant()
    def what_the_watch_saw_deleted_stays_deleted(self) -> None:
        seen = {event.view.metadata.uid for event in self.server.history[: self.cursor] if event.deleted}
        assert not seen & {view.metadata.uid for view in self.writer.store}

    @invariant()
    def no_object_goes_back_in_time(self) -> None:
        for view in self.writer.store:
            uid, version = view.metadata.uid, int(view.metadata.resource_version)
            assert version >= self.last_versions.get(uid, 0)
            self.last_versions[uid] = version

    def teardown(self) -> None:
        """Everything under way arrives: the store equals the server."""
        if self.snapshot is not None:
            self.the_list_arrives()
        self.events_arrive(len(self.server.history))
        while self.late_writes:
            self.answer_write(self.late_writes.pop())
        while self.late_deletes:
            self.answer_delete(*self.late_deletes.pop())
        assert {key_of(view): view for view in self.writer.store} == self.server.objects


TestStoreAgainstTheServer = StoreMachine.TestCase
TestStoreAgainstTheServer.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    # Phase.explain traces every line before Python 3.12, which is forty times slower.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
