"""Every metric of the runtime, under the names, labels and buckets of controller-runtime and client-go.

Dashboards and alerts made for Go controllers work unchanged. All label sets that can be known are zero from the
start, so that rates work from the first scrape. Each ``Metrics`` has a registry of its own: two managers in one
process do not meet.
"""

from collections.abc import Callable
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from agent_sandbox_api.resource import Resource

# Go's client library has no `_created` series; ours would show up as unknown metrics in every dashboard.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library ships it so

RECONCILE_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 1.75,
    2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60,
)  # fmt: skip
LATENCY_BUCKETS: Final = tuple(float(f"1e{exponent}") for exponent in range(-8, 4))
"""Twelve exponential buckets from 10 ns, factor 10: the workqueue's and the webhooks'."""
REQUEST_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
SIZE_BUCKETS: Final = (64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)

RESULTS: Final = ("success", "error", "requeue", "requeue_after")
"""``requeue`` is always zero: a result cannot ask for it here, as it should not in Go."""

MAX_PRIORITIES: Final = 25
"""Distinct priorities that become label values; further ones share one value, so that a bug cannot flood Prometheus."""
MANY_PRIORITIES: Final = "exceeded_cardinality_limit"


class Metrics:
    """The metric families on one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram

        self.reconcile_total = counter(
            "controller_runtime_reconcile", "Reconciliations per controller and result.", "controller", "result"
        )
        self.reconcile_errors = counter(
            "controller_runtime_reconcile_errors",
            "Reconciliations that failed, terminal errors included.",
            "controller",
        )
        self.terminal_errors = counter(
            "controller_runtime_terminal_reconcile_errors", "Reconciliations that failed for good.", "controller"
        )
        self.reconcile_panics = counter(
            "controller_runtime_reconcile_panics", "Reconciliations that failed by a bug, as TypeError.", "controller"
        )
        self.reconcile_timeouts = counter(
            "controller_runtime_reconcile_timeouts", "Reconciliations cut by their deadline.", "controller"
        )
        self.reconcile_time = histogram(
            "controller_runtime_reconcile_time_seconds", "Duration of reconciliations.", RECONCILE_BUCKETS, "controller"
        )
        self.max_workers = gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers per controller.", "controller"
        )
        self.active_workers = gauge("controller_runtime_active_workers", "Workers that reconcile now.", "controller")

        queue = ("name", "controller")
        self.queue_depth = gauge("workqueue_depth", "Keys ready to be taken.", *queue, "priority")
        self.queue_adds = counter("workqueue_adds", "Keys that became ready.", *queue)
        self.queue_retries = counter("workqueue_retries", "Keys added with a delay.", *queue)
        self.queue_duration = histogram(
            "workqueue_queue_duration_seconds", "Time from ready to taken.", LATENCY_BUCKETS, *queue
        )
        self.work_duration = histogram(
            "workqueue_work_duration_seconds", "Time from taken to done.", LATENCY_BUCKETS, *queue
        )
        self.unfinished_work = gauge(
            "workqueue_unfinished_work_seconds", "Sum of the ages of keys in workers' hands.", *queue
        )
        self.longest_running = gauge(
            "workqueue_longest_running_processor_seconds", "Age of the oldest key in a worker's hands.", *queue
        )

        self.requests = counter(
            "rest_client_requests", "Requests per status, method and host.", "code", "method", "host"
        )
        self.request_duration = histogram(
            "rest_client_request_duration_seconds", "Duration of requests.", REQUEST_BUCKETS, "verb", "host"
        )
        self.request_size = histogram(
            "rest_client_request_size_bytes", "Size of request bodies.", SIZE_BUCKETS, "verb", "host"
        )
        self.response_size = histogram(
            "rest_client_response_size_bytes", "Size of answer bodies.", SIZE_BUCKETS, "verb", "host"
        )
        self.request_retries = counter(
            "rest_client_request_retries", "Requests repeated after a 429.", "code", "verb", "host"
        )

        self.leader = gauge("leader_election_master_status", "1 while this process leads, 0 on standby.", "name")

        self.webhook_latency = histogram(
            "controller_runtime_webhook_latency_seconds", "Duration of admissions.", LATENCY_BUCKETS, "webhook"
        )
        self.webhook_requests = counter(
            "controller_runtime_webhook_requests", "Admissions per webhook and status.", "webhook", "code"
        )
        self.webhook_in_flight = gauge(
            "controller_runtime_webhook_requests_in_flight", "Admissions being answered.", "webhook"
        )
        self.certificate_reads = counter("certwatcher_read_certificate", "Readings of a serving certificate.")
        self.certificate_errors = counter(
            "certwatcher_read_certificate_errors", "Failed readings of a serving certificate."
        )

        kind = ("name", "group", "version", "resource")
        self.informer_queued = gauge("informer_queued_items", "Changes waiting for handlers.", *kind)
        self.informer_latency = histogram(
            "informer_processing_latency_seconds", "Time that handlers took for a change.", LATENCY_BUCKETS, *kind
        )
        self.informer_version = gauge(
            "informer_store_resource_version", "The resourceVersion that the store has reached.", *kind
        )

        self.loop_lag = gauge("event_loop_lag_seconds", "How late the event loop last woke a sleeper.")
        ProcessCollector(registry=self.registry)  # memory, CPU and open files, under Go's names

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def controller(self, name: str, workers: int) -> "ControllerMetrics":
        """The metrics of one controller, all at zero."""
        return ControllerMetrics(self, name, workers)

    def informer(self, resource: Resource[Any]) -> "InformerMetrics":
        """The metrics of one informer."""
        return InformerMetrics(self, resource)

    def of_requests(self, method: str, host: str) -> "RequestMetrics":
        """The metrics of requests of one method to one server."""
        return RequestMetrics(self, method, host)

    def queue(self, name: str) -> "QueueMetrics":
        """The metrics of one controller's queue, all at zero."""
        return QueueMetrics(self, name)


