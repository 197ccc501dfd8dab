"""What a controller makes of changes, results and exceptions."""

import random
from collections.abc import Callable

import anyio
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from agent_sandbox.kube import ConflictError, OutcomeUnknownError, ServerError
from agent_sandbox.runtime import (
    LOW_PRIORITY,
    Change,
    Metrics,
    Request,
    Result,
    TerminalError,
    WorkQueue,
    WriteCutError,
    all_of,
    annotations_changed,
    any_of,
    generation_changed,
    labels_changed,
    not_own_status,
)
from agent_sandbox.runtime.controller import MAX_YIELD, Controller, Worker, _enqueue
from agent_sandbox.runtime.sources import Source, own_key, owner_key
from agent_sandbox.testing import VirtualClock
from agent_sandbox_api.core import LEASES, NAMESPACES, PODS, MetaOnlyView
from agent_sandbox_api.views import MetaView, OwnerReferenceView

pytestmark = pytest.mark.virtual_time

KEY = Request("default", "a")


class Script:
    """A reconciler that does one thing after another."""

    def __init__(self, clock: VirtualClock, *steps: Result | Exception | float) -> None:
        self._clock = clock
        self._steps = list(steps)
        self.calls: list[float] = []

    async def reconcile(self, request: Request) -> Result:
        self.calls.append(round(self._clock.monotonic(), 3))
        step = self._steps.pop(0) if self._steps else Result.done()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await self._clock.sleep(step)
            return Result.done()
        return step


class Bench:
    """A worker with its queue and metrics."""

    def __init__(
        self,
        clock: VirtualClock,
        script: Script,
        timeout: float | None = None,
        ahead: tuple[WorkQueue[Request], ...] = (),
    ) -> None:
        self.metrics = Metrics()
        self.registry: CollectorRegistry = self.metrics.registry
        self.queue: WorkQueue[Request] = WorkQueue(clock=clock, observer=self.metrics.queue("test"))
        self.worker = Worker(
            "test",
            script,
            self.queue,
            clock=clock,
            random=random.Random(1),
            metrics=self.metrics,
            timeout=timeout,
            ahead=ahead,
        )

    async def run_for(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.worker.work()

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, {"controller": "test", **labels}) or 0.0

    def results(self) -> dict[str, float]:
        family = "controller_runtime_reconcile_total"
        values = {name: self.value(family, result=name) for name in ("success", "error", "requeue", "requeue_after")}
        return {name: value for name, value in values.items() if value}


async def test_a_result_of_done_waits_for_the_next_change(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock)
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    await bench.run_for(10_000)

    assert script.calls == [0]
    assert bench.results() == {"success": 1}


async def test_requeue_after_comes_back_at_that_time_and_forgets_earlier_failures(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock, OSError("x"), OSError("x"), Result.requeue_after(30), OSError("x"))
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY, priority=7)
    await bench.run_for(10_000)

    assert script.calls == [0, 0.005, 0.015, 30.015, 30.02]
    assert bench.results() == {"success": 1, "error": 3, "requeue_after": 1}


async def test_an_exception_is_contained_counted_logged_and_retried(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock, OSError("the disk is full"))
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    with capture_logs() as logs:
        await bench.run_for(10)

    assert len(script.calls) == 2
    assert bench.value("controller_runtime_reconcile_errors_total") == 1
    assert bench.value("controller_runtime_reconcile_panics_total") == 0
    assert logs[0]["event"] == "reconcile failed, trying again"


async def test_a_bug_counts_as_a_panic_besides_being_an_error(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock, TypeError("a bug"))
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    await bench.run_for(10)

    assert bench.value("controller_runtime_reconcile_errors_total") == 1
    assert bench.value("controller_runtime_reconcile_panics_total") == 1


async def test_a_terminal_error_is_not_retried(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock, TerminalError("spec.image is missing"))
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    await bench.run_for(10_000)

    assert script.calls == [0]
    assert bench.results() == {"error": 1}
    assert bench.value("controller_runtime_terminal_reconcile_errors_total") == 1


async def test_a_lost_race_is_retried_without_a_stack_trace(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock, ConflictError(409, "Conflict"))
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    with capture_logs() as logs:
        await bench.run_for(10)

    assert len(script.calls) == 2
    assert [(entry["log_level"], "exc_info" in entry) for entry in logs] == [("info", False)]


@pytest.mark.parametrize("error", [OutcomeUnknownError("PATCH /pods/a: no answer"), ServerError(503, "Unavailable")])
async def test_a_failing_server_is_told_in_one_line(virtual_clock: VirtualClock, error: Exception) -> None:
    script = Script(virtual_clock, error)
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    with capture_logs() as logs:
        await bench.run_for(10)

    assert len(script.calls) == 2
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [("error", str(error))]
    assert "exc_info" not in logs[0]


async def test_a_write_that_the_end_of_leadership_cuts_is_no_error(virtual_clock: VirtualClock) -> None:
    """A leader that loses its Lease under load used to leave a stack trace for each write that it had under way."""
    script = Script(virtual_clock, WriteCutError("the leadership ended while a write was under way: it was cut"))
    bench = Bench(virtual_clock, script)
    bench.queue.add(KEY)
    with capture_logs() as logs:
        await bench.run_for(10)

    assert logs == []
    assert len(script.calls) == 2


