"""Label selectors in both forms."""

import pytest

from agent_sandbox.kube import EVERYTHING, format_labels, parse_selector, selector_from
from agent_sandbox_api.meta import LabelSelector


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (x, y)", {"a": "y"}, True),
        ("a in (x,y)", {"a": "z"}, False),
        ("a notin (x,y)", {"a": "x"}, False),
        ("a notin (x,y)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a=", {"a": ""}, True),
        (
            "app.kubernetes.io/name=web,tier in (front,back),!legacy",
            {"app.kubernetes.io/name": "web", "tier": "back"},
            True,
        ),
        ("in=a", {"in": "a"}, True),
    ],
)
def test_a_selector_matches_as_kubernetes_does(selector: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_selector(selector).matches(labels) is matches


@pytest.mark.parametrize("text", ["a in x", "a in (x", "=b", "a=b=c", "a,,b", "a b"])
def test_what_is_no_selector_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood from"):
        parse_selector(text)


@pytest.mark.parametrize("text", ["a=b", "a!=b", "a in (x,y)", "a notin (x,y)", "a", "!a", "a=b,c in (d,e),!f"])
def test_a_selector_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_selector(text)) == text


def test_the_structured_form_means_the_same() -> None:
    structured = LabelSelector(
        match_labels={"a": "b"},
        match_expressions=[
            {"key": "tier", "operator": "In", "values": ["front"]},
            {"key": "legacy", "operator": "DoesNotExist"},
        ],
    )
    assert str(selector_from(structured)) == "a=b,tier=front,!legacy"
    assert selector_from({}) == EVERYTHING


def test_labels_become_a_selector_in_a_fixed_order() -> None:
    assert format_labels({"b": "2", "a": "1"}) == "a=1,b=2"