class ControllerMetrics:
    """One controller's children of the families, looked up once."""

    def __init__(self, metrics: Metrics, name: str, workers: int) -> None:
        self.results = {result: metrics.reconcile_total.labels(name, result) for result in RESULTS}
        self.errors = metrics.reconcile_errors.labels(name)
        self.terminal_errors = metrics.terminal_errors.labels(name)
        self.panics = metrics.reconcile_panics.labels(name)
        self.timeouts = metrics.reconcile_timeouts.labels(name)
        self.seconds = metrics.reconcile_time.labels(name)
        self.active = metrics.active_workers.labels(name)
        metrics.max_workers.labels(name).set(workers)


class RequestMetrics:
    """The families' children for requests of one method to one server, looked up once."""

    def __init__(self, metrics: Metrics, method: str, host: str) -> None:
        self.duration = metrics.request_duration.labels(method, host)
        self.request_size = metrics.request_size.labels(method, host)
        self.response_size = metrics.response_size.labels(method, host)
        self._family = metrics.requests
        self._labels = (method, host)
        self._by_code: dict[str, Counter] = {}

    def count(self, code: str) -> None:
        """A request ended with this status."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._family.labels(code, *self._labels)
        counter.inc()


class InformerMetrics:
    """One informer's children of the families."""

    def __init__(self, metrics: Metrics, resource: Resource[Any]) -> None:
        labels = (str(resource), resource.group, resource.version, resource.plural)
        # Handlers run as part of each change, so nothing ever waits for them; the gauge exists for dashboards.
        metrics.informer_queued.labels(*labels).set(0)
        self.seconds = metrics.informer_latency.labels(*labels)
        self._version = metrics.informer_version.labels(*labels)

    def follow(self, progress: Callable[[], int]) -> None:
        """Ask for the store's version at every scrape."""
        self._version.set_function(lambda: float(progress()))


class QueueMetrics:
    """Observes one ``WorkQueue``."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        labels = (name, name)
        self._depth = metrics.queue_depth
        self._labels = labels
        self._priorities: dict[int, Gauge] = {}
        self._adds = metrics.queue_adds.labels(*labels)
        self._retries = metrics.queue_retries.labels(*labels)
        self._waited = metrics.queue_duration.labels(*labels)
        self._worked = metrics.work_duration.labels(*labels)
        self._unfinished = metrics.unfinished_work.labels(*labels)
        self._longest = metrics.longest_running.labels(*labels)
        self._depth_of(0)

    def follow(self, unfinished: Callable[[], float], longest: Callable[[], float]) -> None:
        """Ask these at every scrape."""
        self._unfinished.set_function(unfinished)
        self._longest.set_function(longest)

    def added(self, priority: int) -> None:
        """A key became ready."""
        self._adds.inc()
        self._depth_of(priority).inc()

    def promoted(self, old: int, new: int) -> None:
        """A ready key's priority rose."""
        self._depth_of(old).dec()
        self._depth_of(new).inc()

    def retried(self) -> None:
        """A key was added with a delay."""
        self._retries.inc()

    def taken(self, priority: int, waited: float) -> None:
        """A worker took a key."""
        self._depth_of(priority).dec()
        self._waited.observe(waited)

    def dropped(self, priority: int) -> None:
        """A ready key was thrown away at shutdown."""
        self._depth_of(priority).dec()

    def finished(self, worked: float) -> None:
        """A worker is done with a key."""
        self._worked.observe(worked)

    def _depth_of(self, priority: int) -> Gauge:
        known = self._priorities.get(priority)
        if known is None:
            text = str(priority) if len(self._priorities) < MAX_PRIORITIES else MANY_PRIORITIES
            known = self._priorities[priority] = self._depth.labels(*self._labels, text)
        return known
