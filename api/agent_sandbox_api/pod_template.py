"""The parts that several of our kinds share: Pod and volume templates."""

from pydantic import Field

from agent_sandbox_api.meta import ApiModel, EmbeddedMetadata, JsonObject


class PodTemplate(ApiModel):
    """The Pod that a sandbox runs in."""

    metadata: EmbeddedMetadata | None = Field(
        default=None, description="Labels and annotations of the Pod. Keys of agents.x-k8s.io are reserved and ignored."
    )
    spec: JsonObject = Field(description="A core/v1 PodSpec. It needs at least one container.")


class VolumeTemplateMetadata(EmbeddedMetadata):
    """Name, labels and annotations of a volume template."""

    name: str | None = Field(
        default=None, description="The volume's name in the Pod; the claim is called <name>-<sandbox>."
    )


class VolumeClaimTemplate(ApiModel):
    """A PersistentVolumeClaim made for each sandbox, kept while it is suspended, deleted with it."""

    metadata: VolumeTemplateMetadata | None = Field(
        default=None, description="Name, labels and annotations of the PersistentVolumeClaim."
    )
    spec: JsonObject = Field(description="A core/v1 PersistentVolumeClaimSpec.")
