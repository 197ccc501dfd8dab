"""What a run cost, read from outside: the server's own counters, and the processes' CPU and memory."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Unpack

from agent_sandbox.kube import KubeClient, KubeError, RawResponse, Transport
from agent_sandbox.kube.transport import READING_METHODS, RequestOptions, TransportDecorator

_SAMPLE: Final = re.compile(rb"^apiserver_request_total\{([^}]*)\} ([0-9.e+]+)", re.MULTILINE)
_LABEL: Final = re.compile(rb'(\w+)="([^"]*)"')
_CPU: Final = re.compile(rb"^process_cpu_seconds_total ([0-9.e+-]+)", re.MULTILINE)
_MEMORY: Final = re.compile(rb"^process_resident_memory_bytes ([0-9.e+-]+)", re.MULTILINE)
_METHODS: Final = {"PUT": "update", "POST": "create", "PATCH": "patch", "APPLY": "patch", "DELETE": "delete"}
_HOUSEKEEPING: Final = frozenset({"leases", "tokenreviews", "subjectaccessreviews", "serviceaccounts/token"})
"""What every cluster writes all the time and no claim causes."""

Writes = Counter[str]
"""Successful writes by ``verb resource[/subresource]``."""


class CountingTransport(TransportDecorator):
    """Counts the benchmark's own writes as the server does, so that they can be subtracted."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.writes: Writes = Counter()

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        """Send, and count a write that succeeded."""
        answer = await self._inner.request(method, path, **options)
        if method not in READING_METHODS and answer.status < 300:
            self.writes[f"{_METHODS[method]} {_resource_of(path, names_object=method != 'POST')}"] += 1
        return answer


def _resource_of(path: str, *, names_object: bool) -> str:
    """``resource`` or ``resource/subresource`` of a request path."""
    parts = path.strip("/").split("/")
    parts = parts[3:] if parts[0] == "apis" else parts[2:]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    subresource = parts[2:3] if names_object else []
    return "/".join(parts[:1] + subresource)


@dataclass(frozen=True)
class ServerReading:
    """The API server's own counters at one moment; None where it does not say."""

    writes: Writes | None = None
    cpu_seconds: float | None = None


async def read_server(client: KubeClient) -> ServerReading:
    """Read ``/metrics`` of the API server; empty if it has none or we may not."""
    try:
        answer = await client.request("GET", "/metrics")
    except KubeError:
        return ServerReading()
    return ServerReading(_writes_in(answer.body), _number(_CPU, answer.body))


def _writes_in(text: bytes) -> Writes | None:
    writes: Writes = Counter()
    seen = False
    for match in _SAMPLE.finditer(text):
        seen = True
        labels = {key.decode(): value.decode() for key, value in _LABEL.findall(match[1])}
        verb = _METHODS.get(labels["verb"])
        if verb is None or not labels["code"].startswith("2") or labels.get("dry_run"):
            continue
        resource = "/".join(part for part in (labels["resource"], labels["subresource"]) if part)
        if resource not in _HOUSEKEEPING:
            writes[f"{verb} {resource}"] += round(float(match[2]))
    return writes if seen else None


def _number(pattern: "re.Pattern[bytes]", text: bytes) -> float | None:
    found = pattern.search(text)
    return float(found[1]) if found else None


@dataclass(frozen=True)
class ProcessReading:
    """CPU seconds so far, and the largest resident memory so far (or the present one where only that is told)."""

    cpu_seconds: float
    memory_bytes: int


def read_processes(pids: Iterable[int]) -> ProcessReading:
    """The sum over processes of this machine; one that is gone adds nothing."""
    cpu, memory = 0.0, 0
    for pid in pids:
        folder = Path("/proc") / str(pid)
        try:
            stat, status = (folder / "stat").read_text(), (folder / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        user, system = stat.rpartition(")")[2].split()[11:13]
        cpu += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        memory += int(peak[1]) * 1024 if peak else 0
    return ProcessReading(cpu, memory)


def parse_process_metrics(text: bytes) -> ProcessReading | None:
    """What a process says of itself on its ``/metrics``."""
    cpu, memory = _number(_CPU, text), _number(_MEMORY, text)
    return None if cpu is None else ProcessReading(cpu, round(memory or 0))


@dataclass
class Cost:
    """The difference between two moments."""

    writes: Writes | None = None
    server_cpu: float | None = None
    controller_cpu: float | None = None
    controller_memory: int | None = None
