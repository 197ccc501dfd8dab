"""SandboxWarmPool: keeps sandboxes of one template running, so that a claim finds one ready."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from agent_sandbox_api.meta import ApiModel, Conditions, KubeModel, ObjectMeta
from agent_sandbox_api.names import EXTENSIONS_GROUP
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, MetaView


class UpdateStrategyType(StrEnum):
    """How members of an old template are replaced."""

    RECREATE = "Recreate"
    ON_REPLENISH = "OnReplenish"
    ROLLING = "Rolling"


class RollingUpdate(ApiModel):
    """How fast a rolling replacement goes."""

    max_unavailable: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern="^[0-9]+%$")] | None = Field(
        default=1, description="How many members may be missing at once: a number, or a percentage such as 25%."
    )


class UpdateStrategy(ApiModel):
    """How members of an old template are replaced."""

    type: UpdateStrategyType | None = Field(
        default=UpdateStrategyType.ON_REPLENISH,
        description="OnReplenish keeps old members until they are claimed, Recreate replaces all at once, Rolling "
        "replaces some at a time.",
    )
    rolling_update: RollingUpdate | None = Field(default=None, description="Pace of Rolling.")


class PoolTemplateReference(ApiModel):
    """Names the SandboxTemplate of a pool, in the pool's namespace."""

    name: str = Field(min_length=1, description="Name of the SandboxTemplate.")


class SandboxWarmPoolSpec(ApiModel):
    """How many sandboxes of which template to keep ready, and how they are renewed."""

    replicas: int = Field(ge=0, description="How many unclaimed sandboxes to keep.")
    sandbox_template_ref: PoolTemplateReference = Field(description="The template of the pool's sandboxes.")
    update_strategy: UpdateStrategy | None = Field(
        default=None, description="What happens to members when the template changes. Unset means OnReplenish."
    )


class SandboxWarmPoolStatus(ApiModel):
    """What the controller observed."""

    replicas: int | None = Field(default=None, ge=0, description="How many members exist.")
    ready_replicas: int | None = Field(default=None, ge=0, description="How many of them are Ready.")
    selector: str | None = Field(default=None, description="Label selector of the members' Pods, for the HPA.")
    observed_generation: int | None = Field(default=None, ge=0, description="The generation last acted upon.")
    conditions: Conditions | None = Field(default=None, description="Ready and Progressing.")


class SandboxWarmPool(KubeModel):
    """Keeps a number of sandboxes of one template ready to be claimed."""

    api_version: Literal["extensions.agents.x-k8s.io/v1alpha1"] = "extensions.agents.x-k8s.io/v1alpha1"
    kind: Literal["SandboxWarmPool"] = "SandboxWarmPool"
    metadata: ObjectMeta
    spec: SandboxWarmPoolSpec
    status: SandboxWarmPoolStatus | None = None


class SandboxWarmPoolStatusView(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The whole status, decoded."""

    replicas: int | None = None
    ready_replicas: int | None = None
    selector: str | None = None
    observed_generation: int | None = None
    conditions: tuple[ConditionView, ...] = ()


class SandboxWarmPoolView(msgspec.Struct, rename="camel", frozen=True):
    """A cached SandboxWarmPool: metadata and status decoded, the spec kept as JSON."""

    metadata: MetaView
    spec: msgspec.Raw
    status: SandboxWarmPoolStatusView = SandboxWarmPoolStatusView()
    api_version: str = "extensions.agents.x-k8s.io/v1alpha1"
    kind: str = "SandboxWarmPool"

    def model(self) -> SandboxWarmPool:
        """The validated model of this object."""
        return SandboxWarmPool.from_json(msgspec.json.encode(self))


SANDBOX_WARM_POOLS: Resource[SandboxWarmPoolView] = Resource(
    EXTENSIONS_GROUP, "v1alpha1", "sandboxwarmpools", "SandboxWarmPool", SandboxWarmPoolView
)
