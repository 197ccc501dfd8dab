"""Makes sandboxes, one or many: a claim, its binding, a handle; and nothing left behind where that fails."""

from dataclasses import replace

from agent_sandbox import tracing
from agent_sandbox.sdk.claims import ClaimRequest, create_claim, delete_after, wait_until_bound
from agent_sandbox.sdk.connection import Connection
from agent_sandbox.sdk.sandbox import AsyncSandbox
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaimView
from agent_sandbox_api.names import ANNOTATION_TRACE_CONTEXT


async def make_sandbox(connection: Connection, request: ClaimRequest, *, ready_timeout: float) -> AsyncSandbox:
    """Make one sandbox and wait until it is ready. If that fails, or is cancelled, the claim is deleted.

    Args:
        connection: where.
        request: the sandbox that is wanted.
        ready_timeout: seconds.

    Raises:
        SandboxError: there is no sandbox, and why.
    """
    with tracing.span("sandbox.create", kind="client") as span:
        trace = tracing.current()
        if trace:
            annotation = {ANNOTATION_TRACE_CONTEXT: tracing.to_annotation(trace)}
            request = replace(request, annotations={**annotation, **request.annotations})
        span.note({"k8s.namespace.name": request.namespace, "sandbox.template": request.template_name})
        sandbox = await _make(connection, request, trace, ready_timeout)
        span.note({"sandbox.claim": sandbox.claim_name, "sandbox.name": sandbox.sandbox_name})
        return sandbox


async def _make(
    connection: Connection, request: ClaimRequest, trace: tracing.TraceContext, ready_timeout: float
) -> AsyncSandbox:
    made: list[SandboxClaimView] = []
    try:
        if connection.credentials is not None:
            keys = await connection.credentials.for_new_claim()
            request = replace(request, annotations={**request.annotations, **keys})
        now = await connection.now() if request.ttl is not None else connection.local_now()
        claim = await create_claim(connection.kube, request, now=now, keep=made.append)
        binding = await wait_until_bound(connection.kube, claim, timeout=ready_timeout)
        return AsyncSandbox(connection, claim, binding, trace=trace)
    except BaseException as error:
        for claim in made:
            await delete_after(connection.kube, claim, error)
        raise
