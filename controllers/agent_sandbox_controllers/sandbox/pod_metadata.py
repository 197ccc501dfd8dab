"""Labels and annotations of a Sandbox's Pod: what the user's template asks for, and what we say ourselves.

Users cannot speak in our name: keys of our domains in a template are ignored. What was copied from a template is noted
on the Pod, so that a key removed from the template is removed from the Pod, while what others put there stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import (
    ANNOTATION_PROPAGATED_ANNOTATIONS,
    ANNOTATION_PROPAGATED_LABELS,
    ANNOTATION_SAFE_TO_EVICT,
    ANNOTATION_TRACE_CONTEXT,
    LABEL_CREATED_BY,
    LABEL_SANDBOX_NAME_HASH,
    LABEL_TEMPLATE_REF_HASH,
    LABEL_WARM_POOL,
    RESERVED_PREFIXES,
)
from agent_sandbox_api.views import MetaView
from agent_sandbox_controllers.sandbox.observed import Observed, OwnerKind
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.vocabulary import ANNOTATION_POD_SPEC_HASH, LABEL_SANDBOX_UID, LABEL_TEMPLATE_ID, TRUE

KNOWN_CREATORS = frozenset({"go-client", "python-client", "controller"})
_OF_POLICY = frozenset({LABEL_TEMPLATE_REF_HASH, LABEL_TEMPLATE_ID})
"""Labels by which a template's NetworkPolicy selects its Pods."""


@dataclass(frozen=True)
class WantedMetadata:
    """What the Pod should carry.

    Attributes:
        labels: labels of ours and of the template.
        annotations: annotations of ours and of the template.
        labels_where_missing: labels of ours that are put on a Pod without them, and never change those that it has.
        absent_labels: labels of ours that must not be there.
        absent_annotations: annotations of ours that must not be there.
        user_labels: keys that came from the template.
        user_annotations: keys that came from the template.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    labels_where_missing: dict[str, str]
    absent_labels: frozenset[str]
    absent_annotations: frozenset[str]
    user_labels: frozenset[str]
    user_annotations: frozenset[str]


def is_reserved(key: str) -> bool:
    """Whether only controllers may set this label or annotation."""
    return key.startswith(RESERVED_PREFIXES) or key == ANNOTATION_TRACE_CONTEXT


def normalised_creator(value: str) -> str:
    """Who made a sandbox, out of a short list: the value is the user's and becomes a label of metrics."""
    return value if value in KNOWN_CREATORS else "unknown"


def wanted_metadata(observed: Observed) -> WantedMetadata:
    """The Pod's labels and annotations as they should be now."""
    template = observed.spec.pod_template.metadata
    user_labels = of_user(template.labels if template else None)
    user_annotations = of_user(template.annotations if template else None)
    labels, absent_labels = _our_labels(observed)
    policy_labels, labels_where_missing, no_policy_labels = _policy_labels(observed)
    annotations, absent_annotations = _our_annotations(observed, user_annotations)
    return WantedMetadata(
        labels={**user_labels, **labels, **policy_labels},
        annotations={**user_annotations, **annotations},
        labels_where_missing=labels_where_missing,
        absent_labels=frozenset(absent_labels) | no_policy_labels,
        absent_annotations=frozenset(absent_annotations),
        user_labels=frozenset(user_labels),
        user_annotations=frozenset(user_annotations),
    )


def of_user(given: Mapping[str, str] | None) -> dict[str, str]:
    """The labels or annotations of a template that its author may set."""
    return {key: value for key, value in (given or {}).items() if not is_reserved(key)}


def _our_labels(observed: Observed) -> tuple[dict[str, str], set[str]]:
    """Labels of ours with their values, and those that must be absent."""
    own = observed.view.metadata.labels
    labels = {LABEL_SANDBOX_NAME_HASH: observed.name_hash, LABEL_SANDBOX_UID: observed.uid}
    absent = set()
    if creator := own.get(LABEL_CREATED_BY):
        labels[LABEL_CREATED_BY] = normalised_creator(creator)
    else:
        absent.add(LABEL_CREATED_BY)
    if observed.owner is OwnerKind.POOL and LABEL_WARM_POOL in own:
        labels[LABEL_WARM_POOL] = own[LABEL_WARM_POOL]
    elif observed.owner is not OwnerKind.UNVERIFIED:
        absent.add(LABEL_WARM_POOL)
    return labels, absent


