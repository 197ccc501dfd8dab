"""Decides how a claim gets its Sandbox: pure.

Observed state → one decision. The claim keeps what it has; otherwise it takes a Ready member of a pool by one
conditional write, waits a moment for one that is nearly Ready, or starts a Sandbox of its own; or the plan says what
stands in the way.
"""

from dataclasses import dataclass
from typing import TypeAlias

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxTemplate
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import (
    ANNOTATION_TRACE_CONTEXT,
    LABEL_CLAIM_UID,
    LABEL_CREATED_BY,
    LABEL_LAUNCH_TYPE,
    LABEL_TEMPLATE_HASH,
    LABEL_WARM_POOL,
)
from agent_sandbox_controllers.actions import Change, Create, change
from agent_sandbox_controllers.blueprint import secured_pod_spec, volumes_json
from agent_sandbox_controllers.ownership import controller_reference, is_of_former
from agent_sandbox_controllers.parsed import sandbox_spec
from agent_sandbox_controllers.sandboxclaim.environment import with_environment
from agent_sandbox_controllers.sandboxclaim.metadata import merged_metadata, metadata_trouble
from agent_sandbox_controllers.sandboxclaim.observed import Candidate, ClaimObserved
from agent_sandbox_controllers.sandboxclaim.ranking import best_first
from agent_sandbox_controllers.sandboxclaim.volumes import merged_volumes
from agent_sandbox_controllers.template_record import TemplateRecord, is_open_to
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import LAUNCH_COLD, LAUNCH_WARM, Reason


@dataclass(frozen=True)
class Keep:
    """The claim has its Sandbox."""

    sandbox: SandboxView


@dataclass(frozen=True)
class Adopt:
    """Take one of these members, the first that the server grants."""

    candidates: tuple[Candidate, ...]
    template: SandboxTemplate


@dataclass(frozen=True)
class Wait:
    """A member is nearly Ready: look again when it is, or after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class StartCold:
    """Make a Sandbox."""

    create: Create


@dataclass(frozen=True)
class Refuse:
    """Something must change first."""

    trouble: Trouble


@dataclass(frozen=True)
class Vanished:
    """The Sandbox that the claim had is gone; that is told, and never repaired behind the user's back."""

    name: str


Decision: TypeAlias = Keep | Adopt | Wait | StartCold | Refuse | Vanished


def decide(observed: ClaimObserved, allowed_label_domains: tuple[str, ...]) -> Decision:
    """What a claim that has not expired needs."""
    if observed.bound is not None:
        return Keep(observed.bound)
    if observed.recorded_name is not None:
        return Vanished(observed.recorded_name)
    trouble = metadata_trouble(observed.claim, allowed_label_domains) or _template_trouble(observed)
    if trouble is not None:
        return Refuse(trouble)
    template = observed.template
    assert template is not None, "a missing template is a trouble"
    if observed.takes_warm:
        warm = _decide_warm(observed, template)
        if warm is not None:
            return warm
    return _decide_cold(observed, template)


def _template_trouble(observed: ClaimObserved) -> Trouble | None:
    name = observed.claim.spec.sandbox_template_ref.name
    foreign = observed.template_namespace != observed.namespace
    where = f' in namespace "{observed.template_namespace}"' if foreign else ""
    template = observed.template
    if template is None:
        return Trouble(
            Reason.TEMPLATE_NOT_FOUND,
            f'SandboxTemplate "{name}" not found{where}; create it or correct spec.sandboxTemplateRef',
        )
    if not is_open_to(template, observed.namespace):
        return Trouble(
            Reason.TEMPLATE_NOT_ALLOWED,
            f'SandboxTemplate "{name}"{where} does not allow claims of namespace "{observed.namespace}"; its owner can '
            "add the namespace to spec.allowedNamespaces",
        )
    return _pool_trouble(observed)


def _pool_trouble(observed: ClaimObserved) -> Trouble | None:
    wanted = observed.named_pool
    if wanted is None:
        return None
    if observed.pool is None:
        return Trouble(
            Reason.WARM_POOL_NOT_FOUND,
            f'SandboxWarmPool "{wanted}" not found; create it, or set spec.warmpool to "default" or "none"',
        )
    template = observed.claim.spec.sandbox_template_ref.name
    if observed.template_namespace != observed.namespace or observed.pool.spec.sandbox_template_ref.name != template:
        return Trouble(
            Reason.WARM_POOL_MISMATCH,
            f'SandboxWarmPool "{wanted}" keeps sandboxes of template "{observed.pool.spec.sandbox_template_ref.name}", '
            f'not of "{template}"; correct spec.warmpool or spec.sandboxTemplateRef',
        )
    return None


def _decide_warm(observed: ClaimObserved, template: SandboxTemplate) -> Decision | None:
    conflict = merged_metadata(template.spec.pod_template.metadata, observed.claim)
    if isinstance(conflict, Trouble):
        return Refuse(conflict)
    if observed.ready:
        return Adopt(best_first(observed.ready), template)
    if observed.patience > 0 and observed.ahead < observed.pending:
        return Wait(observed.patience)
    return None


