"""Field sets, merging by schema, and what apply takes away."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.local.apiserver.managed_fields.differences import differences, fields_of
from agent_sandbox.local.apiserver.managed_fields.field_trie import (
    Path,
    Trie,
    contains,
    discard,
    discard_member,
    find,
    insert,
    members,
    show,
)
from agent_sandbox.local.apiserver.managed_fields.merging import merged, without_paths
from agent_sandbox.local.apiserver.schema import compile_schema

SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "plain": {"type": "array", "items": {"type": "string"}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {
                    "type": "object",
                    "properties": {
                        "port": {"type": "integer"},
                        "protocol": {"type": "string", "default": "TCP"},
                        "name": {"type": "string"},
                    },
                },
            },
        },
    }
)

paths = st.lists(st.sampled_from(["f:a", "f:b", "f:c"]), min_size=1, max_size=4).map(tuple)


@given(st.lists(paths))
def test_a_trie_has_exactly_what_was_inserted(inserted: list[Path]) -> None:
    """Whatever the order, parents and children alike."""
    trie: Trie = {}
    for path in inserted:
        insert(trie, path)

    assert set(members(trie)) == set(inserted)
    assert all(contains(trie, path) for path in inserted)


@given(st.lists(paths), paths)
def test_discard_removes_a_path_and_all_below(inserted: list[Path], gone: Path) -> None:
    """And nothing else."""
    trie: Trie = {}
    for path in inserted:
        insert(trie, path)
    discard(trie, gone)

    assert set(members(trie)) == {path for path in inserted if path[: len(gone)] != gone}


@given(st.lists(paths), paths)
def test_discard_member_keeps_what_is_below(inserted: list[Path], gone: Path) -> None:
    """Only the path itself loses its membership."""
    trie: Trie = {}
    for path in inserted:
        insert(trie, path)
    discard_member(trie, gone)

    assert set(members(trie)) == set(inserted) - {gone}


def test_a_trie_reads_as_kubernetes_writes_it() -> None:
    """A member with children has a dot."""
    trie: Trie = {}
    insert(trie, ("f:a", "f:b"))
    insert(trie, ("f:a",))

    assert trie == {"f:a": {".": {}, "f:b": {}}}
    assert find(trie, ("f:x",)) is None


def test_items_are_named_by_their_keys() -> None:
    """A key that is not there counts with its default."""
    trie = fields_of({"ports": [{"port": 80, "name": "web"}]}, SCHEMA)

    item = 'k:{"port":80,"protocol":"TCP"}'
    assert trie == {"f:ports": {item: {".": {}, "f:port": {}, "f:name": {}}}}
    assert show(("f:ports", item, "f:name")) == '.ports[port=80,protocol="TCP"].name'


@pytest.mark.parametrize(
    ("old", "new", "changed", "removed"),
    [
        ({"labels": {"a": "1"}}, {"labels": {"a": "2"}}, [".labels.a"], []),
        ({"labels": {"a": "1"}}, {"labels": {"b": "1"}}, [".labels.b"], [".labels.a"]),
        ({"plain": ["a"]}, {"plain": ["b"]}, [".plain"], []),
        ({"tags": ["a"]}, {"tags": ["a", "b"]}, ['.tags[="b"]'], []),
        ({"tags": ["a", "b"]}, {"tags": ["b", "a"]}, [], []),
        ({"unknown": {"x": 1}}, {"unknown": {"x": 2}}, [".unknown.x"], []),
    ],
)
def test_differences_are_fields(
    old: dict[str, Any], new: dict[str, Any], changed: list[str], removed: list[str]
) -> None:
    """By the schema's list and map types."""
    found = differences(old, new, SCHEMA)

    assert [show(path) for path in found.set] == changed
    assert [show(path) for path in found.removed] == removed


@pytest.mark.parametrize(
    ("live", "applied", "expected"),
    [
        (["a", "b"], ["c"], ["a", "b", "c"]),
        (["a", "b"], ["b", "c"], ["a", "b", "c"]),
        (["a", "b", "c"], ["c", "a"], ["c", "a", "b"]),
        ([], ["a"], ["a"]),
        (["a"], [], ["a"]),
    ],
)
def test_sets_merge_in_the_applied_order(live: list[str], applied: list[str], expected: list[str]) -> None:
    """Entries of others keep their place."""
    assert merged({"tags": live}, {"tags": applied}, SCHEMA)["tags"] == expected


@given(st.lists(st.sampled_from("abcde"), unique=True), st.lists(st.sampled_from("abcde"), unique=True))
def test_merged_sets_lose_and_double_nothing(live: list[str], applied: list[str]) -> None:
    """Every entry of both, once; the applied ones in their order."""
    result = merged({"tags": live}, {"tags": applied}, SCHEMA)["tags"]

    assert sorted(result) == sorted({*live, *applied})
    assert [entry for entry in result if entry in applied] == applied


def test_an_item_is_removed_whole() -> None:
    """Also when its keys are named among what goes."""
    value = {"ports": [{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 81, "protocol": "TCP"}]}
    item = 'k:{"port":80,"protocol":"TCP"}'
    without_paths(value, [("f:ports", item, "f:port"), ("f:ports", item), ("f:ports", item, "f:name")], SCHEMA)

    assert value == {"ports": [{"port": 81, "protocol": "TCP"}]}


def test_what_becomes_empty_goes_as_well() -> None:
    """A map without its last key is no map."""
    value: dict[str, Any] = {"labels": {"a": "1"}, "plain": ["x"]}
    without_paths(value, [("f:labels", "f:a")], SCHEMA)

    assert value == {"plain": ["x"]}
