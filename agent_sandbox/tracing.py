"""Traces by OpenTelemetry, from a program's first call to the command in its sandbox, in every process on the way.

In: names of spans, and W3C trace contexts that came over the wire or stand in an annotation. Out: spans, to whatever
tracer provider the process has. A process without one pays for a look into ``sys.modules``: OpenTelemetry is imported
only where somebody else has done so, or where ``OTEL_EXPORTER_OTLP_ENDPOINT`` asks ``export_spans`` to.

Spans carry names of objects, methods, paths' first words and status codes. They never carry commands, file names,
contents or messages of errors: a trace is read by more people than a sandbox.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

logger = logging.getLogger(__name__)

TraceContext: TypeAlias = Mapping[str, str]
"""The headers ``traceparent`` and ``tracestate`` of W3C Trace Context; empty without a trace."""

Kind: TypeAlias = Literal["internal", "server", "client"]

HEADERS: Final = ("traceparent", "tracestate")
_SCOPE: Final = "agent_sandbox"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_LARGEST_ANNOTATION: Final = 1024
"""Bytes; the two headers have at most 55 and 512."""


class Span:
    """What happens between two moments; this one is nobody's and forgets what it is told."""

    def note(self, attributes: Mapping[str, str | int]) -> None:
        """Add attributes, under OpenTelemetry's names where it has one."""

    def fail(self, reason: str) -> None:
        """Say that it went wrong, in one word: an error's class, or a reason of the router."""


class _RealSpan(Span):
    def __init__(self, span: Any) -> None:
        self._span = span

    def note(self, attributes: Mapping[str, str | int]) -> None:
        self._span.set_attributes(attributes)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, reason))


_NOBODYS: Final = Span()


def is_tracing() -> bool:
    """Whether this process has OpenTelemetry loaded."""
    return "opentelemetry.trace" in sys.modules


@contextmanager
def span(name: str, *, parent: TraceContext | None = None, kind: Kind = "internal") -> Iterator[Span]:
    """Make a span of the block, current within it. An exception marks it as failed, by its class.

    Args:
        name: few different ones, since people group by it.
        parent: the trace context to hang it on; by default the current span, or a new trace.
        kind: which side of a request this process is, if either.
    """
    if not is_tracing():
        yield _NOBODYS
        return
    from opentelemetry import trace

    context = _propagator().extract(dict(parent)) if parent else None
    tracer = trace.get_tracer(_SCOPE)
    with tracer.start_as_current_span(
        name,
        context=context,
        kind=trace.SpanKind[kind.upper()],
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        real = _RealSpan(started)
        try:
            yield real
        except Exception as error:
            real.fail(type(error).__name__)
            raise


def current() -> dict[str, str]:
    """The trace context of the current span, to be sent along; empty if there is none."""
    headers: dict[str, str] = {}
    if is_tracing():
        _propagator().inject(headers)
    return headers


def to_annotation(context: TraceContext) -> str:
    """A trace context as the annotation ``opentelemetry.io/trace-context`` carries it; empty for an empty one."""
    return json.dumps(dict(context)) if context else ""


def from_annotation(text: str) -> dict[str, str]:
    """The trace context in an annotation; empty if it is none, since anybody may write annotations."""
    if not text or len(text) > _LARGEST_ANNOTATION:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in HEADERS if isinstance(found.get(name), str)}


def _propagator() -> Any:
    """W3C Trace Context alone: a process's baggage is not for annotations that others read."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


@contextmanager
def export_spans(service: str) -> Iterator[None]:
    """Send this process's spans where OpenTelemetry's variables say, over OTLP and HTTP; nowhere if they say nothing.

    ``OTEL_EXPORTER_OTLP_ENDPOINT`` turns it on; sampling, headers and the rest have their usual variables. At the end
    of the block what is left is sent. Run it around the event loop, not in it: that last sending waits.

    Args:
        service: ``service.name``, unless ``OTEL_SERVICE_NAME`` says another.
    """
    provider = _provider(service) if any(os.environ.get(name) for name in _ENDPOINTS) else None
    try:
        yield
    finally:
        if provider is not None:
            provider.shutdown()


def _provider(service: str) -> Any:
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning("no traces: %s is not installed (pip install 'agent-sandbox-k8s[otel]')", error.name)
        return None
    attributes = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service}
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider
