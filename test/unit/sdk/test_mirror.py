"""Directory sync: the patterns and the decisions, which are pure."""

import pytest

from agent_sandbox.sdk.errors import SandboxProtocolError
from agent_sandbox.sdk.ignoring import IgnoreRules
from agent_sandbox.sdk.mirror_plan import Action, Agreement, Direction, Fingerprint, Preference, plan
from agent_sandbox.sdk.mirroring import checked_name

OLD, NEW, BIG = Fingerprint(1, 1.0), Fingerprint(1, 2.0), Fingerprint(9, 3.0)
AGREED = {"a": Agreement(OLD, OLD)}
U, D, RL, RR, CMP, CON = (
    Action.UPLOAD,
    Action.DOWNLOAD,
    Action.REMOVE_LOCAL,
    Action.REMOVE_REMOTE,
    Action.COMPARE,
    Action.CONFLICT,
)


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.pyc", "a/b.pyc", True),
        ("*.pyc", "a.pyc.txt", False),
        ("/a", "a", True),
        ("/a", "b/a", False),
        ("a/b", "a/b", True),
        ("a/b", "x/a/b", False),
        ("**/b", "x/y/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/d/c", True),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("*", "a/b", True),
        (r"\#a", "#a", True),
        ("# a", "# a", False),
        ("", "a", False),
        ("a.b", "axb", False),
        ("build/", "build", False),
    ],
)
def test_a_pattern_means_what_it_means_to_git(pattern: str, path: str, ignored: bool) -> None:
    assert IgnoreRules([pattern]).ignores(path) is ignored


def test_a_trailing_slash_means_directories() -> None:
    rules = IgnoreRules(["build/"])

    assert rules.ignores("x/build", directory=True)
    assert not rules.ignores("x/build")


def test_the_last_pattern_that_matches_decides() -> None:
    rules = IgnoreRules(["*.log", "!keep.log"])

    assert rules.ignores("a.log")
    assert not rules.ignores("d/keep.log")


@pytest.mark.parametrize(
    ("here", "there", "agreed", "action"),
    [
        (OLD, None, {}, U),
        (None, OLD, {}, D),
        (OLD, OLD, AGREED, None),
        (NEW, OLD, AGREED, U),
        (OLD, NEW, AGREED, D),
        (NEW, NEW, AGREED, CMP),
        (NEW, BIG, AGREED, CON),
        (OLD, OLD, {}, CMP),
        (OLD, BIG, {}, CON),
        (OLD, None, AGREED, RL),
        (None, OLD, AGREED, RR),
        (NEW, None, AGREED, U),
        (None, NEW, AGREED, D),
    ],
)
def test_the_side_that_changed_wins_and_two_changes_are_a_conflict(
    here: Fingerprint | None, there: Fingerprint | None, agreed: dict[str, Agreement], action: Action | None
) -> None:
    local = {"a": here} if here else {}
    remote = {"a": there} if there else {}

    assert plan(local, remote, agreed, delete=True).get("a") is action


@pytest.mark.parametrize(
    ("direction", "here", "there", "agreed", "action"),
    [
        ("up", NEW, BIG, AGREED, U),
        ("up", OLD, NEW, AGREED, U),
        ("up", None, OLD, {}, RR),
        ("up", None, NEW, AGREED, RR),
        ("up", OLD, None, AGREED, U),
        ("down", NEW, BIG, AGREED, D),
        ("down", NEW, OLD, AGREED, D),
        ("down", OLD, None, {}, RL),
        ("down", NEW, None, AGREED, RL),
        ("down", None, OLD, AGREED, D),
    ],
)
def test_with_a_direction_one_side_is_always_right(
    direction: Direction,
    here: Fingerprint | None,
    there: Fingerprint | None,
    agreed: dict[str, Agreement],
    action: Action,
) -> None:
    local = {"a": here} if here else {}
    remote = {"a": there} if there else {}

    assert plan(local, remote, agreed, direction=direction, delete=True) == {"a": action}


@pytest.mark.parametrize(("prefer", "action"), [(None, CON), ("local", U), ("remote", D)])
def test_a_preference_settles_conflicts(prefer: Preference | None, action: Action) -> None:
    assert plan({"a": NEW}, {"a": BIG}, AGREED, prefer=prefer) == {"a": action}


@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_nothing_is_removed_unless_told(direction: Direction) -> None:
    for local, remote in (({"a": OLD}, {}), ({}, {"a": OLD})):
        actions = plan(local, remote, AGREED, direction=direction)

        assert not {RL, RR} & set(actions.values())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(SandboxProtocolError, match="no name of a file"):
        checked_name(name)