def _policy_labels(observed: Observed) -> tuple[dict[str, str], dict[str, str], frozenset[str]]:
    """The template's labels: those that the Pod has, those that it gets back if it lost them, those that it has not.

    Taking them off a Pod, or changing them, would take it out of its NetworkPolicy. So what was written about its
    template on the Sandbox must be whole before it changes anything: while the owner is not verified, where claim or
    pool let go of the Sandbox, and where somebody changed its record or its labels, a Pod keeps those that it has.
    """
    if observed.owner is OwnerKind.UNVERIFIED:
        return {}, {}, frozenset()
    from_template = observed.owner in (OwnerKind.POOL, OwnerKind.CLAIM)
    record = TemplateRecord.read(observed.view.metadata)
    if record is None:
        return {}, {}, frozenset() if from_template else _OF_POLICY
    if from_template and record.labels().items() <= observed.view.metadata.labels.items():
        return record.labels(), {}, frozenset()
    return {}, record.labels(), frozenset()


def _our_annotations(observed: Observed, user: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """The mark that a pool's Pod may be evicted; the user's own word on it comes first."""
    if ANNOTATION_SAFE_TO_EVICT in user or observed.owner is OwnerKind.UNVERIFIED:
        return {}, set()
    if observed.owner is OwnerKind.POOL and observed.evictable:
        return {ANNOTATION_SAFE_TO_EVICT: TRUE}, set()
    return {}, {ANNOTATION_SAFE_TO_EVICT} if observed.owner in (OwnerKind.POOL, OwnerKind.CLAIM) else set()


def new_pod_metadata(wanted: WantedMetadata, spec_hash: str) -> JsonObject:
    """Labels and annotations of a Pod that is about to be created."""
    annotations = {**wanted.annotations, ANNOTATION_POD_SPEC_HASH: spec_hash}
    if wanted.user_labels:
        annotations[ANNOTATION_PROPAGATED_LABELS] = _listed(wanted.user_labels)
    if wanted.user_annotations:
        annotations[ANNOTATION_PROPAGATED_ANNOTATIONS] = _listed(wanted.user_annotations)
    return {"labels": dict(wanted.labels), "annotations": annotations}


def metadata_difference(pod: MetaView, wanted: WantedMetadata) -> JsonObject:
    """What to merge into the metadata of an existing Pod; empty if it is as it should be."""
    wanted_labels = {**wanted.labels, **_missing(pod.labels, wanted.labels_where_missing)}
    copied = _noted(pod, ANNOTATION_PROPAGATED_LABELS) - _OF_POLICY
    labels = _difference(pod.labels, wanted_labels, wanted.absent_labels, copied)
    annotations = _difference(
        pod.annotations,
        wanted.annotations,
        # An evict mark that the pool did not set is the user's, or somebody else's.
        frozenset(key for key in wanted.absent_annotations if pod.annotations.get(key) == TRUE),
        _noted(pod, ANNOTATION_PROPAGATED_ANNOTATIONS),
    )
    for key, names in (
        (ANNOTATION_PROPAGATED_LABELS, wanted.user_labels),
        (ANNOTATION_PROPAGATED_ANNOTATIONS, wanted.user_annotations),
    ):
        if pod.annotations.get(key, "") != _listed(names):
            annotations[key] = _listed(names)
    metadata: JsonObject = {}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    return metadata


def _difference(
    present: Mapping[str, str], wanted: Mapping[str, str], absent: frozenset[str], copied_before: frozenset[str]
) -> dict[str, str | None]:
    changed: dict[str, str | None] = {key: value for key, value in wanted.items() if present.get(key) != value}
    stale = (absent | copied_before) - set(wanted)
    return changed | dict.fromkeys(sorted(key for key in stale if key in present))


def _missing(present: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in defaults.items() if key not in present}


def _noted(pod: MetaView, annotation: str) -> frozenset[str]:
    return frozenset(filter(None, pod.annotations.get(annotation, "").split(",")))


def _listed(keys: frozenset[str]) -> str:
    return ",".join(sorted(keys))
