"""What kubectl get asks for."""

from typing import Any

import pytest

from agent_sandbox.testing.conformance import Api, config_map, pod, widget

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def _table(api: Api, path: str, **query: str) -> dict[str, Any]:
    table = (await api.request("GET", path, accept=TABLE, **query)).json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    return table


def _cells(table: dict[str, Any]) -> list[dict[str, Any]]:
    names = [column["name"] for column in table["columnDefinitions"]]
    return [dict(zip(names, row["cells"], strict=True)) for row in table["rows"]]


async def test_a_custom_kind_has_its_own_columns(api: Api) -> None:
    """additionalPrinterColumns after the name."""
    await api.create(api.widgets, widget("a", colour="blue"))
    table = await _table(api, api.widgets)

    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Colour", "Ready", "Size", "Age"]
    (cells,) = _cells(table)
    assert (cells["Name"], cells["Colour"], cells["Size"]) == ("a", "blue", 1)


async def test_wide_columns_have_a_priority(api: Api) -> None:
    """kubectl hides what is above 0."""
    table = await _table(api, api.widgets)
    priorities = {column["name"]: column["priority"] for column in table["columnDefinitions"]}

    assert priorities == {"Name": 0, "Colour": 0, "Ready": 0, "Size": 1, "Age": 0}


async def test_a_column_may_read_a_condition(api: Api) -> None:
    """A filter in the JSON path."""
    await api.create(api.widgets, widget("a"))
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await api.merge(f"{api.widgets}/a/status", status)
    (cells,) = _cells(await _table(api, api.widgets))

    assert cells["Ready"] == "True"


async def test_rows_carry_metadata(api: Api) -> None:
    """PartialObjectMetadata unless said otherwise."""
    await api.create(api.widgets, widget("a"))
    (row,) = (await _table(api, api.widgets))["rows"]

    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["name"] == "a"


async def test_rows_carry_whole_objects_if_wanted(api: Api) -> None:
    """includeObject=Object."""
    await api.create(api.widgets, widget("a"))
    (row,) = (await _table(api, api.widgets, includeObject="Object"))["rows"]

    assert row["object"]["spec"]["size"] == 1


async def test_one_object_can_be_a_table(api: Api) -> None:
    """kubectl get with a name."""
    await api.create(api.widgets, widget("a"))
    (cells,) = _cells(await _table(api, f"{api.widgets}/a"))

    assert cells["Name"] == "a"


async def test_an_error_is_a_status_all_the_same(api: Api) -> None:
    """404 does not come as a table."""
    answer = await api.request("GET", f"{api.widgets}/a", accept=TABLE)

    assert (answer.status, answer.json["kind"]) == (404, "Status")


async def test_pods_have_their_columns(api: Api) -> None:
    """As kubectl get pods -o wide shows them."""
    await api.create(api.pods, pod("a"))
    (cells,) = _cells(await _table(api, api.pods))

    assert list(cells) == [
        "Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates",
    ]  # fmt: skip
    assert (cells["Ready"], cells["Status"], str(cells["Restarts"])) == ("0/1", "Pending", "0")
    assert (cells["IP"], cells["Node"]) == ("<none>", "<none>")


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Running"}, "Running"),
        ({"phase": "Succeeded"}, "Succeeded"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "ErrImagePull",
        ),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}, "ExitCode:3"),
        (
            {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]},
            "Completed",
        ),
    ],
)
async def test_the_status_of_a_pod_is_its_most_telling_word(api: Api, status: dict[str, Any], word: str) -> None:
    """Reasons of containers win over the phase."""
    await api.create(api.pods, pod("a"))
    for entry in status.get("containerStatuses", []):
        entry |= {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        terminated = entry["state"].get("terminated")
        if terminated is not None:
            terminated.setdefault("exitCode", 0)
    answer = await api.merge(f"{api.pods}/a/status", {"status": status})
    assert answer.status == 200, answer.body
    (cells,) = _cells(await _table(api, api.pods))

    assert cells["Status"] == word


async def test_services_have_their_columns(api: Api) -> None:
    """As kubectl get services -o wide shows them."""
    service = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}], "selector": {"x": "y"}}}
    await api.create(f"{api.core}/services", service)
    (cells,) = _cells(await _table(api, f"{api.core}/services"))

    assert (cells["Type"], cells["External-IP"], cells["Port(s)"]) == ("ClusterIP", "<none>", "80/TCP")
    assert cells["Selector"] == "x=y"


async def test_config_maps_have_their_columns(api: Api) -> None:
    """The number of keys."""
    await api.create(api.config_maps, config_map("a"))
    (cells,) = _cells(await _table(api, api.config_maps, fieldSelector="metadata.name=a"))

    assert str(cells["Data"]) == "1"


async def test_namespaces_have_their_columns(api: Api) -> None:
    """Name, Status, Age."""
    table = await _table(api, f"/api/v1/namespaces/{api.namespace}")
    (cells,) = _cells(table)

    assert (cells["Name"], cells["Status"]) == (api.namespace, "Active")


async def test_a_new_object_is_some_seconds_old(api: Api) -> None:
    """Ages are made for people."""
    await api.create(api.config_maps, config_map("a"))
    (cells,) = _cells(await _table(api, api.config_maps, fieldSelector="metadata.name=a"))

    assert cells["Age"] in {f"{seconds}s" for seconds in range(20)}
