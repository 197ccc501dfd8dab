"""Threads, rights, backoff, the loop's lag, and what the room gives away."""

import random
import threading

import anyio
import pytest

import agent_sandbox.kube as kube
import agent_sandbox.runtime as runtime
from agent_sandbox.runtime import (
    BackoffOptions,
    Controller,
    Metrics,
    Request,
    Result,
    ThreadedReconciler,
    machinery_rules,
    role,
    watch_rules,
)
from agent_sandbox.runtime.backoff import Backoff
from agent_sandbox.runtime.loop_lag import LoopLag
from agent_sandbox.runtime.server import Address
from agent_sandbox.testing import VirtualClock
from agent_sandbox_api.core import LEASES, PODS, SERVICES


class Nothing:
    async def reconcile(self, _: Request) -> Result:
        return Result.done()


async def test_a_blocking_reconciler_runs_in_a_bounded_number_of_threads() -> None:
    running = 0
    most = 0
    lock = threading.Lock()
    gate = threading.Barrier(2)

    def function(_: Request) -> Result:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(timeout=10)
        with lock:
            running -= 1
        return Result.requeue_after(1)

    reconciler = ThreadedReconciler(function, threads=2)
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(reconciler.reconcile, Request("n", str(number)))

    assert most == 2
    assert threading.current_thread() is threading.main_thread()


def test_rights_follow_from_what_is_watched() -> None:
    controllers = [
        Controller("a", Nothing()).watches_for(PODS).owns(SERVICES, owner=PODS),
        Controller("b", Nothing()).watches_for(LEASES).owns(PODS, owner=LEASES),
    ]

    assert watch_rules(controllers) == [
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch"]},
    ]


def test_roles_are_of_the_cluster_or_of_a_namespace() -> None:
    rules = machinery_rules(metrics_authorizer=True)
    assert [rule["resources"] for rule in rules] == [["events"], ["leases"], ["tokenreviews"], ["subjectaccessreviews"]]
    assert len(machinery_rules(leader_election=False)) == 1

    assert role("x", rules)["kind"] == "ClusterRole"
    assert role("x", rules, namespace="n")["metadata"] == {"name": "x", "namespace": "n"}
    assert role("x", rules, namespace="n")["kind"] == "Role"


@pytest.mark.virtual_time
async def test_backoff_grows_is_capped_and_is_forgotten_after_two_quiet_minutes(virtual_clock: VirtualClock) -> None:
    backoff = Backoff(BackoffOptions(jitter=0), clock=virtual_clock, random=random.Random(1))
    assert [backoff.next_pause() for _ in range(7)] == pytest.approx([0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30])

    await virtual_clock.sleep(120)
    assert backoff.next_pause() == 0.8


@pytest.mark.virtual_time
async def test_jitter_adds_up_to_the_pause_itself(virtual_clock: VirtualClock) -> None:
    pauses = [
        Backoff(BackoffOptions(), clock=virtual_clock, random=random.Random(seed)).next_pause() for seed in range(50)
    ]
    assert 0.8 <= min(pauses) < 0.9
    assert 1.5 < max(pauses) <= 1.6


@pytest.mark.virtual_time
async def test_the_loops_lag_is_measured(virtual_clock: VirtualClock) -> None:
    import asyncio

    from agent_sandbox.testing import VirtualTimeLoop

    metrics = Metrics()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(LoopLag(metrics, clock=virtual_clock).run)
        await virtual_clock.sleep(2.5)
        assert metrics.registry.get_sample_value("event_loop_lag_seconds") == pytest.approx(0, abs=0.001)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.jump(2)  # something blocked for two seconds
        await virtual_clock.sleep(0.01)
        assert metrics.registry.get_sample_value("event_loop_lag_seconds") == pytest.approx(1.5, abs=0.02)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [(":8080", "", 8080), ("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:9443", "::1", 9443)],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize("text", ["8080", "host", "host:", "host:http"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Address.parse(text)


@pytest.mark.parametrize("room", [kube, runtime], ids=["kube", "runtime"])
def test_what_a_room_gives_away_is_named_and_sorted(room: object) -> None:
    names: list[str] = room.__all__  # type: ignore[attr-defined]  # a module

    assert all(hasattr(room, name) for name in names)
    assert len(set(names)) == len(names)


def test_the_runtime_knows_no_sandbox() -> None:
    """Nothing in kube/ or runtime/ speaks of what is built on it, its own product name aside."""
    from pathlib import Path

    for room in (kube, runtime):
        assert room.__file__ is not None
        for file in Path(room.__file__).parent.glob("*.py"):
            text = file.read_text().lower()
            for own in ("agent_sandbox", "agent-sandbox", "agent sandbox"):
                text = text.replace(own, "")
            assert "sandbox" not in text, f"{file} speaks of sandboxes"