def _decide_cold(observed: ClaimObserved, template: SandboxTemplate) -> Decision:
    namesake = observed.namesake
    if namesake is not None:
        claim = observed.view.metadata.name
        if is_of_former(namesake.metadata, SANDBOX_CLAIMS, observed.view.metadata):
            return Refuse(
                Trouble(
                    Reason.SANDBOX_NOT_READY,
                    f'sandbox "{namesake.metadata.name}" of a former claim of this name is still there; waiting until '
                    "it is removed",
                )
            )
        return Refuse(
            Trouble(
                Reason.SANDBOX_NAME_CONFLICT,
                f'sandbox "{namesake.metadata.name}" is not controlled by claim "{claim}". Please use a different '
                "claim name or delete the sandbox manually",
            )
        )
    body = cold_sandbox(observed, template)
    return Refuse(body) if isinstance(body, Trouble) else StartCold(Create(SANDBOXES, body))


def cold_sandbox(observed: ClaimObserved, template: SandboxTemplate) -> JsonObject | Trouble:
    """A Sandbox of the claim's own, made from its template, or why the two do not go together."""
    pod_metadata = merged_metadata(template.spec.pod_template.metadata, observed.claim)
    if isinstance(pod_metadata, Trouble):
        return pod_metadata
    pod_spec = with_environment(secured_pod_spec(template.spec.pod_template.spec), observed.claim, template)
    if isinstance(pod_spec, Trouble):
        return pod_spec
    volumes = merged_volumes(observed.claim, template)
    if isinstance(volumes, Trouble):
        return volumes
    spec: JsonObject = {"podTemplate": {"metadata": pod_metadata, "spec": pod_spec}}
    if volumes:
        spec["volumeClaimTemplates"] = volumes_json(volumes)
    if template.spec.service is not None:
        spec["service"] = template.spec.service
    record = TemplateRecord.of(template)
    meta = observed.view.metadata
    return {
        "apiVersion": SANDBOXES.api_version,
        "kind": SANDBOXES.kind,
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": {**record.labels(), LABEL_LAUNCH_TYPE: LAUNCH_COLD, **_claim_labels(observed)},
            "annotations": {**record.annotations(meta.namespace), **_trace(observed)},
            "ownerReferences": [controller_reference(SANDBOX_CLAIMS, meta)],
        },
        "spec": spec,
    }


def _claim_labels(observed: ClaimObserved) -> dict[str, str]:
    meta = observed.view.metadata
    labels = {LABEL_CLAIM_UID: meta.uid}
    if creator := meta.labels.get(LABEL_CREATED_BY):
        labels[LABEL_CREATED_BY] = creator
    return labels


def _trace(observed: ClaimObserved) -> dict[str, str]:
    trace = observed.trace_context or observed.view.metadata.annotations.get(ANNOTATION_TRACE_CONTEXT)
    return {ANNOTATION_TRACE_CONTEXT: trace} if trace else {}


def adoption(observed: ClaimObserved, member: SandboxView, template: SandboxTemplate) -> Change:
    """The one write that decides who owns a member: it becomes the claim's, if it is still what was looked at.

    It touches metadata only, unless the claim or a newer template asks for other Pod metadata: a Sandbox whose spec
    stays needs no new status.
    """
    labels: JsonObject = {
        LABEL_WARM_POOL: None,
        LABEL_TEMPLATE_HASH: None,
        LABEL_CREATED_BY: None,
        LABEL_LAUNCH_TYPE: LAUNCH_WARM,
        **_claim_labels(observed),
    }
    metadata: JsonObject = {
        "labels": {key: value for key, value in labels.items() if value is not None or key in member.metadata.labels},
        "ownerReferences": [controller_reference(SANDBOX_CLAIMS, observed.view.metadata)],
    }
    if trace := _trace(observed):
        metadata["annotations"] = trace
    body: JsonObject = {"metadata": metadata}
    if update := pod_metadata_update(observed, member, template):
        body["spec"] = update
    return change(SANDBOXES, member.metadata, body, locked=True)


def pod_metadata_update(observed: ClaimObserved, sandbox: SandboxView, template: SandboxTemplate) -> JsonObject:
    """What to merge into a Sandbox's spec so that its Pod gets the labels and annotations of template and claim."""
    wanted = merged_metadata(template.spec.pod_template.metadata, observed.claim)
    if isinstance(wanted, Trouble):
        return {}
    template_part = sandbox_spec(sandbox).pod_template.metadata
    update: JsonObject = {}
    for part in ("labels", "annotations"):
        present: dict[str, str] = getattr(template_part, part, None) or {}
        target: dict[str, str] = wanted.get(part, {})
        if present != target:
            gone: JsonObject = {key: None for key in present if key not in target}
            update[part] = {**gone, **target}
    return {"podTemplate": {"metadata": update}} if update else {}
