"""Watches."""

from typing import Any

from agent_sandbox.testing.conformance import Api, pod, widget


async def _version(api: Api) -> str:
    version: str = (await api.get(api.widgets)).json["metadata"]["resourceVersion"]
    return version


async def test_a_watch_sees_what_happens_after_its_version(api: Api) -> None:
    """ADDED, MODIFIED, DELETED, in order."""
    version = await _version(api)
    await api.create(api.widgets, widget("a"))
    await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})
    await api.delete(f"{api.widgets}/a")

    async with api.watch(api.widgets, resourceVersion=version) as watch:
        events = [await watch.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event["object"]["spec"]["size"] for event in events] == [1, 2, 2]


async def test_a_running_watch_sees_new_objects(api: Api) -> None:
    """Events come as they happen."""
    async with api.watch(api.widgets, resourceVersion=await _version(api)) as watch:
        await api.create(api.widgets, widget("a"))
        event = await watch.next()

    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")


async def test_versions_grow_from_event_to_event(api: Api) -> None:
    """Each event has the version that it made; a delete has one of its own."""
    version = await _version(api)
    created = await api.create(api.widgets, widget("a"))
    await api.delete(f"{api.widgets}/a")

    async with api.watch(api.widgets, resourceVersion=version) as watch:
        added, deleted = await watch.next(), await watch.next()
    assert added["object"]["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


async def test_without_a_version_the_watch_begins_with_what_is_there(api: Api) -> None:
    """Synthetic ADDED events, then the future."""
    await api.create(api.widgets, widget("a"))
    await api.create(api.widgets, widget("b"))

    async with api.watch(api.widgets) as watch:
        first = {(await watch.next())["object"]["metadata"]["name"] for _ in range(2)}
        await api.create(api.widgets, widget("c"))
        later = await watch.next()
    assert first == {"a", "b"}
    assert later["object"]["metadata"]["name"] == "c"


async def test_version_zero_begins_with_what_is_there(api: Api) -> None:
    """Any version will do."""
    await api.create(api.widgets, widget("a"))

    async with api.watch(api.widgets, resourceVersion="0") as watch:
        event = await watch.next()
    assert event["type"] == "ADDED"


async def test_a_forgotten_version_is_an_error_event(api: Api) -> None:
    """410 Expired inside the stream, which then ends."""
    async with api.watch(api.widgets, resourceVersion="1") as watch:
        events = await watch.rest()

    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert "too old resource version" in status["message"]


async def test_a_timeout_ends_the_stream(api: Api) -> None:
    """timeoutSeconds, without an error."""
    async with api.watch(api.widgets, resourceVersion=await _version(api), timeoutSeconds="1") as watch:
        assert await watch.rest() == []


async def test_a_bookmark_before_the_end_says_how_far_the_watch_has_come(api: Api) -> None:
    """It has a version and nothing else worth reading; Kubernetes sends it two seconds before the timeout."""
    since = (await api.create(api.widgets, widget("a")))["metadata"]["resourceVersion"]
    elsewhere = await api.create(api.widgets, widget("b"))
    query = {"resourceVersion": since, "fieldSelector": "metadata.name=a", "allowWatchBookmarks": "true"}
    events: list[Any] = []
    while not events:  # Kubernetes tries once: a machine that is busy at that moment gets none
        async with api.watch(api.widgets, timeoutSeconds="5", **query) as watch:
            events = await watch.rest()
        assert events or api.server == "kubernetes"

    assert {event["type"] for event in events} == {"BOOKMARK"}
    last = events[-1]["object"]
    assert (last["kind"], last["apiVersion"]) == ("Widget", "conformance.agents.dev/v1")
    assert int(last["metadata"]["resourceVersion"]) >= int(elsewhere["metadata"]["resourceVersion"])


async def test_there_is_no_bookmark_unless_it_is_wanted(api: Api) -> None:
    """Nor any other event of what the selector leaves out."""
    await api.create(api.widgets, widget("a"))
    async with api.watch(api.widgets, fieldSelector="metadata.name=a", timeoutSeconds="4") as watch:
        await watch.next()
        await api.create(api.widgets, widget("b"))
        assert await watch.rest() == []


async def test_a_streamed_list_ends_with_a_marked_bookmark(api: Api) -> None:
    """sendInitialEvents replaces list and watch."""
    await api.create(api.widgets, widget("a"))
    await api.create(api.widgets, widget("b"))

    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with api.watch(api.widgets, **query) as watch:
        names = [(await watch.next())["object"]["metadata"]["name"] for _ in range(2)]
        bookmark = await watch.next()
        await api.create(api.widgets, widget("c"))
        later = await watch.next()
    assert names == ["a", "b"]
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert later["object"]["metadata"]["name"] == "c"


async def test_a_streamed_list_needs_a_version_match(api: Api) -> None:
    """NotOlderThan must be said."""
    answer = await api.get(api.widgets, watch="true", sendInitialEvents="true")

    assert answer.status in {400, 422}
    assert "resourceVersionMatch" in answer.json["message"]


async def test_a_label_selector_chooses_events(api: Api) -> None:
    """Others do not appear."""
    version = await _version(api)
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        body = widget(name)
        body["metadata"]["labels"] = {"colour": colour}
        await api.create(api.widgets, body)

    async with api.watch(api.widgets, resourceVersion=version, labelSelector="colour=red") as watch:
        names = [(await watch.next())["object"]["metadata"]["name"] for _ in range(2)]
    assert names == ["a", "c"]


async def test_an_object_that_enters_the_selector_is_added(api: Api) -> None:
    """To this watcher it is new."""
    await api.create(api.widgets, widget("a"))
    version = await _version(api)
    await api.merge(f"{api.widgets}/a", {"metadata": {"labels": {"colour": "red"}}})

    async with api.watch(api.widgets, resourceVersion=version, labelSelector="colour=red") as watch:
        event = await watch.next()
    assert event["type"] == "ADDED"


async def test_an_object_that_leaves_the_selector_is_deleted(api: Api) -> None:
    """It comes as it was, with the version of the change."""
    body = widget("a")
    body["metadata"]["labels"] = {"colour": "red"}
    await api.create(api.widgets, body)
    version = await _version(api)
    changed = (await api.merge(f"{api.widgets}/a", {"metadata": {"labels": {"colour": "blue"}}})).json

    async with api.watch(api.widgets, resourceVersion=version, labelSelector="colour=red") as watch:
        event = await watch.next()
    assert event["type"] == "DELETED"
    assert event["object"]["metadata"]["labels"] == {"colour": "red"}
    assert event["object"]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_a_field_selector_chooses_one_object(api: Api) -> None:
    """metadata.name is always selectable."""
    version = await _version(api)
    await api.create(api.widgets, widget("a"))
    await api.create(api.widgets, widget("b"))

    async with api.watch(api.widgets, resourceVersion=version, fieldSelector="metadata.name=b") as watch:
        event = await watch.next()
    assert event["object"]["metadata"]["name"] == "b"


async def test_watch_means_nothing_on_the_path_of_an_object(api: Api) -> None:
    """The answer is the object; a single one is watched by metadata.name."""
    await api.create(api.widgets, widget("a"))
    answer = await api.get(f"{api.widgets}/a", watch="true")

    assert answer.json["kind"] == "Widget"


async def test_a_watch_of_all_namespaces_sees_this_one(api: Api) -> None:
    """The path without a namespace."""
    version = await _version(api)
    await api.create(api.widgets, widget("a"))

    async with api.watch("/apis/conformance.agents.dev/v1/widgets", resourceVersion=version) as watch:
        event = await watch.until(lambda event: event["object"]["metadata"]["namespace"] == api.namespace)
    assert event["type"] == "ADDED"


async def test_a_mark_for_deletion_is_a_modification(api: Api) -> None:
    """The DELETED event comes with the end."""
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(api.widgets, body)
    version = await _version(api)
    await api.delete(f"{api.widgets}/a")
    await api.merge(f"{api.widgets}/a", {"metadata": {"finalizers": None}})

    async with api.watch(api.widgets, resourceVersion=version) as watch:
        events = [await watch.next(), await watch.next()]
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED"]
    assert events[0]["object"]["metadata"]["deletionTimestamp"]


async def test_what_nothing_holds_ends_unmarked(api: Api) -> None:
    """The DELETED event has the last state: no deletionTimestamp, no new generation; only the version is its own."""
    created = await api.create(api.widgets, widget("a"))
    await api.delete(f"{api.widgets}/a")

    async with api.watch(api.widgets, resourceVersion=created["metadata"]["resourceVersion"]) as watch:
        last = (await watch.next())["object"]
    assert "deletionTimestamp" not in last["metadata"]
    assert last["metadata"]["generation"] == 1


async def test_a_pod_deleted_without_grace_is_marked_and_gone(api: Api) -> None:
    """Marked by one change, gone by the next."""
    created = await api.create(api.pods, pod("a"))
    await api.delete(f"{api.pods}/a", {"gracePeriodSeconds": 0})

    async with api.watch(api.pods, resourceVersion=created["metadata"]["resourceVersion"]) as watch:
        events = [await watch.next(), await watch.next()]
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED"]
    for event in events:
        assert event["object"]["metadata"]["deletionGracePeriodSeconds"] == 0
