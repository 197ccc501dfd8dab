"""The members of a pool, seen as the pool sees them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_WARM_POOLS, SandboxTemplate
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import (
    CONDITION_POD_SCHEDULED,
    CONDITION_READY,
    LABEL_CREATED_BY,
    LABEL_LAUNCH_TYPE,
    LABEL_TEMPLATE_HASH,
    LABEL_WARM_POOL,
    name_hash,
)
from agent_sandbox_api.views import MetaView, find_condition, is_condition_true
from agent_sandbox_controllers.blueprint import secured_pod_spec, template_hash, volumes_json
from agent_sandbox_controllers.ownership import controller_reference
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.vocabulary import CREATED_BY_CONTROLLER, LABEL_TEMPLATE_ID, LAUNCH_WARM, Reason

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

HELD_REASONS = frozenset(
    {Reason.NETWORK_POLICY_NOT_READY, Reason.QUOTA_EXCEEDED, Reason.REJECTED, Reason.OWNER_NOT_FOUND}
)
"""Ready reasons of members that are not replaced: the replacement would meet the same obstacle."""


@dataclass(frozen=True)
class Member:
    """One Sandbox of a pool.

    Attributes:
        view: the Sandbox.
        stale: its content is not what the template says now.
        retargeted: it was made from another template than the pool names now.
    """

    view: SandboxView
    stale: bool = False
    retargeted: bool = False

    @property
    def deleting(self) -> bool:
        """On its way out; it still counts against the pool's size."""
        return self.view.metadata.deleting

    @cached_property
    def ready(self) -> bool:
        """Whether a claim could use it at once."""
        return is_ready(self.view)

    @property
    def reason(self) -> str:
        """The reason of its Ready condition; empty before it has one."""
        ready = find_condition(self.view.status.conditions, CONDITION_READY)
        return ready.reason if ready else ""

    @property
    def message(self) -> str:
        """The message of its Ready condition."""
        ready = find_condition(self.view.status.conditions, CONDITION_READY)
        return ready.message if ready else ""

    @property
    def unready_since(self) -> datetime:
        """Since when it has not been Ready: when it last was, or when it was made."""
        ready = find_condition(self.view.status.conditions, CONDITION_READY)
        if ready is not None and ready.last_transition_time is not None:
            return ready.last_transition_time
        return self.made

    @property
    def made(self) -> datetime:
        """When it was created."""
        return self.view.metadata.creation_timestamp or _LONG_AGO

    @property
    def unschedulable(self) -> bool:
        """Whether no node takes its Pod."""
        scheduled = find_condition(self.view.status.conditions, CONDITION_POD_SCHEDULED)
        return scheduled is not None and scheduled.status == "False" and scheduled.reason == "Unschedulable"

    @property
    def obstacle(self) -> str:
        """Why replacing it would not help; empty if it might."""
        if self.unschedulable:
            return Reason.POOL_UNSCHEDULABLE
        return self.reason if self.reason in HELD_REASONS else ""


def is_ready(view: SandboxView) -> bool:
    """Whether a Sandbox can be used now: Ready, with an address, and staying."""
    return (
        not view.metadata.deleting
        and is_condition_true(view.status.conditions, CONDITION_READY)
        and bool(view.status.pod_ips)
    )


def is_of_template(view: SandboxView, record: TemplateRecord) -> bool:
    """Whether a Sandbox was made from this template, whatever the template said then."""
    return view.metadata.labels.get(LABEL_TEMPLATE_ID) == record.id and TemplateRecord.is_on(view.metadata)


def new_member(pool: MetaView, template: SandboxTemplate, name: str) -> JsonObject:
    """A Sandbox for a pool."""
    record = TemplateRecord.of(template)
    given = template.spec.pod_template.metadata
    spec: JsonObject = {"podTemplate": {"spec": secured_pod_spec(template.spec.pod_template.spec)}}
    if given is not None and (metadata := given.to_json()):
        spec["podTemplate"]["metadata"] = metadata
    if template.spec.volume_claim_templates:
        spec["volumeClaimTemplates"] = volumes_json(template.spec.volume_claim_templates)
    if template.spec.service is not None:
        spec["service"] = template.spec.service
    return {
        "apiVersion": SANDBOXES.api_version,
        "kind": SANDBOXES.kind,
        "metadata": {
            "name": name,
            "namespace": pool.namespace,
            "labels": {
                **record.labels(),
                LABEL_WARM_POOL: name_hash(pool.name),
                LABEL_LAUNCH_TYPE: LAUNCH_WARM,
                LABEL_TEMPLATE_HASH: template_hash(template),
                LABEL_CREATED_BY: CREATED_BY_CONTROLLER,
            },
            "annotations": record.annotations(pool.namespace),
            "ownerReferences": [controller_reference(SANDBOX_WARM_POOLS, pool)],
        },
        "spec": spec,
    }
