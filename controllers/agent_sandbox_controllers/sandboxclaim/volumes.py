"""Volumes of a claim: whether its template takes them, and the list that results."""

from collections.abc import Sequence

from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim, SandboxTemplate, VolumeClaimTemplatesPolicy
from agent_sandbox_api.pod_template import VolumeClaimTemplate
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason


def merged_volumes(claim: SandboxClaim, template: SandboxTemplate) -> list[VolumeClaimTemplate] | Trouble:
    """The volumes of the claim's Sandbox: the template's, with the claim's added or in their place as its policy
    allows.
    """
    base = list(template.spec.volume_claim_templates or ())
    own = list(claim.spec.volume_claim_templates or ())
    for whose, volumes in (("template", base), ("claim", own)):
        if fault := _names_fault(volumes):
            return _rejected(f"volumeClaimTemplates of the {whose}: {fault}")
    if not own:
        return base
    policy = template.spec.volume_claim_templates_policy
    if policy not in (VolumeClaimTemplatesPolicy.ALLOWED, VolumeClaimTemplatesPolicy.OVERRIDES):
        return _rejected(
            f'SandboxTemplate "{template.metadata.name}" takes no volumes from claims; remove '
            "spec.volumeClaimTemplates, or "
            f"set volumeClaimTemplatesPolicy of the template to Allowed or Overrides"
        )
    places = {_name(volume): index for index, volume in enumerate(base)}
    for volume in own:
        index = places.get(_name(volume))
        if index is None:
            base.append(volume)
        elif policy == VolumeClaimTemplatesPolicy.OVERRIDES:
            base[index] = volume
        else:
            return _rejected(
                f'volume "{_name(volume)}" is in the template already; replacing it needs volumeClaimTemplatesPolicy: '
                "Overrides"
            )
    return base


def _rejected(text: str) -> Trouble:
    return Trouble(Reason.VOLUMES_ERROR, text)


def _name(volume: VolumeClaimTemplate) -> str:
    return volume.metadata.name


def _names_fault(volumes: Sequence[VolumeClaimTemplate]) -> str:
    names = [_name(volume) for volume in volumes]
    if not all(names):
        return "every template needs metadata.name"
    twice = {name for name in names if names.count(name) > 1}
    return f'name "{min(twice)}" is used twice' if twice else ""
