"""What the reconcilers remember between two passes: lines, holds, recreations, and when to forget."""

import pytest

from agent_sandbox.runtime import Request
from agent_sandbox_controllers.holding import WriteHold
from agent_sandbox_controllers.memory import Identities
from agent_sandbox_controllers.recreation import FIRST_DELAY, FORGIVEN_AFTER, LONGEST_DELAY, Recreation
from agent_sandbox_controllers.sandboxclaim.line import Line
from agent_sandbox_controllers.sandboxwarmpool.pacing import Pacing
from agent_sandbox_controllers.urgency import Urgency

ONE, TWO, THREE = (Request("default", name) for name in ("one", "two", "three"))


# The line in front of the pools


def test_a_member_is_reserved_for_as_long_as_somebody_tries_to_take_it() -> None:
    line = Line()
    with line.reserve("member"):
        assert line.is_reserved("member")
        assert not line.is_reserved("other")
    assert not line.is_reserved("member")


def test_who_has_waited_longest_is_called_first_and_keeps_its_place_by_asking_again() -> None:
    line = Line()
    line.join("pool", ONE)
    line.join("pool", TWO)
    line.join("pool", ONE)

    assert [line.ahead_of("pool", each) for each in (ONE, TWO, THREE)] == [0, 1, 2]
    assert [line.call_next(["pool"]) for _ in range(3)] == [ONE, TWO, None]
    assert len(line) == 0


def test_the_first_place_where_anybody_waits_is_served_and_who_is_called_waits_nowhere() -> None:
    line = Line()
    line.join("template", ONE)
    line.join("pool", TWO)
    line.join("template", TWO)

    assert line.call_next(["nobody", "pool", "template"]) == TWO
    assert line.call_next(["pool"]) is None
    line.leave(ONE)
    assert len(line) == 0


# Status writes that are held back


def test_progress_is_held_back_ever_longer_and_news_and_obstacles_are_not() -> None:
    hold = WriteHold((4, 15))
    assert hold.wait_for("a", Urgency.NOW, 0) == 0
    assert hold.wait_for("a", Urgency.PROGRESS, 0) == 4
    assert hold.wait_for("a", Urgency.PROGRESS, 3) == 1
    assert hold.wait_for("a", Urgency.PROGRESS, 4) == 0

    hold.written("a")
    assert hold.wait_for("a", Urgency.NEWS, 5) == 0
    assert hold.wait_for("a", Urgency.PROGRESS, 5) == 15
    hold.written("a")
    hold.written("a")
    assert hold.wait_for("a", Urgency.PROGRESS, 40) == 15, "the last one repeats"


def test_an_object_that_never_becomes_ready_has_no_news_after_all_its_steps() -> None:
    hold = WriteHold((4, 15))
    hold.written("a")
    hold.written("a")
    assert hold.wait_for("a", Urgency.NEWS, 0) == 15


def test_a_difference_that_went_away_starts_a_new_wait_at_the_same_pace() -> None:
    hold = WriteHold((4, 15))
    hold.wait_for("a", Urgency.PROGRESS, 0)
    hold.settled("a")
    assert hold.wait_for("a", Urgency.PROGRESS, 3) == 4
    hold.written("a")
    hold.settled("a")
    assert hold.wait_for("a", Urgency.PROGRESS, 3) == 15
    hold.forget("a")
    assert hold.wait_for("a", Urgency.PROGRESS, 3) == 4
    hold.forget("a")
    assert len(hold) == 0


# What vanishes again and again


def test_the_first_is_made_at_once_and_each_further_one_waits_twice_as_long() -> None:
    recreation = Recreation()
    assert recreation.is_first("owner")
    assert recreation.wait_for("owner", 0) == 0

    waits = []
    now = 0.0
    for _ in range(9):
        recreation.made("owner", now)
        waits.append(recreation.wait_for("owner", now))
        now += waits[-1]
    assert waits == [min(LONGEST_DELAY, FIRST_DELAY * 2**count) for count in range(9)]
    assert not recreation.is_first("owner")


def test_what_lived_long_enough_ends_without_a_grudge() -> None:
    recreation = Recreation()
    for _ in range(6):
        recreation.made("owner", 0)
    recreation.made("owner", FORGIVEN_AFTER)
    assert recreation.wait_for("owner", FORGIVEN_AFTER) == FIRST_DELAY
    assert recreation.wait_for("owner", 2 * FORGIVEN_AFTER) == 0


def test_children_are_counted_apart_and_may_be_excused() -> None:
    recreation = Recreation()
    recreation.made("owner", 0, "Pod/a")
    assert recreation.wait_for("owner", 0, "Service/a") == 0
    recreation.excuse("owner", "Pod/a")
    assert recreation.wait_for("owner", 0, "Pod/a") == 0
    recreation.made("owner", 0, "Pod/a")
    recreation.forget("owner")
    assert recreation.is_first("owner", "Pod/a")


# Who is gone


def test_an_object_is_forgotten_when_it_goes_and_when_another_takes_its_name() -> None:
    forgotten: list[str] = []
    identities = Identities(forgotten.append)
    identities.seen(ONE, "first")
    identities.seen(ONE, "first")
    assert forgotten == []
    identities.seen(ONE, "second")
    assert forgotten == ["first"]
    identities.gone(ONE)
    identities.gone(ONE)
    assert forgotten == ["first", "second"]
    assert len(identities) == 0


# The refill of a pool


@pytest.mark.parametrize("created", [0, 1])
def test_members_that_could_not_be_created_are_no_loss_that_starts_the_delay(created: int) -> None:
    pacing = Pacing(delay=10, rate=0)
    assert pacing.grant("pool", members=0, desired=3, missing=3, now=0).count == 3
    pacing.give_back("pool", 3 - created)

    assert pacing.grant("pool", members=created, desired=3, missing=3 - created, now=1).count == 3 - created
