"""Names that clients, controllers and policies agree on: groups, labels, annotations, condition types and reasons.

They are those of the Go project, so that dashboards, policies and habits carry over.
"""

from functools import lru_cache
from typing import Final

AGENTS_GROUP: Final = "agents.x-k8s.io"
EXTENSIONS_GROUP: Final = "extensions.agents.x-k8s.io"

# Labels
LABEL_SANDBOX_NAME_HASH: Final = "agents.x-k8s.io/sandbox-name-hash"
LABEL_ADOPTABLE: Final = "agents.x-k8s.io/adoptable"
LABEL_WARM_POOL: Final = "agents.x-k8s.io/warm-pool-sandbox"
LABEL_TEMPLATE_REF_HASH: Final = "agents.x-k8s.io/sandbox-template-ref-hash"
LABEL_TEMPLATE_HASH: Final = "agents.x-k8s.io/sandbox-template-hash"
LABEL_CLAIM_UID: Final = "agents.x-k8s.io/claim-uid"
LABEL_LAUNCH_TYPE: Final = "agents.x-k8s.io/launch-type"
LABEL_CREATED_BY: Final = "agents.x-k8s.io/created-by"

# Annotations
ANNOTATION_POD_NAME: Final = "agents.x-k8s.io/pod-name"
ANNOTATION_TEMPLATE_REF: Final = "agents.x-k8s.io/sandbox-template-ref"
ANNOTATION_PROPAGATED_LABELS: Final = "agents.x-k8s.io/propagated-labels"
ANNOTATION_PROPAGATED_ANNOTATIONS: Final = "agents.x-k8s.io/propagated-annotations"
ANNOTATION_TRACE_CONTEXT: Final = "opentelemetry.io/trace-context"
ANNOTATION_CLIENT_FIRST_REQUESTED_AT: Final = "agents.x-k8s.io/client-first-requested-at"
ANNOTATION_SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"
ANNOTATION_WAKE_ON_REQUEST: Final = "agents.x-k8s.io/wake-on-request"
"""In the Pod template of a SandboxTemplate or Sandbox: ``"true"`` lets the router resume it for a request."""
ANNOTATION_ACCESS_KEY: Final = "access.agents.x-k8s.io/"
"""Prefix, before a key's id: a public key whose owner may reach the sandbox through the router (see ``access``)."""

RESERVED_PREFIXES: Final = (
    "agents.x-k8s.io/",
    "extensions.agents.x-k8s.io/",
    "api.agents.x-k8s.io/",
    ANNOTATION_ACCESS_KEY,
)
"""Keys with these prefixes are written by controllers only and never copied from a template to a Pod."""

# Condition types
CONDITION_READY: Final = "Ready"
CONDITION_SUSPENDED: Final = "Suspended"
CONDITION_FINISHED: Final = "Finished"
CONDITION_POD_SCHEDULED: Final = "PodScheduled"
CONDITION_PROGRESSING: Final = "Progressing"
CONDITION_POLICY_READY: Final = "NetworkPolicyReady"

# Headers between SDK, router and sandbox
HEADER_SANDBOX_ID: Final = "X-Sandbox-ID"
HEADER_SANDBOX_NAMESPACE: Final = "X-Sandbox-Namespace"
HEADER_SANDBOX_PORT: Final = "X-Sandbox-Port"
HEADER_SANDBOX_AUTHORIZATION: Final = "X-Sandbox-Authorization"
QUERY_SANDBOX_TOKEN: Final = "agent-sandbox-token"  # noqa: S105 - its name
"""Parameter of a link that carries a credential; the router turns it into a cookie of this name."""
ROUTER_AUDIENCE: Final = "agent-sandbox-router"
"""Audience of Kubernetes tokens that are good for the router and for nothing else."""

CONTROLLER_LEASE: Final = "agent-sandbox-controller"
ROUTER_SERVICE: Final = "sandbox-router-svc"
ROUTER_PORT: Final = 8080
SYSTEM_NAMESPACE: Final = "agent-sandbox-system"
RUNTIME_PORT: Final = 8888

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


@lru_cache(maxsize=4096)
def name_hash(name: str) -> str:
    """Hash a name into a label value: 32-bit FNV-1a of its UTF-8 bytes, as eight hex digits.

    >>> name_hash("my-sandbox")
    '374de8f5'
    """
    value = _FNV_OFFSET
    for byte in name.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return f"{value:08x}"
