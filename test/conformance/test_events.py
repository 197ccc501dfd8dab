"""Events, which two groups share, and Leases."""

from typing import Any

from agent_sandbox.testing.conformance import Api


def _new_event(api: Api, name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": api.namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "conformance.example/controller",
        "reportingInstance": "one",
        "action": "Testing",
        "reason": "Tested",
        "type": "Normal",
        "note": "all is well",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": api.namespace},
    }


def _path(api: Api) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{api.namespace}/events"


async def test_a_new_event_reads_as_an_old_one(api: Api) -> None:
    """regarding is involvedObject, note is message."""
    await api.create(_path(api), _new_event(api, "e"))
    core = (await api.get(f"{api.core}/events/e")).json

    assert core["apiVersion"] == "v1"
    assert core["message"] == "all is well"
    assert core["involvedObject"]["name"] == "p"
    assert core["reportingComponent"] == "conformance.example/controller"


async def test_an_old_event_reads_as_a_new_one(api: Api) -> None:
    """And back."""
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": api.namespace},
        "reason": "Tested",
        "message": "all is well",
        "type": "Normal",
        "source": {"component": "tester"},
        "count": 3,
    }
    await api.create(f"{api.core}/events", event)
    new = (await api.get(f"{_path(api)}/e")).json

    assert new["apiVersion"] == "events.k8s.io/v1"
    assert new["note"] == "all is well"
    assert new["regarding"]["name"] == "p"
    assert new["deprecatedCount"] == 3
    assert new["deprecatedSource"] == {"component": "tester"}


async def test_events_are_selected_by_their_object(api: Api) -> None:
    """As kubectl describe does."""
    await api.create(_path(api), _new_event(api, "e"))
    path = f"{api.core}/events"

    assert (await api.get(path, fieldSelector="involvedObject.name=p,involvedObject.kind=Pod")).names == ["e"]
    assert (await api.get(path, fieldSelector="involvedObject.name=q")).names == []


async def test_a_series_can_be_patched(api: Api) -> None:
    """As recorders do when something happens again."""
    await api.create(_path(api), _new_event(api, "e"))
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}
    answer = await api.merge(f"{_path(api)}/e", series)

    assert answer.status == 200
    assert answer.json["series"]["count"] == 2


async def test_a_lease_keeps_microseconds(api: Api) -> None:
    """Leader election relies on them."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.123456Z"}
    created = await api.create(path, {"metadata": {"name": "l"}, "spec": spec})

    assert created["spec"] == spec


async def test_two_holders_cannot_take_a_lease(api: Api) -> None:
    """The second update conflicts."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"
    created = await api.create(path, {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 15}})
    first = {**created, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}}
    second = {**created, "spec": {"holderIdentity": "two", "leaseDurationSeconds": 15}}

    assert (await api.put(f"{path}/l", first)).status == 200
    assert (await api.put(f"{path}/l", second)).status == 409
