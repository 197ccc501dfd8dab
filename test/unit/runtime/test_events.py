"""Events: written in the background, counted instead of repeated, combined instead of multiplied, and never in the
way.
"""

import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest

from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import EventRecorder
from agent_sandbox.runtime.events import COMBINED, QUEUE_LIMIT
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import PODS, PodView
from agent_sandbox_api.views import MetaView

pytestmark = pytest.mark.virtual_time


class Setup:
    """A recorder, and a look at what reached the server."""

    def __init__(self, server: InMemoryApiServer, clock: VirtualClock) -> None:
        self.clock = clock
        self.wire = FaultyTransport(server.transport())
        client = KubeClient(self.wire, clock=clock)
        self.admin = KubeClient(server.transport(), clock=clock)
        self.recorder = EventRecorder(
            client, component="tester", instance="tester-1", clock=clock, random=random.Random(1)
        )

    def tell(self, note: str = "it happened", *, reason: str = "Happened", name: str = "a") -> None:
        pod = PodView(MetaView(name=name, namespace="default", uid=f"uid-{name}"))
        self.recorder.event(pod, type="Normal", reason=reason, action="Testing", note=note, resource=PODS)

    async def settle(self, seconds: float = 1) -> None:
        with anyio.move_on_after(seconds):
            await self.recorder.run()

    async def events(self) -> list[dict[str, Any]]:
        answer = await self.admin.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")
        items: list[dict[str, Any]] = msgspec.json.decode(answer.body)["items"]
        return items


@pytest.fixture
async def setup(virtual_clock: VirtualClock) -> AsyncIterator[Setup]:
    server = InMemoryApiServer(clock=virtual_clock)
    await server.server.open()
    yield Setup(server, virtual_clock)
    await server.server.aclose()


async def test_an_event_says_who_what_about_whom_and_when(setup: Setup) -> None:
    setup.tell()
    await setup.settle()

    (event,) = await setup.events()
    assert event["reportingController"] == "tester"
    assert event["reportingInstance"] == "tester-1"
    assert (event["type"], event["reason"], event["action"]) == ("Normal", "Happened", "Testing")
    assert event["note"] == "it happened"
    assert event["regarding"]["name"] == "a"
    assert event["regarding"]["kind"] == "Pod"
    assert event["eventTime"] == "2026-01-01T00:00:00.000000Z"
    assert "series" not in event


async def test_the_same_event_again_is_counted_in_a_series(setup: Setup) -> None:
    for _ in range(4):
        setup.tell()
    await setup.settle()

    (event,) = await setup.events()
    assert event["series"]["count"] == 4


async def test_a_series_ends_after_ten_quiet_minutes(setup: Setup) -> None:
    setup.tell()
    await setup.settle(601)
    setup.tell()
    await setup.settle()

    assert len(await setup.events()) == 2


async def test_a_series_whose_event_is_gone_from_the_server_begins_anew(setup: Setup) -> None:
    setup.tell()
    await setup.settle()
    (event,) = await setup.events()
    await setup.admin.request("DELETE", f"/apis/events.k8s.io/v1/namespaces/default/events/{event['metadata']['name']}")
    setup.tell()
    await setup.settle()

    (anew,) = await setup.events()
    assert anew["metadata"]["name"] != event["metadata"]["name"]


async def test_more_than_ten_similar_events_are_combined(setup: Setup) -> None:
    for number in range(15):
        setup.tell(f"failed for the {number}th time")
    await setup.settle()

    notes = [event["note"] for event in await setup.events()]
    assert len(notes) == 11
    (combined,) = [event for event in await setup.events() if event["note"].startswith(COMBINED)]
    assert combined["series"]["count"] == 5


async def test_one_object_may_have_25_events_at_once_and_one_more_each_five_minutes(setup: Setup) -> None:
    for number in range(40):
        setup.tell(reason=f"Reason{number}")
    setup.tell(name="other")
    await setup.settle()
    assert len(await setup.events()) == 26
    assert setup.recorder.dropped == 15

    await setup.clock.sleep(300)
    setup.tell(reason="Late")
    setup.tell(reason="TooMuch")
    await setup.settle()
    assert len(await setup.events()) == 27


async def test_an_unreachable_server_is_tried_once_more_and_then_the_event_is_given_up(setup: Setup) -> None:
    setup.wire.inject(Fault.unreachable(), times=1)
    setup.tell()
    await setup.settle(3)
    assert len(await setup.events()) == 1

    setup.wire.inject(Fault.unreachable(), times=2)
    setup.tell(reason="Other")
    setup.tell(reason="Third")
    await setup.settle(3)
    assert {event["reason"] for event in await setup.events()} == {"Happened", "Third"}
    assert setup.recorder.dropped == 1


async def test_what_waits_is_bounded(setup: Setup) -> None:
    for number in range(QUEUE_LIMIT + 5):
        setup.tell(name=f"pod-{number}")

    assert setup.recorder.dropped == 5


async def test_a_note_is_cut_at_the_servers_limit_without_cutting_a_character(setup: Setup) -> None:
    setup.tell("ä" * 1000)
    await setup.settle()

    (event,) = await setup.events()
    assert event["note"] == "ä" * 512


async def test_flush_waits_until_everything_is_written(setup: Setup) -> None:
    for number in range(5):
        setup.tell(reason=f"Reason{number}")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(setup.recorder.run)
        await setup.recorder.flush()
        assert len(await setup.events()) == 5
        tasks.cancel_scope.cancel()
