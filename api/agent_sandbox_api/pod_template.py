"""The parts that several of our kinds share: Pod and volume templates."""

from pydantic import Field

from agent_sandbox_api.core_objects import PersistentVolumeClaimSpecObject, PodSpecObject
from agent_sandbox_api.meta import ApiModel, EmbeddedMetadata
from agent_sandbox_api.rules import DNS_LABEL


class PodTemplate(ApiModel):
    """The Pod that a sandbox runs in."""

    metadata: EmbeddedMetadata | None = Field(
        default=None, description="Labels and annotations of the Pod. Keys of agents.x-k8s.io are reserved and ignored."
    )
    spec: PodSpecObject = Field(description="A core/v1 PodSpec. It needs at least one container.")


class VolumeTemplateMetadata(EmbeddedMetadata):
    """Name, labels and annotations of a volume template."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
        description="The volume's name in the Pod; the claim is called <name>-<sandbox>.",
    )


class VolumeClaimTemplate(ApiModel):
    """A PersistentVolumeClaim made for each sandbox, kept while it is suspended, deleted with it."""

    metadata: VolumeTemplateMetadata = Field(
        description="Name, labels and annotations of the PersistentVolumeClaim. The name is required."
    )
    spec: PersistentVolumeClaimSpecObject = Field(description="A core/v1 PersistentVolumeClaimSpec.")
