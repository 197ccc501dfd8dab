"""The one Pod of a Sandbox: when it is created, adopted, kept up, deleted, and when it is left alone.

One Pod per Sandbox, owned by UID. Creating one is the last thing a pass does, after everything that must stand before
it.
"""

from functools import lru_cache
from typing import Final

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxSpec
from agent_sandbox_api.core import PODS, PodView
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.views import find_condition, is_condition_true
from agent_sandbox_controllers.actions import Create, change, remove
from agent_sandbox_controllers.blueprint import content_hash
from agent_sandbox_controllers.ownership import (
    Ownership,
    controller_reference,
    may_adopt,
    ownership_of,
    references_json,
)
from agent_sandbox_controllers.sandbox.observed import Observed, OwnerKind
from agent_sandbox_controllers.sandbox.outcome import Notice, Plan, stopped
from agent_sandbox_controllers.sandbox.pod_metadata import metadata_difference, new_pod_metadata, wanted_metadata
from agent_sandbox_controllers.sandbox.strangers import foreign, unowned
from agent_sandbox_controllers.sandbox.volumes import with_volumes
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.vocabulary import ANNOTATION_POD_SPEC_HASH, Reason

_LOSSES: Final = frozenset(
    {
        "Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity", "Preempting", "Preempted",
        "UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfephemeral-storage", "OutOfpods",
    }
)  # fmt: skip
"""``status.reason`` of Pods that failed through no fault of their own, as kubelets and the node lifecycle write it. A
kubelet that refuses a Pod because the node had filled up meanwhile says OutOf and the resource."""


def plan_running_pod(observed: Observed, *, blocked: bool) -> Plan:
    """The Pod of a Sandbox that should run.

    Args:
        observed: what there is.
        blocked: something that must stand before the Pod was refused.
    """
    if len(observed.owned_pods) > 1:
        return _plan_many(observed)
    if observed.pod is not None:
        return _plan_owned(observed, observed.pod)
    if observed.named_pod is not None:
        return _plan_stranger(observed, observed.named_pod)
    if observed.owner is OwnerKind.UNVERIFIED:
        return stopped(Reason.OWNER_NOT_FOUND, owner_not_found(observed), retry_after=5.0)
    if observed.gate.trouble is not None:
        return Plan(troubles=(observed.gate.trouble,))
    if blocked:
        return Plan()
    return Plan((Create(PODS, new_pod(observed)),))


def plan_suspended_pod(observed: Observed) -> Plan:
    """A suspended Sandbox deletes its own Pods, all of them, and nobody else's."""
    return Plan(tuple(remove(PODS, pod.metadata) for pod in observed.owned_pods if not pod.metadata.deleting))


def owner_not_found(observed: Observed) -> str:
    """Why a Sandbox whose owner is not known gets no Pod."""
    controller = observed.view.metadata.controller
    assert controller is not None, "an unverified owner is one that the Sandbox names"
    return (
        f"{controller.kind} {controller.name} (UID: {controller.uid}), which controls this sandbox, does not exist; "
        "another object of that name, with another UID, is not meant. No Pod is created, and the garbage collector "
        "removes the sandbox; make one without that ownerReference if you want to keep it"
    )


def _plan_many(observed: Observed) -> Plan:
    text = (
        f"multiple Pods ({len(observed.owned_pods)}) are controlled by this Sandbox; refusing to choose or create a "
        f"Pod: delete all but one of {', '.join(sorted(pod.metadata.name for pod in observed.owned_pods))}"
    )
    return stopped(Reason.MULTIPLE_PODS, text) + Plan(
        notices=(Notice("Warning", Reason.MULTIPLE_PODS, "Reconciling", text, about=observed.uid),)
    )


def _plan_owned(observed: Observed, pod: PodView) -> Plan:
    loss = loss_of(pod)
    if pod.metadata.deleting:
        return Plan(notices=(_loss_notice(observed, pod, loss),)) if loss else Plan()
    if loss and pod.status.phase == "Failed":
        return Plan((remove(PODS, pod.metadata),), notices=(_loss_notice(observed, pod, loss),))
    difference = metadata_difference(pod.metadata, wanted_metadata(observed))
    return Plan((change(PODS, pod.metadata, {"metadata": difference}),) if difference else ())


def loss_of(pod: PodView) -> str:
    """Why a Pod was lost through no fault of its own: eviction, preemption, its node; empty if it was not."""
    if pod.status.phase == "Failed" and pod.status.reason in _LOSSES:
        return pod.status.reason
    disruption = find_condition(pod.status.conditions, "DisruptionTarget")
    if disruption is not None and is_condition_true(pod.status.conditions, "DisruptionTarget"):
        return disruption.reason or "Disrupted"
    return ""


def _loss_notice(observed: Observed, pod: PodView, loss: str) -> Notice:
    detail = f": {pod.status.message}" if pod.status.message else ""
    kept = "with the same volumes; what" if observed.spec.volume_claim_templates else "from the beginning: what"
    return Notice(
        "Warning",
        "PodLost",
        "Recreating",
        f'Pod "{pod.metadata.name}" was lost ({loss}{detail}); it is created again {kept} '
        "was in no persistent volume is gone",
        about=pod.metadata.uid,
        lost_pod=True,
    )


def _plan_stranger(observed: Observed, pod: PodView) -> Plan:
    """A Pod of the wanted name that is not ours: taken only if it offers itself, never under a template's policy."""
    meta = pod.metadata
    if ownership_of(meta, observed.uid) is Ownership.FOREIGN:
        return foreign(observed, "pod", meta)
    if observed.owner is not OwnerKind.NONE or TemplateRecord.read(observed.view.metadata) is not None:
        return stopped(
            Reason.RECONCILER_ERROR,
            f'cannot adopt unowned pod "{meta.name}": this sandbox was made from a template, and only a Pod made from '
            "the same template may run in it; delete the Pod",
        )
    if not may_adopt(meta.labels, observed.name_hash):
        return unowned("pod", meta)
    if meta.deleting:
        return stopped(Reason.DEPENDENCIES_NOT_READY, f'Pod "{meta.name}" is terminating; waiting for its name')
    metadata = metadata_difference(meta, wanted_metadata(observed))
    metadata["ownerReferences"] = [*references_json(meta), controller_reference(SANDBOXES, observed.view.metadata)]
    return Plan((change(PODS, meta, {"metadata": metadata}, locked=True),))


def new_pod(observed: Observed) -> JsonObject:
    """The Pod to create."""
    metadata = new_pod_metadata(wanted_metadata(observed), pod_spec_hash(observed))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": observed.name,
            "namespace": observed.namespace,
            "ownerReferences": [controller_reference(SANDBOXES, observed.view.metadata)],
            **metadata,
        },
        "spec": with_volumes(observed.spec, observed.name),
    }


def is_outdated(observed: Observed, pod: PodView) -> bool:
    """Whether podTemplate.spec was changed after the Pod was created from it; adopted Pods cannot tell."""
    noted = pod.metadata.annotations.get(ANNOTATION_POD_SPEC_HASH)
    return noted is not None and noted != pod_spec_hash(observed)


def pod_spec_hash(observed: Observed) -> str:
    """The hash of the Pod spec that is wanted now; Sandboxes of equal specs without volumes share the work."""
    owner = observed.name if observed.spec.volume_claim_templates else ""
    return _pod_spec_hash(bytes(observed.view.spec), owner)


@lru_cache(maxsize=1024)
def _pod_spec_hash(spec: bytes, owner: str) -> str:
    return content_hash(with_volumes(SandboxSpec.model_validate_json(spec), owner))
