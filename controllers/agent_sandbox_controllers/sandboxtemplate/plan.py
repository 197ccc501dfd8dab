"""Decides which NetworkPolicies of a template are written, kept and removed, and what the template's condition says.

A policy stands before the first Pod of its template and until the last one is gone: it outlives its template. It is
found again by the template's identity in its labels, and it carries its template's name, so that it can be tidied up
without it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_sandbox_api.core import NETWORK_POLICIES, NetworkPolicyView
from agent_sandbox_api.extensions.v1alpha1 import NetworkPolicyManagement, SandboxTemplate, SandboxTemplateView
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import CONDITION_POLICY_READY
from agent_sandbox_api.views import MetaView, raw_object
from agent_sandbox_controllers.actions import Action, Create, change, remove
from agent_sandbox_controllers.conditions import Conditions
from agent_sandbox_controllers.options import ControllerOptions
from agent_sandbox_controllers.sandboxtemplate.policy import is_ours, network_policy, same_policy
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.troubles import SLOW_LOOK, Trouble
from agent_sandbox_controllers.vocabulary import Reason


@dataclass(frozen=True)
class TemplateObserved:
    """A template and the policies around it.

    Attributes:
        view: the cached template.
        template: its model.
        wanted_namespaces: where its Pods live or are about to.
        named: by namespace, the policy that has the name ours should have, whoever made it.
        ours: all policies that we made for this template.
        now: the moment of this pass.
    """

    view: SandboxTemplateView
    template: SandboxTemplate
    wanted_namespaces: Collection[str]
    named: Mapping[str, NetworkPolicyView]
    ours: tuple[NetworkPolicyView, ...]
    now: datetime


@dataclass(frozen=True)
class TemplatePlan:
    """What to write, and what is in the way.

    Attributes:
        actions: policies to create, change or remove.
        surplus: policies that nobody may need any more; they go once a live look finds no Pod.
        trouble: what keeps a policy from standing.
    """

    actions: tuple[Action, ...] = ()
    surplus: tuple[NetworkPolicyView, ...] = ()
    trouble: Trouble | None = None


def is_managed(template: SandboxTemplate) -> bool:
    """Whether the template's NetworkPolicy is ours to look after; unset means yes."""
    return template.spec.network_policy_management != NetworkPolicyManagement.UNMANAGED


def plan_template(observed: TemplateObserved, options: ControllerOptions) -> TemplatePlan:
    """Bring the policies of an existing template to what it says."""
    if not is_managed(observed.template):
        gone = tuple(
            remove(NETWORK_POLICIES, policy.metadata) for policy in observed.ours if not policy.metadata.deleting
        )
        return TemplatePlan(gone)
    actions: list[Action] = []
    trouble: Trouble | None = None
    for namespace in sorted(observed.wanted_namespaces):
        wanted = network_policy(observed.template, namespace, options)
        existing = observed.named.get(namespace)
        if existing is None:
            actions.append(Create(NETWORK_POLICIES, wanted))
        elif not is_ours(existing.metadata.labels, TemplateRecord.of(observed.template)):
            trouble = trouble or _conflict(existing, observed.view.metadata)
        elif not existing.metadata.deleting and (update := _update(existing, wanted)):
            actions.append(change(NETWORK_POLICIES, existing.metadata, update))
    surplus = tuple(policy for policy in observed.ours if policy.metadata.namespace not in observed.wanted_namespaces)
    return TemplatePlan(tuple(actions), surplus, trouble)


def _update(existing: NetworkPolicyView, wanted: JsonObject) -> JsonObject:
    """What to merge into a policy that drifted or whose template changed."""
    update: JsonObject = {}
    metadata = {
        part: wanted["metadata"][part]
        for part in ("labels", "annotations")
        if not wanted["metadata"][part].items() <= getattr(existing.metadata, part).items()
    }
    if metadata:
        update["metadata"] = metadata
    present = raw_object(existing.spec)
    if not same_policy(present, wanted["spec"]):
        selector = {"podSelector": _replacing(present.get("podSelector") or {}, wanted["spec"]["podSelector"])}
        empty: JsonObject = {"ingress": None, "egress": None}
        update["spec"] = {**empty, **wanted["spec"], **selector}
    return update


def _replacing(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> JsonObject:
    """A merge patch that leaves nothing of the present selector but what is wanted."""
    gone: JsonObject = {key: None for key in present if key not in wanted}
    labels: JsonObject = dict.fromkeys(present.get("matchLabels") or {})
    return {**gone, "matchLabels": {**labels, **wanted["matchLabels"]}}


def _conflict(existing: NetworkPolicyView, template: MetaView) -> Trouble:
    """At home the watch reports when the name becomes free; abroad names carry a hash, so that somebody has to look."""
    meta = existing.metadata
    return Trouble(
        Reason.POLICY_CONFLICT,
        f'refusing to update NetworkPolicy "{meta.name}" in namespace "{meta.namespace}" as it is not controlled by '
        f'SandboxTemplate "{template.name}": no Pod of this template is created; remove that NetworkPolicy, or make '
        f"networkPolicyManagement Unmanaged",
        None if meta.namespace == template.namespace else SLOW_LOOK,
    )


def template_conditions(observed: TemplateObserved, trouble: Trouble | None) -> list[dict[str, Any]]:
    """The template's conditions after its policies were written."""
    meta = observed.view.metadata
    conditions = Conditions(observed.view.status.conditions, generation=meta.generation, now=observed.now)
    if trouble is not None:
        conditions.set(CONDITION_POLICY_READY, "False", trouble.reason, trouble.message)
    elif not is_managed(observed.template):
        conditions.set(
            CONDITION_POLICY_READY,
            "True",
            Reason.POLICY_UNMANAGED,
            "networkPolicyManagement is Unmanaged: no NetworkPolicy is made for the Pods of this template",
        )
    else:
        conditions.set(
            CONDITION_POLICY_READY,
            "True",
            Reason.POLICY_READY,
            f'NetworkPolicy "{TemplateRecord.of(observed.template).policy_name_in(meta.namespace)}" stands',
        )
    return conditions.to_json()
