"""SandboxClaim: an agent's request for a sandbox of its own."""

from enum import StrEnum
from typing import Literal

import msgspec
from pydantic import ConfigDict, Field

from agent_sandbox_api.meta import ApiModel, Conditions, EmbeddedMetadata, KubeModel, ObjectMeta, Time
from agent_sandbox_api.names import EXTENSIONS_GROUP
from agent_sandbox_api.pod_template import VolumeClaimTemplate
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.rules import (
    MAX_VOLUME_CLAIM_TEMPLATES,
    VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE,
    VOLUME_CLAIMS_HAVE_ROOM_FOR_THEIR_NAME,
    validations,
)
from agent_sandbox_api.views import ConditionView, MetaView


class ClaimShutdownPolicy(StrEnum):
    """What happens to the claim when it expires; its Sandbox goes in every case."""

    DELETE = "Delete"
    DELETE_FOREGROUND = "DeleteForeground"
    RETAIN = "Retain"


class TemplateReference(ApiModel):
    """Names a SandboxTemplate."""

    name: str = Field(min_length=1, description="Name of the SandboxTemplate.")
    namespace: str | None = Field(
        default=None,
        description="Namespace of the template, the claim's own if unset. Another namespace's template must list the "
        "claim's namespace in spec.allowedNamespaces.",
    )


class ClaimLifecycle(ApiModel):
    """When the claim ends, and how."""

    shutdown_time: Time | None = Field(default=None, description="When the claim expires, as RFC 3339.")
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, description="Seconds after the Pod finished until the claim expires."
    )
    shutdown_policy: ClaimShutdownPolicy | None = Field(
        default=ClaimShutdownPolicy.RETAIN,
        description="Delete and DeleteForeground remove the expired claim; Retain keeps it as a record. Its Sandbox "
        "goes in every case.",
    )


class EnvVar(ApiModel):
    """An environment variable for the claimed sandbox."""

    name: str = Field(min_length=1, description="Name of the variable.")
    value: str = Field(description="Its value.")
    container_name: str | None = Field(default=None, description="The container that gets it; the first one if unset.")


class SandboxClaimSpec(ApiModel):
    """Which template to take a sandbox from, what to add to it, and when the claim ends."""

    model_config = ConfigDict(json_schema_extra=validations(VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE))

    sandbox_template_ref: TemplateReference = Field(description="The template of the wanted sandbox.")
    warmpool: str | None = Field(
        default="default",
        description="'default' takes a member of any pool of the template, 'none' always starts cold, any other value "
        "names the pool to take from.",
    )
    lifecycle: ClaimLifecycle | None = Field(default=None, description="When the claim ends. Unset means never.")
    additional_pod_metadata: EmbeddedMetadata | None = Field(
        default=None, description="Labels and annotations to add to the Pod."
    )
    env: list[EnvVar] | None = Field(
        default=None, description="Environment variables, if the template allows them. They make the start cold."
    )
    volume_claim_templates: list[VolumeClaimTemplate] | None = Field(
        default=None,
        max_length=MAX_VOLUME_CLAIM_TEMPLATES,
        description="Volumes of the claim's own, if the template allows them. They make the start cold.",
    )


class BoundSandbox(ApiModel):
    """The Sandbox that the claim holds."""

    name: str | None = Field(default=None, description="Name of the Sandbox.")
    pod_ips: list[str] | None = Field(default=None, alias="podIPs", description="Addresses of its Pod.")


class SandboxClaimStatus(ApiModel):
    """What the controller observed."""

    conditions: Conditions | None = Field(default=None, description="Ready, Finished and MetadataApplied.")
    sandbox_name: str | None = Field(default=None, description="Name of the claimed Sandbox.")
    sandbox: BoundSandbox | None = Field(default=None, description="The claimed Sandbox.")


class SandboxClaim(KubeModel):
    """Gives its creator one Sandbox: a warm one from a pool if there is one, a fresh one otherwise."""

    model_config = ConfigDict(json_schema_extra=validations(VOLUME_CLAIMS_HAVE_ROOM_FOR_THEIR_NAME))

    api_version: Literal["extensions.agents.x-k8s.io/v1alpha1"] = "extensions.agents.x-k8s.io/v1alpha1"
    kind: Literal["SandboxClaim"] = "SandboxClaim"
    metadata: ObjectMeta
    spec: SandboxClaimSpec
    status: SandboxClaimStatus | None = None


class BoundSandboxView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """``status.sandbox``, decoded."""

    name: str | None = None
    pod_ips: tuple[str, ...] = msgspec.field(default=(), name="podIPs")


class SandboxClaimStatusView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The whole status, decoded."""

    conditions: tuple[ConditionView, ...] = ()
    sandbox_name: str | None = None
    sandbox: BoundSandboxView | None = None


class SandboxClaimView(msgspec.Struct, rename="camel", frozen=True):
    """A cached SandboxClaim: metadata and status decoded, the spec kept as JSON."""

    metadata: MetaView
    spec: msgspec.Raw
    status: SandboxClaimStatusView = SandboxClaimStatusView()
    api_version: str = "extensions.agents.x-k8s.io/v1alpha1"
    kind: str = "SandboxClaim"

    def model(self) -> SandboxClaim:
        """The validated model of this object."""
        return SandboxClaim.from_json(msgspec.json.encode(self))


SANDBOX_CLAIMS: Resource[SandboxClaimView] = Resource(
    EXTENSIONS_GROUP, "v1alpha1", "sandboxclaims", "SandboxClaim", SandboxClaimView
)
