"""Words of ours that users and other programs see: reasons, and the labels and annotations beyond
``agent_sandbox_api.names``.

Condition types and most reasons are those of the Go project. A reason is stable: programs match on it; the message
beside it may change at any time.
"""

from typing import Final

# Labels that add to the 32-bit name hashes, whose collisions are trivial to construct.
LABEL_SANDBOX_UID: Final = "agents.x-k8s.io/sandbox-uid"
"""On Pod and Service: UID of the Sandbox. Part of the Service's selector."""
LABEL_TEMPLATE_ID: Final = "agents.x-k8s.io/sandbox-template-id"
"""On Sandbox, Pod and NetworkPolicy: ``template_id`` of the template. Part of the policy's selector."""

# Annotations
ANNOTATION_TEMPLATE_NAMESPACE: Final = "agents.x-k8s.io/sandbox-template-namespace"
"""On Sandbox and NetworkPolicy: namespace of the template."""
ANNOTATION_TEMPLATE_UID: Final = "agents.x-k8s.io/sandbox-template-uid"
"""On NetworkPolicy: UID of the template that it was last written for."""
ANNOTATION_POLICY_MANAGEMENT: Final = "agents.x-k8s.io/network-policy-management"
"""On Sandbox: ``Unmanaged`` if its template was so when the Sandbox was made; counts once the template is gone."""
ANNOTATION_POD_SPEC_HASH: Final = "agents.x-k8s.io/pod-spec-hash"
"""On Pod: content hash of the Pod spec that it was created with; tells whether podTemplate.spec has changed since."""

# Label values
LAUNCH_WARM: Final = "warm"
LAUNCH_COLD: Final = "cold"
CREATED_BY_CONTROLLER: Final = "controller"
TRUE: Final = "true"

CONDITION_POD_UP_TO_DATE: Final = "PodUpToDate"
"""On Sandbox, present only while False: podTemplate.spec was changed and the living Pod still has the former one."""


class Reason:
    """Every reason that our conditions carry, apart from those that a Pod reports itself."""

    # Ready of a Sandbox
    DEPENDENCIES_READY: Final = "DependenciesReady"
    DEPENDENCIES_NOT_READY: Final = "DependenciesNotReady"
    RECONCILER_ERROR: Final = "ReconcilerError"
    MULTIPLE_PODS: Final = "MultiplePods"
    SANDBOX_SUSPENDED: Final = "SandboxSuspended"
    SANDBOX_EXPIRED: Final = "SandboxExpired"
    POD_SUCCEEDED: Final = "PodSucceeded"
    POD_FAILED: Final = "PodFailed"
    CONTAINER_FAILED: Final = "ContainerFailed"
    NETWORK_POLICY_NOT_READY: Final = "NetworkPolicyNotReady"
    OWNER_NOT_FOUND: Final = "OwnerNotFound"
    QUOTA_EXCEEDED: Final = "QuotaExceeded"
    REJECTED: Final = "Rejected"
    # Suspended, PodScheduled and PodUpToDate of a Sandbox
    NOT_SUSPENDED: Final = "NotSuspended"
    POD_TERMINATED: Final = "PodTerminated"
    POD_TERMINATING: Final = "PodTerminating"
    POD_NOT_OWNED: Final = "PodNotOwned"
    POD_SCHEDULED: Final = "PodScheduled"
    POD_SCHEDULING_UNKNOWN: Final = "PodSchedulingUnknown"
    POD_TEMPLATE_CHANGED: Final = "PodTemplateChanged"
    # NetworkPolicyReady of a SandboxTemplate
    POLICY_READY: Final = "NetworkPolicyReady"
    POLICY_UNMANAGED: Final = "NetworkPolicyUnmanaged"
    POLICY_CONFLICT: Final = "NetworkPolicyConflict"
    POLICY_REJECTED: Final = "NetworkPolicyRejected"
    # Ready of a SandboxClaim
    TEMPLATE_NOT_FOUND: Final = "TemplateNotFound"
    TEMPLATE_NOT_ALLOWED: Final = "TemplateNotAllowed"
    WARM_POOL_NOT_FOUND: Final = "WarmPoolNotFound"
    WARM_POOL_MISMATCH: Final = "WarmPoolMismatch"
    INVALID_METADATA: Final = "InvalidMetadata"
    METADATA_CONFLICT: Final = "MetadataConflict"
    ENV_REJECTED: Final = "EnvVarsInjectionRejected"
    VOLUMES_ERROR: Final = "VolumeClaimTemplatesError"
    SANDBOX_NAME_CONFLICT: Final = "SandboxNameConflict"
    SANDBOX_MISSING: Final = "SandboxMissing"
    SANDBOX_NOT_READY: Final = "SandboxNotReady"
    CLAIM_EXPIRED: Final = "ClaimExpired"
    # Ready and Progressing of a SandboxWarmPool
    POOL_READY: Final = "MembersReady"
    POOL_NOT_READY: Final = "MembersNotReady"
    POOL_UNSCHEDULABLE: Final = "Unschedulable"
