"""PersistentVolumeClaims of a Sandbox, and the volumes through which its Pod mounts them.

As a StatefulSet does it: one claim per template, called ``<template>-<sandbox>``, kept while the Sandbox is suspended
or expired and retained, collected with it. An existing claim is used as it is; its spec is never changed.
"""

import copy
from typing import Any

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxSpec
from agent_sandbox_api.core import PERSISTENT_VOLUME_CLAIMS, PvcView
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import LABEL_SANDBOX_NAME_HASH
from agent_sandbox_api.pod_template import VolumeClaimTemplate
from agent_sandbox_controllers.actions import Create, change
from agent_sandbox_controllers.object_names import volume_claim_name
from agent_sandbox_controllers.ownership import (
    Ownership,
    controller_reference,
    may_adopt,
    ownership_of,
    references_json,
)
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.sandbox.outcome import Plan, stopped
from agent_sandbox_controllers.sandbox.pod_metadata import of_user
from agent_sandbox_controllers.sandbox.strangers import foreign, unowned
from agent_sandbox_controllers.vocabulary import Reason


def template_name(template: VolumeClaimTemplate) -> str:
    """Name of a volume template; the schema requires one."""
    return template.metadata.name


def volume_names(spec: SandboxSpec, owner: str) -> list[str]:
    """Names of all claims that the Sandbox of that name wants."""
    return [volume_claim_name(template_name(each), owner) for each in spec.volume_claim_templates or ()]


def plan_volumes(observed: Observed) -> Plan:
    """Make what is missing, adopt what is offered, refuse what is foreign, wait for what is going."""
    plan = Plan()
    for template in observed.spec.volume_claim_templates or ():
        name = volume_claim_name(template_name(template), observed.name)
        plan += _plan_volume(observed, template, observed.volumes.get(name), name)
    return plan


def _plan_volume(observed: Observed, template: VolumeClaimTemplate, existing: PvcView | None, name: str) -> Plan:
    if existing is None:
        return Plan((Create(PERSISTENT_VOLUME_CLAIMS, _volume_claim(observed, template, name)),))
    meta = existing.metadata
    match ownership_of(meta, observed.uid):
        case Ownership.FOREIGN:
            return foreign(observed, "PVC", meta)
        case Ownership.UNOWNED if not may_adopt(meta.labels, observed.name_hash):
            return unowned("PVC", meta)
        case _ if meta.deleting:
            return stopped(
                Reason.DEPENDENCIES_NOT_READY,
                f'PVC "{name}" is being deleted; the Pod waits until it is gone and made anew',
            )
        case Ownership.UNOWNED:
            references = [*references_json(meta), controller_reference(SANDBOXES, observed.view.metadata)]
            body = {"metadata": {"ownerReferences": references}}
            return Plan((change(PERSISTENT_VOLUME_CLAIMS, meta, body, locked=True),))
        case Ownership.OWNED:
            return Plan()


def _volume_claim(observed: Observed, template: VolumeClaimTemplate, name: str) -> JsonObject:
    given = template.metadata
    metadata: JsonObject = {
        "name": name,
        "namespace": observed.namespace,
        "labels": {**of_user(given.labels), LABEL_SANDBOX_NAME_HASH: observed.name_hash},
        "ownerReferences": [controller_reference(SANDBOXES, observed.view.metadata)],
    }
    if annotations := of_user(given.annotations):
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": copy.deepcopy(template.spec),
    }


def with_volumes(sandbox: SandboxSpec, owner: str) -> JsonObject:
    """The Pod spec with the volumes of the Sandbox of that name; a volume template replaces a volume of its name."""
    spec = copy.deepcopy(sandbox.pod_template.spec)
    templates = [template_name(each) for each in sandbox.volume_claim_templates or ()]
    if not templates:
        return spec
    kept: list[Any] = [volume for volume in spec.get("volumes") or () if volume.get("name") not in templates]
    spec["volumes"] = kept + [
        {"name": name, "persistentVolumeClaim": {"claimName": volume_claim_name(name, owner)}} for name in templates
    ]
    return spec
