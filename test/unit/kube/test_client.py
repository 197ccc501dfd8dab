"""The typed client on the embedded API server."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from agent_sandbox.kube import (
    AlreadyExistsError,
    ConflictError,
    DecodeError,
    EventType,
    GoneError,
    InvalidError,
    InvalidNameError,
    JsonPatch,
    KubeClient,
    MergePatch,
    NotFoundError,
    OutcomeUnknownError,
    TooManyRequestsError,
)
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import LEASES, PODS, SERVICES, ServiceView

pytestmark = pytest.mark.virtual_time


class Setup:
    """A client whose wire may fail."""

    def __init__(self, server: InMemoryApiServer, clock: VirtualClock) -> None:
        self.clock = clock
        self.wire = FaultyTransport(server.transport())
        self.client = KubeClient(self.wire, clock=clock)

    async def service(self, name: str = "a", **labels: str) -> ServiceView:
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
        return await self.client.create(SERVICES, body, "default")


@pytest.fixture
async def setup(virtual_clock: VirtualClock) -> AsyncIterator[Setup]:
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield Setup(server, virtual_clock)
    await server.server.aclose()


async def test_an_object_is_created_read_changed_and_deleted(setup: Setup) -> None:
    client = setup.client
    created = await setup.service()
    assert await client.get(SERVICES, "a", "default") == created

    patch = MergePatch({"metadata": {"labels": {"x": "y"}}})
    patched = await client.patch(SERVICES, "a", patch, "default")
    assert patched.metadata.labels == {"x": "y"}

    operations = [{"op": "replace", "path": "/metadata/labels/x", "value": "z"}]
    assert (await client.patch(SERVICES, "a", JsonPatch(operations), "default")).metadata.labels == {"x": "z"}

    await client.delete(SERVICES, "a", "default", uid=created.metadata.uid)
    with pytest.raises(NotFoundError, match="GET /api/v1/namespaces/default/services/a: 404"):
        await client.get(SERVICES, "a", "default")


async def test_the_namespace_may_come_from_the_body(setup: Setup) -> None:
    body = {"metadata": {"name": "b", "namespace": "default"}, "spec": {"clusterIP": "None"}}

    assert (await setup.client.create(SERVICES, body)).metadata.namespace == "default"


async def test_unknown_fields_survive_a_read_modify_write(setup: Setup) -> None:
    await setup.client.create(
        LEASES, {"metadata": {"name": "l"}, "spec": {"strategy": "OldestEmulationVersion"}}, "default"
    )
    whole = await setup.client.get_object(LEASES, "l", "default")
    whole["spec"]["holderIdentity"] = "me"
    await setup.client.update(LEASES, whole)

    again = await setup.client.get_object(LEASES, "l", "default")
    assert again["spec"]["strategy"] == "OldestEmulationVersion", "the view of a Lease does not know this field"


async def test_an_update_needs_the_version_that_it_saw(setup: Setup) -> None:
    await setup.service()
    with pytest.raises(ValueError, match="resourceVersion is required"):
        await setup.client.update(SERVICES, {"metadata": {"name": "a", "namespace": "default"}})

    whole = await setup.client.get_object(SERVICES, "a", "default")
    await setup.client.update(SERVICES, {**whole, "metadata": {**whole["metadata"], "labels": {"a": "b"}}})
    with pytest.raises(ConflictError):
        await setup.client.update(SERVICES, {**whole, "metadata": {**whole["metadata"], "labels": {"a": "c"}}})


async def test_a_delete_hits_the_object_of_that_uid_only(setup: Setup) -> None:
    created = await setup.service()
    with pytest.raises(ConflictError):
        await setup.client.delete(SERVICES, "a", "default", uid="11111111-1111-4111-8111-111111111111")
    with pytest.raises(ConflictError):
        await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid, resource_version="1")


async def test_a_delete_gives_the_object_only_while_something_keeps_it(setup: Setup) -> None:
    free, kept = await setup.service("free"), await setup.service("kept")
    hold = MergePatch({"metadata": {"finalizers": ["example.com/hold"]}})
    await setup.client.patch(SERVICES, "kept", hold, "default")

    assert await setup.client.delete_and_read(SERVICES, "free", "default", uid=free.metadata.uid) is None
    left = await setup.client.delete_and_read(SERVICES, "kept", "default", uid=kept.metadata.uid)
    assert left is not None
    assert left.metadata.deleting


async def test_a_second_object_of_a_name_is_refused_as_such(setup: Setup) -> None:
    await setup.service()
    with pytest.raises(AlreadyExistsError):
        await setup.service()


async def test_what_breaks_the_schema_is_refused_with_its_causes(setup: Setup) -> None:
    with pytest.raises(InvalidError) as caught:
        await setup.client.create(SERVICES, {"metadata": {"name": "Not A Name"}, "spec": {}}, "default")

    assert caught.value.causes[0].field == "metadata.name"


async def test_a_list_is_read_page_by_page(setup: Setup) -> None:
    for number in range(7):
        await setup.service(f"s{number}", half=str(number % 2))

    everything = await setup.client.list(SERVICES, "default", limit=3)
    assert [each.metadata.name for each in everything.items] == [f"s{number}" for number in range(7)]
    assert len([request for request in setup.wire.seen if request.method == "GET"]) == 3
    odd = await setup.client.list(SERVICES, label_selector="half=1")
    assert len(odd.items) == 3
    one = await setup.client.list(SERVICES, "default", field_selector="metadata.name=s3")
    assert [each.metadata.name for each in one.items] == ["s3"]


async def test_a_page_that_has_expired_starts_the_list_again_in_one_piece(setup: Setup) -> None:
    for number in range(5):
        await setup.service(f"s{number}")
    pages = 0

    def second_page(_method: str, _path: str) -> bool:
        nonlocal pages
        pages += 1
        return pages == 2

    setup.wire.inject(Fault.error(410, "Expired"), method="GET", only_if=second_page)
    assert len((await setup.client.list(SERVICES, "default", limit=2)).items) == 5

    setup.wire.inject(Fault.error(410, "Expired"), method="GET")
    with pytest.raises(GoneError):
        await setup.client.list(SERVICES, "default")


async def test_a_watch_tells_what_happens(setup: Setup) -> None:
    listed = await setup.client.list(SERVICES, "default")
    created = await setup.service()
    await setup.client.delete(SERVICES, "a", "default", uid=created.metadata.uid)
    async with setup.client.watch(
        SERVICES, "default", resource_version=listed.resource_version, timeout_seconds=90, read_timeout=80
    ) as events:
        seen = [event async for event in events]

    assert [event.type for event in seen[:2]] == [EventType.ADDED, EventType.DELETED]
    assert seen[0].object == created
    assert {event.type for event in seen[2:]} == {EventType.BOOKMARK}
    with pytest.raises(ValueError, match="a bookmark carries no object"):
        _ = seen[2].object


async def test_a_watch_from_a_version_that_is_too_old_says_gone(virtual_clock: VirtualClock) -> None:
    server = InMemoryApiServer(clock=virtual_clock, history_capacity=4)
    await server.server.open()
    setup = Setup(server, virtual_clock)
    start = (await setup.client.list(SERVICES)).resource_version
    for number in range(10):
        await setup.service(f"s{number}")

    async with setup.client.watch(SERVICES, resource_version=start, timeout_seconds=60) as events:
        with pytest.raises(GoneError, match="too old"):
            await anext(events)
    await server.server.aclose()


async def test_a_silent_watch_ends_at_the_read_deadline(setup: Setup) -> None:
    setup.wire.inject(Fault.silent_stream())
    async with setup.client.watch(SERVICES, resource_version="", timeout_seconds=600, read_timeout=7) as events:
        with pytest.raises(OutcomeUnknownError):
            await anext(events)
    assert setup.clock.monotonic() == pytest.approx(7, abs=0.1)


async def test_429_is_waited_out_as_the_server_asks(setup: Setup) -> None:
    setup.wire.inject(Fault.error(429, "TooManyRequests", retry_after=3), times=4)
    await setup.service()
    assert setup.clock.monotonic() == pytest.approx(12)

    setup.wire.inject(Fault.error(429, "TooManyRequests", retry_after=1), times=None)
    with pytest.raises(TooManyRequestsError) as caught:
        await setup.service("b")
    assert caught.value.retry_after == 1
    assert setup.clock.monotonic() == pytest.approx(22)


async def test_429_without_a_time_is_not_repeated(setup: Setup) -> None:
    setup.wire.inject(Fault.error(429, "TooManyRequests"))
    with pytest.raises(TooManyRequestsError):
        await setup.service()
    assert len(setup.wire.writes) == 1


async def test_a_write_whose_answer_is_lost_is_not_repeated(setup: Setup) -> None:
    setup.wire.inject(Fault.lost_answer(), method="POST")
    with pytest.raises(OutcomeUnknownError):
        await setup.service()
    assert len(setup.wire.writes) == 1
    assert (await setup.client.get(SERVICES, "a", "default")).metadata.name == "a", "it had taken effect"


async def test_an_answer_of_another_shape_is_a_decode_error_without_its_content(setup: Setup) -> None:
    class Odd:
        host = "odd"

        async def request(self, *_: object, **__: object) -> object:
            from agent_sandbox.kube import RawResponse

            return RawResponse(200, {}, b'{"metadata": "secret"}')

    client = KubeClient(Odd())  # type: ignore[arg-type]  # only request() is called
    with pytest.raises(DecodeError) as caught:
        await client.get(PODS, "a", "default")
    assert "secret" not in str(caught.value)


def test_raw_parts_of_a_decoded_object_do_not_keep_the_received_buffer() -> None:
    import sys

    body = msgspec.json.encode(
        {"metadata": {"name": "a", "managedFields": ["x" * 100_000]}, "spec": {"ports": [{"port": 1}]}}
    )
    references = sys.getrefcount(body)
    view = SERVICES.decode(body)

    assert bytes(view.spec.ports) == b'[{"port":1}]'
    assert sys.getrefcount(body) == references


def test_nulls_count_as_absent_but_stay_where_json_is_kept_raw() -> None:
    body = (
        b'{"metadata":{"name":"a","labels":null,"ownerReferences":null,"creationTimestamp":null},'
        b'"spec":{"selector":null,"ports":[{"name":null}]}}'
    )
    view = SERVICES.decode(body)

    assert view.metadata.labels == {}
    assert view.spec.selector == {}
    assert bytes(view.spec.ports) == b'[{"name":null}]'


def test_nulls_inside_lists_of_structs_count_as_absent() -> None:
    pod = PODS.decode(b'{"metadata":{"name":"a"},"status":{"containerStatuses":[{"name":"c","lastState":null}]}}')

    assert pod.status.container_statuses[0].last_state.terminated is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/status", "../pods/a", "a?x=y", "a#x", "a%2fb", "a b", "a\n", "\u00e4"]
)
async def test_a_name_is_one_segment_of_a_path_or_nothing_is_sent(setup: Setup, name: str) -> None:
    """A typed name could else be another object's, or a part of one."""
    await setup.service()
    sent = len(setup.wire.seen)

    with pytest.raises(InvalidNameError, match="is no name"):
        await setup.client.get(SERVICES, name, "default")
    with pytest.raises(InvalidNameError, match="is no name"):
        await setup.client.delete(SERVICES, name, "default", uid="1")
    if name:  # the empty namespace means all
        with pytest.raises(InvalidNameError, match="is no namespace"):
            await setup.client.list(SERVICES, name)
    assert len(setup.wire.seen) == sent
