"""What the router lets people see: metrics with the Go router's names, and one log line per request.

Queries are never logged (they may carry credentials), and no label of a metric takes a value that a caller chose:
namespaces count only once they were resolved, unknown methods are one.
"""

import re
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

import anyio
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from agent_sandbox.router.directory import Holder
from agent_sandbox.router.errors import RefusalError
from agent_sandbox.router.http1 import RequestHead
from agent_sandbox.tracing import Span

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UPSTREAM_REASONS: Final = {"unreachable": "dial", "timeout": "timeout", "broken": "eof"}
_DECISIONS: Final = {"unauthenticated": "unauthenticated", "forbidden": "forbidden"}
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

access_log = structlog.get_logger("agent_sandbox.router.access")


@dataclass
class Visit:
    """One request, from its head to its end.

    Attributes:
        namespace: known only once a credential for it was found good.
        reason: why the router refused it; empty if the sandbox answered.
    """

    peer: str
    head: RequestHead
    began: float = field(default_factory=anyio.current_time)
    namespace: str = ""
    sandbox: str = ""
    status: int = 0
    received: int = 0
    sent: int = 0
    reason: str = ""

    def admitted(self, holder: Holder) -> None:
        """The request is for that sandbox, and may go there."""
        self.namespace, self.sandbox = holder.namespace, holder.name

    def refused(self, refusal: RefusalError) -> None:
        """The router answers itself, or cuts the sandbox's answer short."""
        self.status = self.status or refusal.status
        self.reason = refusal.reason

    def describe(self, span: Span) -> None:
        """Tell the trace what the metrics are told."""
        span.note({"http.request.method": self.method, "http.response.status_code": self.status})
        if self.sandbox:
            span.note({"k8s.namespace.name": self.namespace, "sandbox.claim": self.sandbox})
        if self.reason:
            span.fail(self.reason)

    @property
    def method(self) -> str:
        """The method as a label."""
        method = self.head.method.decode("latin-1")
        return method if method in _METHODS else "other"


class Observer:
    """Counts and logs visits.

    Attributes:
        registry: the metrics.
    """

    def __init__(self, *, log: bool) -> None:
        self._log = log
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "sandbox_router_requests", "Requests.", ("method", "code", "sandbox_namespace"), registry=registry
        )
        self._seconds = Histogram(
            "sandbox_router_request_duration_seconds",
            "Time from the head of a request to the end of its response.",
            ("method", "sandbox_namespace"),
            buckets=BUCKETS,
            registry=registry,
        )
        self._running = Gauge(
            "sandbox_router_inflight_requests",
            "Requests on their way.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._failures = Counter(
            "sandbox_router_upstream_errors",
            "Exchanges that failed on the sandbox's side.",
            ("sandbox_namespace", "reason"),
            registry=registry,
        )
        self._decisions = Counter(
            "sandbox_router_authz_decisions", "Decisions about credentials.", ("decision",), registry=registry
        )
        self._retries = Counter(
            "sandbox_router_upstream_retries", "Attempts after the first to connect to a Pod.", registry=registry
        )
        self._outdated = Counter(
            "sandbox_router_cache_invalidations",
            "Connections given up because the Pod was no longer the sandbox's.",
            registry=registry,
        )
        self._reloads = Counter(
            "sandbox_router_cert_reloads", "Changed certificates that were loaded.", ("outcome",), registry=registry
        )
        Gauge(
            "sandbox_router_build_info",
            "Always 1; its label says what runs.",
            ("version",),
            registry=registry,
            multiprocess_mode="max",
        ).labels(version("agent-sandbox-k8s")).set(1)
        for decision in ("allowed", *_DECISIONS.values()):
            self._decisions.labels(decision)
        ProcessCollector(registry=registry)

    def dial_retried(self) -> None:
        """A Pod refused a connection and is tried again."""
        self._retries.inc()

    def address_outdated(self) -> None:
        """While a Pod was dialled, it stopped being the sandbox's."""
        self._outdated.inc()

    def certificate_reloaded(self, good: bool) -> None:
        """The certificate's files changed."""
        self._reloads.labels("success" if good else "error").inc()

    def begin(self, head: RequestHead, peer: str) -> Visit:
        """A request arrived."""
        self._running.inc()
        return Visit(peer, head)

    def end(self, visit: Visit) -> None:
        """Its response is complete, refused or broken."""
        seconds = anyio.current_time() - visit.began
        self._running.dec()
        self._requests.labels(visit.method, str(visit.status), visit.namespace).inc()
        self._seconds.labels(visit.method, visit.namespace).observe(seconds)
        if visit.reason != "bad-request":  # Refused before anybody asked for a credential.
            self._decisions.labels(_DECISIONS.get(visit.reason, "allowed")).inc()
        if visit.reason in _UPSTREAM_REASONS:
            self._failures.labels(visit.namespace, _UPSTREAM_REASONS[visit.reason]).inc()
        if self._log:
            self._write_line(visit, seconds)

    def _write_line(self, visit: Visit, seconds: float) -> None:
        head = visit.head
        parents = [_TRACEPARENT.match(value) for value in head.all(b"traceparent")]
        agents = head.all(b"user-agent")
        access_log.info(
            "request",
            method=head.method.decode("latin-1"),
            path=head.target.partition(b"?")[0].decode("latin-1"),
            status=visit.status,
            reason=visit.reason,
            duration_ms=round(seconds * 1000, 2),
            client_ip=visit.peer,
            sandbox=visit.sandbox,
            namespace=visit.namespace,
            bytes_in=visit.received,
            bytes_out=visit.sent,
            user_agent=agents[0].decode("latin-1") if agents else "",
            trace_id=parents[0][1].decode() if parents and parents[0] else "",
        )
