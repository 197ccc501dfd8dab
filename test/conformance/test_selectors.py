"""Label and field selectors."""

import pytest

from agent_sandbox.testing.conformance import Api, pod, widget

_LABELS = {
    "a": {"tier": "web", "level": "1"},
    "b": {"tier": "db", "level": "5"},
    "c": {"level": "9"},
}


async def _three(api: Api) -> None:
    for name, labels in _LABELS.items():
        body = widget(name)
        body["metadata"]["labels"] = labels
        await api.create(api.widgets, body)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=web", ["a"]),
        ("tier==web", ["a"]),
        ("tier!=web", ["b", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
        ("tier in (web,db)", ["a", "b"]),
        ("tier notin (web)", ["b", "c"]),
        ("level>3", ["b", "c"]),
        ("level<3", ["a"]),
        ("tier,level=5", ["b"]),
        ("tier in (web),level=5", []),
        ("", ["a", "b", "c"]),
    ],
)
async def test_labels_select(api: Api, selector: str, names: list[str]) -> None:
    """Equality, sets, presence and comparison; commas mean and."""
    await _three(api)

    assert (await api.get(api.widgets, labelSelector=selector)).names == names


@pytest.mark.parametrize("selector", ["tier in web", "tier=(x", "=x", "tier=bad value", "level>x"])
async def test_a_broken_label_selector_is_refused(api: Api, selector: str) -> None:
    """400."""
    assert (await api.get(api.widgets, labelSelector=selector)).status == 400


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=b", ["b"]),
        ("metadata.name!=b", ["a", "c"]),
        ("metadata.name=b,metadata.name!=b", []),
    ],
)
async def test_names_select(api: Api, selector: str, names: list[str]) -> None:
    """metadata.name and metadata.namespace are selectable for every kind."""
    await _three(api)

    assert (await api.get(api.widgets, fieldSelector=selector)).names == names


async def test_the_namespace_selects(api: Api) -> None:
    """Across all namespaces."""
    await _three(api)
    path = "/apis/conformance.agents.dev/v1/widgets"

    assert (await api.get(path, fieldSelector=f"metadata.namespace={api.namespace}")).names == ["a", "b", "c"]


async def test_declared_fields_of_a_custom_kind_select(api: Api) -> None:
    """selectableFields of the definition."""
    await api.create(api.widgets, widget("a", colour="blue"))
    await api.create(api.widgets, widget("b"))

    assert (await api.get(api.widgets, fieldSelector="spec.colour=blue")).names == ["a"]


async def test_other_fields_do_not_select(api: Api) -> None:
    """400 names the field."""
    answer = await api.get(api.widgets, fieldSelector="spec.size=1")

    assert answer.status == 400
    assert "field label not supported: spec.size" in answer.json["message"]


@pytest.mark.parametrize(
    ("selector", "names"), [("spec.nodeName=", ["a"]), ("status.phase=Pending", ["a"]), ("spec.nodeName=x", [])]
)
async def test_fields_of_pods_select(api: Api, selector: str, names: list[str]) -> None:
    """What kubelets and schedulers select by."""
    await api.create(api.pods, pod("a"))

    assert (await api.get(api.pods, fieldSelector=selector)).names == names
