"""SandboxTemplate: a Pod and the NetworkPolicy that governs it, to make sandboxes from."""

from enum import StrEnum
from typing import Literal

import msgspec
from pydantic import ConfigDict, Field

from agent_sandbox_api.core_objects import EgressRuleObject, IngressRuleObject
from agent_sandbox_api.meta import ApiModel, Conditions, KubeModel, ObjectMeta
from agent_sandbox_api.names import EXTENSIONS_GROUP
from agent_sandbox_api.pod_template import PodTemplate, VolumeClaimTemplate
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.rules import MAX_VOLUME_CLAIM_TEMPLATES, VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE, validations
from agent_sandbox_api.views import ConditionView, MetaView


class NetworkPolicyManagement(StrEnum):
    """Who looks after the NetworkPolicy of the template's Pods."""

    MANAGED = "Managed"
    UNMANAGED = "Unmanaged"


class EnvVarsInjectionPolicy(StrEnum):
    """Whether claims may set environment variables."""

    ALLOWED = "Allowed"
    OVERRIDES = "Overrides"
    DISALLOWED = "Disallowed"


class VolumeClaimTemplatesPolicy(StrEnum):
    """Whether claims may bring volumes."""

    ALLOWED = "Allowed"
    OVERRIDES = "Overrides"
    DISALLOWED = "Disallowed"


class NetworkPolicySpec(ApiModel):
    """Who may talk to the sandbox and whom it may talk to. An absent or empty list denies that direction."""

    ingress: list[IngressRuleObject] | None = Field(
        default=None, description="networking.k8s.io/v1 NetworkPolicyIngressRules. Empty denies all ingress."
    )
    egress: list[EgressRuleObject] | None = Field(
        default=None, description="networking.k8s.io/v1 NetworkPolicyEgressRules. Empty denies all egress."
    )


class SandboxTemplateSpec(ApiModel):
    """What sandboxes made from this template look like."""

    model_config = ConfigDict(json_schema_extra=validations(VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE))

    pod_template: PodTemplate = Field(description="The Pod of each sandbox.")
    volume_claim_templates: list[VolumeClaimTemplate] | None = Field(
        default=None, max_length=MAX_VOLUME_CLAIM_TEMPLATES, description="Volumes of each sandbox."
    )
    service: bool | None = Field(
        default=None, description="Whether each sandbox has a headless Service. Unset means yes."
    )
    network_policy: NetworkPolicySpec | None = Field(
        default=None,
        description="Rules for the template's Pods. Unset means the secure default: ingress from the router only, "
        "egress to the public internet and the cluster's DNS only. Rules given here replace the default whole.",
    )
    network_policy_management: NetworkPolicyManagement | None = Field(
        default=NetworkPolicyManagement.MANAGED,
        description="Managed keeps a NetworkPolicy for the template's Pods. Unmanaged leaves that to somebody else: "
        "without a policy the Pods may reach everything.",
    )
    env_vars_injection_policy: EnvVarsInjectionPolicy | None = Field(
        default=EnvVarsInjectionPolicy.DISALLOWED,
        description="Whether claims may add (Allowed) or also replace (Overrides) environment variables. "
        "Disallowed refuses claims that have any.",
    )
    volume_claim_templates_policy: VolumeClaimTemplatesPolicy | None = Field(
        default=VolumeClaimTemplatesPolicy.DISALLOWED,
        description="Whether claims may add (Allowed) or also replace (Overrides) volumes. "
        "Disallowed refuses claims that have any.",
    )
    allowed_namespaces: list[str] | None = Field(
        default=None,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Other namespaces whose claims may use this template; '*' allows all. Unset allows none.",
    )


class SandboxTemplateStatus(ApiModel):
    """What the controller observed."""

    conditions: Conditions | None = Field(default=None, description="NetworkPolicyReady: whether the policy stands.")


class SandboxTemplate(KubeModel):
    """A reusable description of a sandbox together with the network policy that governs it."""

    api_version: Literal["extensions.agents.x-k8s.io/v1alpha1"] = "extensions.agents.x-k8s.io/v1alpha1"
    kind: Literal["SandboxTemplate"] = "SandboxTemplate"
    metadata: ObjectMeta
    spec: SandboxTemplateSpec
    status: SandboxTemplateStatus | None = None


class SandboxTemplateStatusView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The whole status, decoded."""

    conditions: tuple[ConditionView, ...] = ()


class SandboxTemplateView(msgspec.Struct, rename="camel", frozen=True):
    """A cached SandboxTemplate: metadata and status decoded, the spec kept as JSON."""

    metadata: MetaView
    spec: msgspec.Raw
    status: SandboxTemplateStatusView = SandboxTemplateStatusView()
    api_version: str = "extensions.agents.x-k8s.io/v1alpha1"
    kind: str = "SandboxTemplate"

    def model(self) -> SandboxTemplate:
        """The validated model of this object."""
        return SandboxTemplate.from_json(msgspec.json.encode(self))


SANDBOX_TEMPLATES: Resource[SandboxTemplateView] = Resource(
    EXTENSIONS_GROUP, "v1alpha1", "sandboxtemplates", "SandboxTemplate", SandboxTemplateView
)
