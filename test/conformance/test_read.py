"""GET of objects and collections."""

import pytest

from agent_sandbox.testing.conformance import Api, config_map, widget

_GAUGE = {"apiVersion": "conformance.agents.dev/v1", "kind": "Gauge"}


async def test_an_object_reads_as_it_was_created(api: Api) -> None:
    """GET gives the stored object."""
    created = await api.create(api.config_maps, config_map("a"))
    read = (await api.get(f"{api.config_maps}/a")).json

    assert read == created


async def test_a_missing_object_is_not_found(api: Api) -> None:
    """404 is a Status with details."""
    answer = await api.get(f"{api.config_maps}/a")

    assert answer.status == 404
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "a" not found',
        "reason": "NotFound",
        "details": {"name": "a", "kind": "configmaps"},
        "code": 404,
    }


async def test_not_found_of_a_group_is_qualified(api: Api) -> None:
    """The message says plural.group."""
    answer = await api.get(f"{api.widgets}/a")

    assert answer.json["message"] == 'widgets.conformance.agents.dev "a" not found'


async def test_an_unknown_resource_is_not_found(api: Api) -> None:
    """404 without a name."""
    answer = await api.get(f"{api.core}/unicorns")

    assert answer.status == 404
    assert answer.json["message"] == "the server could not find the requested resource"


async def test_an_unknown_subresource_is_not_found(api: Api) -> None:
    """404 for what the kind does not offer."""
    await api.create(api.config_maps, config_map("a"))

    assert (await api.get(f"{api.config_maps}/a/nonsense")).status == 404


async def test_a_method_that_makes_no_sense_is_not_allowed(api: Api) -> None:
    """405 for PUT on a collection."""
    answer = await api.put(api.config_maps, config_map("a"))

    assert answer.status == 405
    assert answer.json["reason"] == "MethodNotAllowed"


async def test_a_list_is_a_list_kind_with_a_version(api: Api) -> None:
    """ConfigMapList, v1, and the store's resourceVersion."""
    created = await api.create(api.config_maps, config_map("a"))
    listed = (await api.get(api.config_maps)).json

    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert int(listed["metadata"]["resourceVersion"]) >= int(created["metadata"]["resourceVersion"])


async def test_a_list_of_a_custom_kind_has_its_list_kind(api: Api) -> None:
    """WidgetList of the group and version."""
    listed = (await api.get(api.widgets)).json

    assert (listed["kind"], listed["apiVersion"]) == ("WidgetList", "conformance.agents.dev/v1")
    assert listed["items"] == []


async def test_a_list_is_ordered_by_name(api: Api) -> None:
    """The order is that of the keys, not of creation."""
    for name in ("c", "a", "b"):
        await api.create(api.widgets, widget(name))

    assert (await api.get(api.widgets)).names == ["a", "b", "c"]


async def test_all_namespaces_can_be_listed_at_once(api: Api) -> None:
    """The path without a namespace has them all."""
    await api.create(api.widgets, widget("a"))
    listed = (await api.get("/apis/conformance.agents.dev/v1/widgets")).json

    assert (api.namespace, "a") in {
        (item["metadata"]["namespace"], item["metadata"]["name"]) for item in listed["items"]
    }


async def test_a_list_of_a_missing_namespace_is_empty(api: Api) -> None:
    """Not an error."""
    answer = await api.get("/api/v1/namespaces/nowhere/configmaps")

    assert answer.status == 200
    assert answer.json["items"] == []


async def _five(api: Api) -> None:
    for index in range(5):
        await api.create(api.widgets, widget(f"w{index}"))


async def test_limit_and_continue_page_through_a_list(api: Api) -> None:
    """Every object comes once."""
    await _five(api)
    names: list[str] = []
    token = ""
    pages = 0
    while True:
        page = await api.get(api.widgets, limit="2", **({"continue": token} if token else {}))
        names += page.names
        pages += 1
        token = page.json["metadata"].get("continue", "")
        if not token:
            break

    assert names == ["w0", "w1", "w2", "w3", "w4"]
    assert pages == 3


async def test_a_page_says_how_many_remain(api: Api) -> None:
    """remainingItemCount counts what is not in this page."""
    await _five(api)
    page = await api.get(api.widgets, limit="2")

    assert page.json["metadata"]["remainingItemCount"] == 3


async def test_a_page_with_a_selector_does_not_count(api: Api) -> None:
    """remainingItemCount is left out, as it would be a guess."""
    await _five(api)
    page = await api.get(api.widgets, limit="2", fieldSelector="spec.colour=red")

    assert "remainingItemCount" not in page.json["metadata"]
    assert page.json["metadata"]["continue"]


async def test_later_pages_show_the_first_pages_version(api: Api) -> None:
    """What is created between pages does not appear."""
    await _five(api)
    first = await api.get(api.widgets, limit="4")
    await api.create(api.widgets, widget("w9"))
    rest = await api.get(api.widgets, limit="4", **{"continue": first.json["metadata"]["continue"]})

    assert rest.names == ["w4"]
    assert rest.json["metadata"]["resourceVersion"] == first.json["metadata"]["resourceVersion"]


