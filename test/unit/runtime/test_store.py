"""The store's rules one by one; test_store_model.py plays all of them against a model."""

from datetime import UTC, datetime

import pytest

from agent_sandbox.runtime import Change
from agent_sandbox.runtime.store import StoreWriter
from agent_sandbox_api.core import MetaOnlyView
from agent_sandbox_api.views import MetaView


class HandClock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def view(name: str, version: int, *, uid: str = "", namespace: str = "n", **labels: str) -> MetaOnlyView:
    return MetaOnlyView(
        MetaView(name=name, namespace=namespace, uid=uid or f"uid-{name}", resource_version=str(version), labels=labels)
    )


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def writer(clock: HandClock) -> StoreWriter[MetaOnlyView]:
    return StoreWriter(clock=clock)


def version_of(writer: StoreWriter[MetaOnlyView], name: str) -> str | None:
    known = writer.store.get("n", name)
    return known.metadata.resource_version if known is not None else None


def test_a_list_makes_the_store_equal_to_it(writer: StoreWriter[MetaOnlyView]) -> None:
    first, second, third = view("a", 1), view("b", 2), view("c", 3)
    assert writer.replace("", [first, second], "2", began=0) == [Change(None, first), Change(None, second)]

    newer = view("b", 4)
    changes = writer.replace("", [newer, third], "5", began=0)
    assert changes == [Change(first, None), Change(second, newer), Change(None, third)]
    assert {each.metadata.name for each in writer.store} == {"b", "c"}
    assert writer.progress == 5