async def test_a_deadline_cancels_a_reconcile_that_hangs(virtual_clock: VirtualClock) -> None:
    script = Script(virtual_clock, 500.0)
    bench = Bench(virtual_clock, script, timeout=20)
    bench.queue.add(KEY)
    await bench.run_for(100)

    assert script.calls == [0, pytest.approx(20.005, abs=0.001)]
    assert bench.value("controller_runtime_reconcile_timeouts_total") == 1
    assert bench.results() == {"success": 1, "error": 1}


async def test_a_timeout_inside_a_reconcile_is_not_taken_for_its_deadline(virtual_clock: VirtualClock) -> None:
    bench = Bench(virtual_clock, Script(virtual_clock, TimeoutError("of something else")), timeout=20)
    bench.queue.add(KEY)
    await bench.run_for(100)

    assert bench.value("controller_runtime_reconcile_timeouts_total") == 0
    assert bench.results() == {"success": 1, "error": 1}


async def test_a_retry_keeps_the_keys_priority(virtual_clock: VirtualClock) -> None:
    bench = Bench(virtual_clock, Script(virtual_clock, OSError("x")))
    bench.queue.add(KEY, priority=LOW_PRIORITY)
    await bench.worker.handle(await bench.queue.get())
    bench.queue.done(KEY)

    await virtual_clock.sleep(1)
    assert bench.queue.priority_of(await bench.queue.get()) == LOW_PRIORITY


async def test_a_requeue_keeps_the_keys_priority(virtual_clock: VirtualClock) -> None:
    bench = Bench(virtual_clock, Script(virtual_clock, Result.requeue_after(5)))
    bench.queue.add(KEY, priority=LOW_PRIORITY)
    await bench.run_for(1)
    await virtual_clock.sleep(5)
    await bench.queue.get()

    assert bench.queue.priority_of(KEY) == LOW_PRIORITY


async def test_logs_inside_a_reconcile_carry_controller_key_and_an_id(virtual_clock: VirtualClock) -> None:
    import structlog

    contexts: list[dict[str, object]] = []

    class Curious:
        async def reconcile(self, _: Request) -> Result:
            contexts.append(structlog.contextvars.get_contextvars())
            return Result.done()

    queue: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    worker = Worker("pool", Curious(), queue, clock=virtual_clock, random=random.Random(1), metrics=Metrics())
    queue.add(KEY)
    with anyio.move_on_after(1):
        await worker.work()

    (context,) = contexts
    identity = context.pop("reconcileID")
    assert context == {"controller": "pool", "namespace": "default", "name": "a"}
    assert len(str(identity)) == 36
    assert structlog.contextvars.get_contextvars() == {}


def test_a_requeue_needs_a_positive_time() -> None:
    with pytest.raises(ValueError, match="positive"):
        Result.requeue_after(0)


def test_a_controller_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        Controller("x", Script(VirtualClock()), workers=0)


# Sources


def meta(**fields: object) -> MetaOnlyView:
    return MetaOnlyView(MetaView(**{"name": "a", "namespace": "n", **fields}))  # type: ignore[arg-type]  # a test's shorthand


def reference(name: str, *, api_version: str = "v1", kind: str = "Pod", controller: bool = True) -> OwnerReferenceView:
    return OwnerReferenceView(api_version, kind, name, f"uid-{name}", controller)


def test_a_change_of_owner_concerns_the_old_and_the_new_one() -> None:
    old, new = meta(owner_references=(reference("one"),)), meta(owner_references=(reference("two"),))

    assert list(owner_key(PODS)(Change(old, new))) == [Request("n", "one"), Request("n", "two")]


def test_owners_are_found_by_group_and_kind_whatever_their_version() -> None:
    lease = reference("l", api_version="coordination.k8s.io/v2", kind="Lease")
    other_group = reference("p", api_version="metrics.k8s.io/v1", kind="Pod")
    change = Change(None, meta(owner_references=(lease, other_group)))

    assert list(owner_key(LEASES)(change)) == [Request("n", "l")]
    assert list(owner_key(PODS)(change)) == []


def test_only_the_controlling_owner_counts_unless_asked_otherwise() -> None:
    change = Change(None, meta(owner_references=(reference("p", controller=False),)))

    assert list(owner_key(PODS)(change)) == []
    assert list(owner_key(PODS, controller_only=False)(change)) == [Request("n", "p")]


def test_a_cluster_wide_owner_has_no_namespace() -> None:
    change = Change(None, meta(owner_references=(reference("ns", kind="Namespace"),)))

    assert list(owner_key(NAMESPACES)(change)) == [Request("", "ns")]