async def test_what_was_deleted_between_pages_is_still_listed(api: Api) -> None:
    """The list is a snapshot."""
    await _five(api)
    first = await api.get(api.widgets, limit="2")
    await api.delete(f"{api.widgets}/w4")
    rest = await api.get(api.widgets, limit="4", **{"continue": first.json["metadata"]["continue"]})

    assert rest.names == ["w2", "w3", "w4"]


async def test_a_broken_continue_token_is_refused(api: Api) -> None:
    """400 says so."""
    answer = await api.get(api.widgets, limit="2", **{"continue": "nonsense"})

    assert answer.status == 400
    assert "continue key is not valid" in answer.json["message"]


async def test_an_exact_version_shows_the_past(api: Api) -> None:
    """resourceVersionMatch=Exact lists at that version."""
    first = await api.create(api.widgets, widget("a"))
    await api.create(api.widgets, widget("b"))
    version = first["metadata"]["resourceVersion"]
    listed = await api.get(api.widgets, resourceVersion=version, resourceVersionMatch="Exact")

    assert listed.names == ["a"]
    assert listed.json["metadata"]["resourceVersion"] == version


async def test_not_older_than_shows_the_present(api: Api) -> None:
    """resourceVersionMatch=NotOlderThan may show anything newer."""
    first = await api.create(api.widgets, widget("a"))
    version = first["metadata"]["resourceVersion"]
    listed = await api.get(api.widgets, resourceVersion=version, resourceVersionMatch="NotOlderThan")

    assert "a" in listed.names
    assert int(listed.json["metadata"]["resourceVersion"]) >= int(version)


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Nearly", "resourceVersion": "1"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
    ],
)
async def test_a_version_match_must_make_sense(api: Api, query: dict[str, str]) -> None:
    """It needs a version, and a known word."""
    answer = await api.get(api.widgets, **query)

    assert answer.status in {400, 422}
    assert "resourceVersionMatch" in answer.json["message"]


async def test_a_version_must_be_a_number(api: Api) -> None:
    """400 for anything else."""
    assert (await api.get(api.widgets, resourceVersion="abc", resourceVersionMatch="Exact")).status == 400


async def test_partial_metadata_of_one_object(api: Api) -> None:
    """as=PartialObjectMetadata strips all but the metadata."""
    await api.create(api.widgets, widget("a"))
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    read = (await api.request("GET", f"{api.widgets}/a", accept=accept)).json

    assert read["kind"] == "PartialObjectMetadata"
    assert read["metadata"]["name"] == "a"
    assert "spec" not in read


async def test_partial_metadata_of_a_list(api: Api) -> None:
    """as=PartialObjectMetadataList does so for each item."""
    await api.create(api.widgets, widget("a"))
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = (await api.request("GET", api.widgets, accept=accept)).json

    assert listed["kind"] == "PartialObjectMetadataList"
    assert [set(item) <= {"kind", "apiVersion", "metadata"} for item in listed["items"]] == [True]


async def test_only_a_format_that_nobody_serves_is_not_acceptable(api: Api) -> None:
    """406 for an Accept header without JSON."""
    assert (await api.request("GET", api.widgets, accept="text/html")).status == 406


async def test_an_object_can_be_read_in_another_version(api: Api) -> None:
    """Conversion None changes the apiVersion only."""
    path = "/apis/conformance.agents.dev/v1/gauges"
    name = api.namespace
    await api.create(path, {**_GAUGE, "metadata": {"name": name}, "value": 3})
    api.cluster_objects.append(f"{path}/{name}")
    read = (await api.get(f"/apis/conformance.agents.dev/v1beta1/gauges/{name}")).json

    assert read["apiVersion"] == "conformance.agents.dev/v1beta1"
    assert read["value"] == 3


async def test_a_cluster_kind_has_no_namespace(api: Api) -> None:
    """Objects of cluster scope carry no namespace, and have no path in one."""
    path = "/apis/conformance.agents.dev/v1/gauges"
    created = await api.create(path, {**_GAUGE, "metadata": {"name": api.namespace}})
    api.cluster_objects.append(f"{path}/{api.namespace}")

    assert "namespace" not in created["metadata"]
    assert (await api.get("/apis/conformance.agents.dev/v1/namespaces/default/gauges")).status == 404


async def test_a_version_from_the_future_is_a_timeout_that_says_when_to_come_back(api: Api) -> None:
    """504 with Retry-After, once the server has waited for it."""
    future = str(int((await api.get(api.widgets)).json["metadata"]["resourceVersion"]) + 1_000_000)
    answer = await api.get(api.widgets, resourceVersion=future, resourceVersionMatch="NotOlderThan")

    status = answer.json
    assert (answer.status, status["reason"], answer.headers["Retry-After"]) == (504, "Timeout", "1")
    assert status["details"]["retryAfterSeconds"] == 1
    assert status["details"]["causes"] == [
        {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    ]
    assert status["message"].startswith(f"Timeout: Too large resource version: {future}, current: ")
