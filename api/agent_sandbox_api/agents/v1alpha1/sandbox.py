"""Sandbox: one stateful Pod with a stable identity, its headless Service and its volumes."""

from enum import StrEnum
from typing import Literal

import msgspec
from pydantic import ConfigDict, Field

from agent_sandbox_api.meta import ApiModel, Conditions, KubeModel, ObjectMeta, Time
from agent_sandbox_api.names import AGENTS_GROUP
from agent_sandbox_api.pod_template import PodTemplate, VolumeClaimTemplate
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.rules import (
    MAX_VOLUME_CLAIM_TEMPLATES,
    NAME_CAN_BE_A_SERVICE,
    VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE,
    VOLUME_CLAIM_TEMPLATES_ARE_IMMUTABLE,
    VOLUME_CLAIMS_HAVE_ROOM_FOR_THEIR_NAME,
    validations,
)
from agent_sandbox_api.views import ConditionView, MetaView


class ShutdownPolicy(StrEnum):
    """What happens to the Sandbox object when its shutdownTime comes; its Pod and Service go in either case."""

    DELETE = "Delete"
    RETAIN = "Retain"


class SandboxSpec(ApiModel):
    """The wanted sandbox: its Pod, volumes and Service, whether it runs, and when it ends."""

    model_config = ConfigDict(
        json_schema_extra=validations(VOLUME_CLAIM_TEMPLATES_ARE_IMMUTABLE, VOLUME_CLAIM_TEMPLATE_NAMES_ARE_UNIQUE)
    )

    pod_template: PodTemplate = Field(description="The Pod of this sandbox.")
    volume_claim_templates: list[VolumeClaimTemplate] | None = Field(
        default=None,
        max_length=MAX_VOLUME_CLAIM_TEMPLATES,
        description="Volumes of this sandbox, mounted by the template's name. Immutable: create a new Sandbox instead.",
    )
    service: bool | None = Field(
        default=None, description="Whether a headless Service of the sandbox's name is kept. Unset means yes."
    )
    shutdown_time: Time | None = Field(default=None, description="When the sandbox expires, as RFC 3339.")
    shutdown_policy: ShutdownPolicy | None = Field(
        default=ShutdownPolicy.RETAIN,
        description="Delete removes the Sandbox at its shutdownTime; Retain keeps the object and its volumes.",
    )
    replicas: int | None = Field(
        default=1, ge=0, le=1, description="1 runs the sandbox, 0 suspends it: the Pod goes, the volumes stay."
    )


class SandboxStatus(ApiModel):
    """What the controller observed."""

    service_fqdn: str | None = Field(
        default=None, alias="serviceFQDN", description="DNS name of the sandbox's Service inside the cluster."
    )
    service: str | None = Field(default=None, description="Name of the sandbox's Service.")
    conditions: Conditions | None = Field(
        default=None, description="Ready, Suspended, Finished, PodScheduled and PodUpToDate."
    )
    replicas: int | None = Field(default=None, ge=0, description="How many Pods exist: 0 or 1.")
    selector: str | None = Field(default=None, description="Label selector of the sandbox's Pod.")
    pod_ips: list[str] | None = Field(default=None, alias="podIPs", description="Addresses of the sandbox's Pod.")
    node_name: str | None = Field(default=None, description="The node that the Pod runs on.")


class Sandbox(KubeModel):
    """A computer for an agent: isolated, stateful, with a stable name."""

    model_config = ConfigDict(
        json_schema_extra=validations(NAME_CAN_BE_A_SERVICE, VOLUME_CLAIMS_HAVE_ROOM_FOR_THEIR_NAME)
    )

    api_version: Literal["agents.x-k8s.io/v1alpha1"] = "agents.x-k8s.io/v1alpha1"
    kind: Literal["Sandbox"] = "Sandbox"
    metadata: ObjectMeta
    spec: SandboxSpec
    status: SandboxStatus | None = None


class SandboxStatusView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The whole status, decoded."""

    conditions: tuple[ConditionView, ...] = ()
    service_fqdn: str | None = msgspec.field(default=None, name="serviceFQDN")
    service: str | None = None
    replicas: int | None = None
    selector: str | None = None
    pod_ips: tuple[str, ...] = msgspec.field(default=(), name="podIPs")
    node_name: str | None = None


class SandboxView(msgspec.Struct, rename="camel", frozen=True):
    """A cached Sandbox: metadata and status decoded, the spec kept as JSON."""

    metadata: MetaView
    spec: msgspec.Raw
    status: SandboxStatusView = SandboxStatusView()
    api_version: str = "agents.x-k8s.io/v1alpha1"
    kind: str = "Sandbox"

    def model(self) -> Sandbox:
        """The validated model of this object."""
        return Sandbox.from_json(msgspec.json.encode(self))


SANDBOXES: Resource[SandboxView] = Resource(AGENTS_GROUP, "v1alpha1", "sandboxes", "Sandbox", SandboxView)
