"""JSON of core Kubernetes types inside our kinds: kept as it came, described to the CRD generator by its type's name.

The models do not look inside: these schemas belong to Kubernetes. In the CRDs they are spelled out in full, so the
API server checks them; ``x-core-type`` names the model of the official client that the generator takes them from.
"""

from typing import Annotated

from pydantic import WithJsonSchema

from agent_sandbox_api.meta import JsonObject

PodSpecObject = Annotated[JsonObject, WithJsonSchema({"type": "object", "x-core-type": "V1PodSpec"})]
"""A core/v1 PodSpec."""

PersistentVolumeClaimSpecObject = Annotated[
    JsonObject, WithJsonSchema({"type": "object", "x-core-type": "V1PersistentVolumeClaimSpec"})
]
"""A core/v1 PersistentVolumeClaimSpec."""

IngressRuleObject = Annotated[
    JsonObject, WithJsonSchema({"type": "object", "x-core-type": "V1NetworkPolicyIngressRule"})
]
"""A networking.k8s.io/v1 NetworkPolicyIngressRule."""

EgressRuleObject = Annotated[JsonObject, WithJsonSchema({"type": "object", "x-core-type": "V1NetworkPolicyEgressRule"})]
"""A networking.k8s.io/v1 NetworkPolicyEgressRule."""