def test_a_list_of_one_namespace_leaves_the_others_alone(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("n", [view("a", 1)], "1", began=0)
    writer.replace("m", [view("a", 2, namespace="m", uid="other")], "2", began=0)
    writer.replace("m", [], "3", began=0)

    assert [each.metadata.namespace for each in writer.store] == ["n"]


def test_an_own_write_is_visible_at_once_and_not_overtaken_by_older_events(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("", [view("a", 1)], "1", began=0)
    assert len(writer.remember(view("a", 5))) == 1

    assert writer.apply("", view("a", 3)) == []
    assert version_of(writer, "a") == "5"
    assert writer.apply("", view("a", 5)) == [], "its own event brings no second change"
    assert len(writer.apply("", view("a", 7))) == 1


def test_the_late_answer_to_an_own_write_does_not_bring_back_what_was_deleted_since(
    writer: StoreWriter[MetaOnlyView],
) -> None:
    """The interleaving: PATCH is carried out as version 5; the watch delivers 5 and the deletion 6; then the answer
    of the PATCH is read."""
    writer.replace("", [view("a", 1)], "1", began=0)
    writer.apply("", view("a", 5))
    writer.remove("", view("a", 6))

    assert writer.remember(view("a", 5)) == []
    assert version_of(writer, "a") is None


def test_a_list_that_was_asked_for_before_an_own_create_does_not_remove_its_object(
    writer: StoreWriter[MetaOnlyView],
) -> None:
    writer.remember(view("a", 8))
    writer.replace("", [], "7", began=0)

    assert version_of(writer, "a") == "8"


def test_an_own_delete_leaves_a_tombstone_until_the_watch_confirms_it(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("", [view("a", 1)], "1", began=0)
    assert len(writer.bury("n", "a", "uid-a")) == 1

    assert writer.apply("", view("a", 2)) == [], "an older event about what we deleted"
    assert version_of(writer, "a") is None
    writer.remove("", view("a", 3))
    assert len(writer.apply("", view("a", 4, uid="successor"))) == 1


def test_a_tombstone_does_not_hide_the_successor_of_the_same_name(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("", [view("a", 1)], "1", began=0)
    writer.bury("n", "a", "uid-a")
    writer.remember(view("a", 5, uid="successor"))

    assert version_of(writer, "a") == "5"
    writer.remove("", view("a", 4))
    assert version_of(writer, "a") == "5", "the predecessor's deletion does not concern it"


def test_an_own_delete_also_ends_what_had_the_name_before(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("", [], "1", began=0)
    writer.remember(view("a", 9, uid="second"))
    writer.bury("n", "a", "second")

    assert writer.apply("", view("a", 5, uid="first")) == [], "the watch is behind: it was gone before the second came"
    assert len(writer.apply("", view("a", 12, uid="third"))) == 1


def test_a_list_that_was_asked_for_before_the_delete_does_not_bring_the_object_back(
    writer: StoreWriter[MetaOnlyView], clock: HandClock
) -> None:
    began = clock.monotonic()
    clock.seconds = 1
    writer.bury("n", "a", "uid-a")
    writer.replace("", [view("a", 1)], "1", began=began)
    assert version_of(writer, "a") is None

    clock.seconds = 2
    writer.replace("", [], "2", began=2)
    assert writer._tombstones == {}, "a list that began after the delete and lacks the object confirms it"


def test_tombstones_are_forgotten_after_a_time(writer: StoreWriter[MetaOnlyView], clock: HandClock) -> None:
    writer.bury("n", "a", "uid-a")
    clock.seconds = 601
    writer.bury("n", "b", "uid-b")

    assert set(writer._tombstones) == {"uid-b"}


def test_a_repeated_event_is_ignored(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.apply("", view("a", 1))
    writer.remove("", view("a", 2))

    assert writer.apply("", view("a", 1)) == []
    assert writer.remove("", view("a", 2)) == []
    assert len(writer.store) == 0


def test_an_own_write_that_leaves_the_selector_leaves_the_store(clock: HandClock) -> None:
    writer: StoreWriter[MetaOnlyView] = StoreWriter(clock=clock, admits=lambda v: v.metadata.labels.get("pool") == "x")
    writer.replace("", [view("a", 1, pool="x")], "1", began=0)

    assert len(writer.remember(view("a", 5, pool="y"))) == 1
    assert writer.apply("", view("a", 3, pool="x")) == [], "older than what we wrote"
    assert version_of(writer, "a") is None
    assert len(writer.apply("", view("a", 9, pool="x"))) == 1, "somebody gave it back"


def test_an_own_write_under_a_field_selector_changes_only_what_is_known(clock: HandClock) -> None:
    writer: StoreWriter[MetaOnlyView] = StoreWriter(clock=clock, admits_unknown=False)
    writer.replace("", [view("a", 1)], "1", began=0)

    assert writer.remember(view("b", 3)) == []
    assert len(writer.remember(view("a", 4))) == 1


def test_indexes_follow_every_change(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("", [view("a", 1, app="x")], "1", began=0)
    writer.add_index("app", lambda v: [v.metadata.labels["app"]] if "app" in v.metadata.labels else [])
    writer.apply("", view("b", 2, app="x"))
    assert [each.metadata.name for each in writer.store.by_index("app", "x")] == ["a", "b"]

    writer.apply("", view("a", 3, app="y"))
    writer.remove("", view("b", 4))
    assert writer.store.index_values("app") == ["y"]
    assert writer.store.by_index("app", "x") == []
    assert [each.metadata.resource_version for each in writer.store.by_index("app", "y")] == ["3"]

    writer.apply("", view("a", 5))
    assert writer.store.index_values("app") == []


def test_an_unknown_index_is_named_in_the_error(writer: StoreWriter[MetaOnlyView]) -> None:
    with pytest.raises(KeyError, match="no index 'owner'"):
        writer.store.by_index("owner", "x")


def test_two_functions_under_one_index_name_are_refused(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.add_index("app", lambda v: [v.metadata.name])
    with pytest.raises(ValueError, match="another function"):
        writer.add_index("app", lambda v: [v.metadata.uid])


def test_listing_selects_by_namespace_and_labels(writer: StoreWriter[MetaOnlyView]) -> None:
    writer.replace("", [view("a", 1, app="x"), view("b", 2, namespace="m", app="x"), view("c", 3)], "3", began=0)

    assert [each.metadata.name for each in writer.store.list("n")] == ["a", "c"]
    assert [each.metadata.name for each in writer.store.list(selector={"app": "x"})] == ["a", "b"]


def test_versions_that_are_no_integers_are_taken_as_they_come(writer: StoreWriter[MetaOnlyView]) -> None:
    old, new = (MetaOnlyView(MetaView(name="a", namespace="n", uid="u", resource_version=v)) for v in ("xyz", "abc"))
    writer.apply("", old)

    assert len(writer.apply("", new)) == 1
