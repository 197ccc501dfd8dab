"""The metrics are those of controller-runtime and client-go: name, type, labels, buckets. The table pins them."""

from pathlib import Path

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import (
    CertificateFiles,
    Controller,
    LeaderElectionOptions,
    Manager,
    ManagerOptions,
    Metrics,
    Request,
    Result,
    WebhookServer,
)
from agent_sandbox.runtime.metrics import MANY_PRIORITIES
from agent_sandbox.testing import InMemoryApiServer
from agent_sandbox_api.core import PODS

RECONCILE = (
    ".005 .01 .025 .05 .1 .15 .2 .25 .3 .35 .4 .45 .5 .6 .7 .8 .9 1 1.25 1.5 1.75 2 2.5 3 3.5 4 4.5 5 6 7 8 9 10 15 20 "
    "25 30 40 50 60"
)
EXPONENTIAL = "1e-8 1e-7 1e-6 1e-5 1e-4 1e-3 1e-2 1e-1 1 10 100 1000"
REQUEST = ".005 .025 .1 .25 .5 1 2 4 8 15 30 60"
SIZE = "64 256 512 1024 4096 16384 65536 262144 1048576 4194304 16777216"

# name, type, labels, buckets: demand-and-peers.md B.4 (controller-runtime 86a0d40 and client-go).
# Left out because nothing here does what they measure: rest_client_rate_limiter_duration_seconds (there is no
# client-side rate limit), rest_client_dns_resolution_duration_seconds (the resolver is aiohttp's),
# leader_election_slowpath_total (declared but never registered in controller-runtime).
TABLE = [
    ("controller_runtime_reconcile_total", "counter", "controller result", ""),
    ("controller_runtime_reconcile_errors_total", "counter", "controller", ""),
    ("controller_runtime_terminal_reconcile_errors_total", "counter", "controller", ""),
    ("controller_runtime_reconcile_panics_total", "counter", "controller", ""),
    ("controller_runtime_reconcile_timeouts_total", "counter", "controller", ""),
    ("controller_runtime_reconcile_time_seconds", "histogram", "controller", RECONCILE),
    ("controller_runtime_max_concurrent_reconciles", "gauge", "controller", ""),
    ("controller_runtime_active_workers", "gauge", "controller", ""),
    ("workqueue_depth", "gauge", "name controller priority", ""),
    ("workqueue_adds_total", "counter", "name controller", ""),
    ("workqueue_retries_total", "counter", "name controller", ""),
    ("workqueue_queue_duration_seconds", "histogram", "name controller", EXPONENTIAL),
    ("workqueue_work_duration_seconds", "histogram", "name controller", EXPONENTIAL),
    ("workqueue_unfinished_work_seconds", "gauge", "name controller", ""),
    ("workqueue_longest_running_processor_seconds", "gauge", "name controller", ""),
    ("rest_client_requests_total", "counter", "code method host", ""),
    ("rest_client_request_duration_seconds", "histogram", "verb host", REQUEST),
    ("rest_client_request_size_bytes", "histogram", "verb host", SIZE),
    ("rest_client_response_size_bytes", "histogram", "verb host", SIZE),
    ("rest_client_request_retries_total", "counter", "code verb host", ""),
    ("leader_election_master_status", "gauge", "name", ""),
    ("controller_runtime_webhook_latency_seconds", "histogram", "webhook", EXPONENTIAL),
    ("controller_runtime_webhook_requests_total", "counter", "webhook code", ""),
    ("controller_runtime_webhook_requests_in_flight", "gauge", "webhook", ""),
    ("certwatcher_read_certificate_total", "counter", "", ""),
    ("certwatcher_read_certificate_errors_total", "counter", "", ""),
    ("informer_queued_items", "gauge", "name group version resource", ""),
    ("informer_processing_latency_seconds", "histogram", "name group version resource", EXPONENTIAL),
    ("informer_store_resource_version", "gauge", "name group version resource", ""),
]


class Nothing:
    async def reconcile(self, _: Request) -> Result:
        return Result.done()


@pytest.fixture(scope="module")
def scrape() -> str:
    """What /metrics says of a manager with an election, a controller and a webhook, over a real socket."""
    return anyio.run(_scrape)


async def _scrape() -> str:
    async with InMemoryApiServer() as server:
        client = KubeClient(server.transport())
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "main", "image": "localhost/host"}]}}
        await client.create(PODS, pod, "default")
        election = LeaderElectionOptions(namespace="default", name="operator")
        manager = Manager(client, options=ManagerOptions(metrics_address="127.0.0.1:0", leader_election=election))
        manager.add(Controller("nothing", Nothing(), workers=3).watches_for(PODS))
        files = CertificateFiles(Path("unused"), Path("unused"))
        WebhookServer("127.0.0.1:0", files, clock=SystemClock(), metrics=manager.metrics).convert(
            "/convert", lambda o, _: o
        )
        manager.metrics.request_retries.labels("429", "GET", "in-memory")
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            with anyio.fail_after(60):
                while 'result="success"} 1.0' not in (text := await _get(manager.ports[0])):
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    return text


async def _get(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


@pytest.mark.parametrize(("name", "kind", "labels", "buckets"), TABLE, ids=[row[0] for row in TABLE])
def test_a_scrape_shows_the_metric_as_go_controllers_do(
    scrape: str, name: str, kind: str, labels: str, buckets: str
) -> None:
    families = {family.name: family for family in text_string_to_metric_families(scrape)}
    family = families[name.removesuffix("_total")]
    samples = [sample for sample in family.samples if sample.name in (name, f"{name}_bucket")]

    assert family.type == kind
    assert samples, "there is a sample from the start"
    assert {label for sample in samples for label in sample.labels} - {"le"} == set(labels.split())
    if buckets:
        shown = {float(sample.labels["le"]) for sample in samples} - {float("inf")}
        assert shown == {float(each) for each in buckets.split()}


def test_nothing_is_shown_that_go_controllers_do_not_have(scrape: str) -> None:
    names = {family.name for family in text_string_to_metric_families(scrape)}
    names = {name for name in names if not name.startswith("process_")}  # every Go program has these

    assert names - {name.removesuffix("_total") for name, *_ in TABLE} == {"event_loop_lag_seconds"}
    assert "_created" not in scrape


def test_all_results_are_zero_from_the_start_or_counted(scrape: str) -> None:
    (family,) = (f for f in text_string_to_metric_families(scrape) if f.name == "controller_runtime_reconcile")
    shown = {sample.labels["result"]: sample.value for sample in family.samples}

    assert shown == {"success": 1, "error": 0, "requeue": 0, "requeue_after": 0}


def test_values_are_those_of_the_running_manager(scrape: str) -> None:
    values = {
        (sample.name, sample.labels.get("controller") or sample.labels.get("name")): sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }
    assert values["controller_runtime_max_concurrent_reconciles", "nothing"] == 3
    assert values["leader_election_master_status", "operator"] == 1
    assert values["informer_store_resource_version", "pods"] > 0


def test_further_priorities_share_one_label_value() -> None:
    metrics = Metrics()
    queue = metrics.queue("q")
    for priority in range(40):
        queue.added(priority)

    shown = {sample.labels["priority"]: sample.value for sample in next(iter(metrics.queue_depth.collect())).samples}
    assert len(shown) == 26
    assert shown[MANY_PRIORITIES] == 15
