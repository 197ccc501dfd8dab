"""The spans of a start: what the controllers add to the trace of whoever asked for a sandbox.

The trace context stands in an annotation that was written when the object was made; nothing is ever written for it.
Spans end with the start: an object that is Ready adds none, however long it lives.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent_sandbox import tracing
from agent_sandbox_api.names import ANNOTATION_TRACE_CONTEXT, CONDITION_READY
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, MetaView, is_condition_true


@contextmanager
def start_span(resource: Resource[Any], metadata: MetaView, conditions: tuple[ConditionView, ...]) -> Iterator[None]:
    """A span of one reconcile of an object that is not Ready yet and was made within a trace; else nothing."""
    context: tracing.TraceContext = {}
    if tracing.is_tracing() and not is_condition_true(conditions, CONDITION_READY):
        context = tracing.from_annotation(metadata.annotations.get(ANNOTATION_TRACE_CONTEXT, ""))
    if not context:
        yield
        return
    with tracing.span(f"reconcile {resource.kind}", parent=context) as span:
        span.note({"k8s.namespace.name": metadata.namespace, f"k8s.{resource.kind.lower()}.name": metadata.name})
        yield
