"""Reading what a server and a process say of themselves."""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

import pytest

from agent_sandbox.bench import StartDelay
from agent_sandbox.bench.meters import CountingTransport, parse_process_metrics, read_processes, read_server
from agent_sandbox.kube import KubeClient, RawResponse, RawStream
from agent_sandbox.kube.transport import RequestOptions, StreamOptions

METRICS = b"""# TYPE apiserver_request_total counter
apiserver_request_total{code="201",component="apiserver",dry_run="",resource="pods",subresource="",verb="POST"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="pods",subresource="status",verb="APPLY"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="pods",subresource="status",verb="PATCH"} 1
apiserver_request_total{code="409",component="apiserver",dry_run="",resource="pods",subresource="",verb="POST"} 9
apiserver_request_total{code="200",component="apiserver",dry_run="All",resource="pods",subresource="",verb="PUT"} 9
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="leases",subresource="",verb="PUT"} 9
apiserver_request_total{code="200",component="apiserver",dry_run="",resource="pods",subresource="",verb="LIST"} 9
process_cpu_seconds_total 12.5
process_resident_memory_bytes 1e+06
"""


class Answering:
    """Gives one answer to everything."""

    host = "server"

    def __init__(self, status: int, body: bytes) -> None:
        self._answer = RawResponse(status, {}, body)

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        return self._answer

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[StreamOptions]) -> AsyncIterator[RawStream]:
        raise AssertionError("nothing is streamed here")
        yield

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_writes_are_those_that_succeeded_and_were_meant() -> None:
    reading = await read_server(KubeClient(Answering(200, METRICS)))

    assert reading.writes == Counter({"create pods": 3, "patch pods/status": 3})
    assert reading.cpu_seconds == 12.5


async def test_a_server_that_hides_its_metrics_is_no_failure() -> None:
    reading = await read_server(KubeClient(Answering(403, b"{}")))

    assert reading.writes is None
    assert reading.cpu_seconds is None


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/api/v1/namespaces/a/pods", "create pods"),
        ("POST", "/api/v1/namespaces", "create namespaces"),
        ("PATCH", "/api/v1/namespaces/a/pods/p/status", "patch pods/status"),
        ("DELETE", "/apis/agents.x-k8s.io/v1alpha1/namespaces/a/sandboxes/s", "delete sandboxes"),
        ("DELETE", "/api/v1/namespaces/a", "delete namespaces"),
    ],
)
async def test_own_writes_are_named_as_the_server_names_them(method: str, path: str, name: str) -> None:
    counting = CountingTransport(Answering(200, b"{}"))
    await counting.request(method, path)

    assert counting.writes == Counter({name: 1})


async def test_reads_and_refusals_are_no_writes() -> None:
    reading, refusing = CountingTransport(Answering(200, b"{}")), CountingTransport(Answering(409, b"{}"))
    await reading.request("GET", "/api/v1/namespaces/a/pods")
    await refusing.request("POST", "/api/v1/namespaces/a/pods")

    assert not reading.writes
    assert not refusing.writes


def test_processes_of_this_machine_are_read_and_those_that_ended_add_nothing() -> None:
    mine = read_processes([os.getpid()])

    assert mine.cpu_seconds > 0
    assert mine.memory_bytes > 1_000_000
    assert read_processes([2**22 + 1]).cpu_seconds == 0


def test_a_process_elsewhere_tells_by_its_metrics() -> None:
    reading = parse_process_metrics(METRICS)

    assert reading is not None
    assert (reading.cpu_seconds, reading.memory_bytes) == (12.5, 1_000_000)
    assert parse_process_metrics(b"nothing_of_that_kind 1\n") is None


def test_a_delay_is_drawn_as_written() -> None:
    chance = random.Random(1)

    assert StartDelay("0.5").draw(chance) == 0.5
    assert all(0.2 <= StartDelay("0.2..1.5").draw(chance) <= 1.5 for _ in range(100))
    drawn = sorted(StartDelay("p50=0.8,p99=4").draw(chance) for _ in range(4000))
    assert drawn[2000] == pytest.approx(0.8, rel=0.1)
    assert drawn[3960] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("text", ["", "soon", "1..", "p50=1", "p50=0,p99=1"])
def test_a_delay_that_means_nothing_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="is no distribution of seconds"):
        StartDelay(text)