@pytest.mark.parametrize(
    ("change", "priority"),
    [
        (Change(None, meta(), initial=True), LOW_PRIORITY),
        (Change(None, meta()), 0),
        (Change(meta(generation=1), meta(generation=2)), 0),
        (Change(meta(), None), 0),
    ],
    ids=["initial list", "created", "changed", "deleted"],
)
async def test_what_existed_before_is_less_urgent_than_what_just_happened(
    virtual_clock: VirtualClock, change: Change[MetaOnlyView], priority: int
) -> None:
    queue: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    _enqueue(Source(NAMESPACES, own_key), queue)(change)

    assert queue.priority_of(await queue.get()) == priority


async def test_a_resync_is_less_urgent_as_well(virtual_clock: VirtualClock) -> None:
    queue: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    same = meta()
    _enqueue(Source(NAMESPACES, own_key), queue)(Change(same, same))

    assert queue.priority_of(await queue.get()) == LOW_PRIORITY


async def test_a_controller_says_how_urgent_its_keys_are_when_something_happened(virtual_clock: VirtualClock) -> None:
    queue: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    handler = _enqueue(Source(NAMESPACES, own_key), queue, lambda _: -3)
    handler(Change(None, meta(), initial=True))
    key = await queue.get()
    assert queue.priority_of(key) == LOW_PRIORITY
    queue.done(key)

    handler(Change(meta(), None))
    assert queue.priority_of(await queue.get()) == -3


async def test_a_source_with_a_pause_makes_one_key_of_many_changes(virtual_clock: VirtualClock) -> None:
    queue: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    handler = _enqueue(Source(NAMESPACES, own_key, pause=0.5), queue)
    for _ in range(3):
        handler(Change(None, meta()))
        await virtual_clock.sleep(0.1)

    queue.done(await queue.get())
    assert virtual_clock.monotonic() == pytest.approx(0.5), "the first change counts"
    assert queue.delayed == len(queue) == 0


async def test_a_key_gives_way_while_others_have_more_keys_than_workers(virtual_clock: VirtualClock) -> None:
    urgent: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    script = Script(virtual_clock)
    bench = Bench(virtual_clock, script, ahead=(urgent,))
    urgent.add(Request("default", "first"))
    urgent.add(Request("default", "second"))
    bench.queue.add(KEY)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run_for, 10)
        await virtual_clock.sleep(0.25)
        await urgent.get()
        await virtual_clock.sleep(0.25)
        assert not script.calls, "one is still waiting for a worker"
        await urgent.get()
    assert script.calls == [0.5]


async def test_nobody_gives_way_for_ever(virtual_clock: VirtualClock) -> None:
    urgent: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    script = Script(virtual_clock)
    bench = Bench(virtual_clock, script, ahead=(urgent,))
    urgent.add(KEY)
    bench.queue.add(KEY)
    await bench.run_for(10)

    assert script.calls == [MAX_YIELD]


async def test_what_gives_way_to_a_queue_that_is_shut_down_goes_on(virtual_clock: VirtualClock) -> None:
    urgent: WorkQueue[Request] = WorkQueue(clock=virtual_clock)
    urgent.add(KEY)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(urgent.wait_until_none_ready)
        await virtual_clock.sleep(1)
        urgent.shut_down()
    assert virtual_clock.monotonic() == 1


# Predicates

SAME = meta()
STATUS_WRITTEN = Change(meta(generation=1, resource_version="1"), meta(generation=1, resource_version="2"))


@pytest.mark.parametrize("predicate", [generation_changed, labels_changed, annotations_changed])
def test_predicates_pass_what_is_new_gone_or_shown_again_and_stop_a_write_to_status(
    predicate: Callable[[Change[MetaOnlyView]], bool],
) -> None:
    assert predicate(Change(None, SAME))
    assert predicate(Change(SAME, None))
    assert predicate(Change(SAME, SAME))
    assert not predicate(STATUS_WRITTEN)


def test_each_predicate_passes_what_it_is_named_after() -> None:
    assert generation_changed(Change(meta(generation=1), meta(generation=2)))
    assert labels_changed(Change(meta(), meta(labels={"a": "b"})))
    assert annotations_changed(Change(meta(), meta(annotations={"a": "b"})))


def test_an_own_status_write_is_told_from_all_else() -> None:
    old, new = STATUS_WRITTEN.old, STATUS_WRITTEN.new
    assert old is not None
    assert new is not None
    assert not not_own_status(Change(old, new, own=True))
    assert not_own_status(STATUS_WRITTEN), "somebody else's status is news"
    assert not_own_status(Change(old, meta(generation=2, resource_version="2"), own=True))
    assert not_own_status(Change(old, meta(generation=1, resource_version="2", labels={"a": "b"}), own=True))
    assert not_own_status(Change(None, new, own=True))
    assert not_own_status(Change(old, None, own=True))


def test_the_start_of_a_deletion_passes_generation_changed() -> None:
    from agent_sandbox.testing.clock import EPOCH

    assert generation_changed(Change(meta(), meta(deletion_timestamp=EPOCH)))


def test_predicates_combine() -> None:
    labelled = Change(meta(), meta(labels={"a": "b"}))

    assert any_of(generation_changed, labels_changed)(labelled)
    assert not all_of(generation_changed, labels_changed)(labelled)
