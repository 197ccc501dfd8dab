"""Fail closed: whether policy allows a Pod for a Sandbox, and whether its owner is who the Sandbox says.

A Sandbox that a claim or a pool made from a template gets a Pod only when the template's NetworkPolicy is seen to stand
in its namespace, as the template says it should be. What decides is the Sandbox's own record of its template.
"""

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_WARM_POOLS
from agent_sandbox_api.names import ANNOTATION_TEMPLATE_REF, EXTENSIONS_GROUP
from agent_sandbox_api.views import raw_object
from agent_sandbox_controllers.parsed import template_model
from agent_sandbox_controllers.sandbox.observed import Gate, OwnerKind
from agent_sandbox_controllers.sandboxtemplate import is_managed, is_ours, policy_spec, same_policy
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason
from agent_sandbox_controllers.world import World


def owner_of(world: World, sandbox: SandboxView) -> OwnerKind:
    """Who controls a Sandbox, verified against the live claim or pool of that UID."""
    controller = sandbox.metadata.controller
    if controller is None or controller.group != EXTENSIONS_GROUP:
        return OwnerKind.NONE
    namespace = sandbox.metadata.namespace
    if controller.kind == SANDBOX_WARM_POOLS.kind:
        pool = world.pools.get(namespace, controller.name)
        return OwnerKind.POOL if pool and pool.metadata.uid == controller.uid else OwnerKind.UNVERIFIED
    if controller.kind == SANDBOX_CLAIMS.kind:
        claim = world.claims.get(namespace, controller.name)
        return OwnerKind.CLAIM if claim and claim.metadata.uid == controller.uid else OwnerKind.UNVERIFIED
    return OwnerKind.UNVERIFIED


def gate_of(world: World, sandbox: SandboxView, owner: OwnerKind) -> Gate:
    """Whether policy allows a Pod."""
    record = TemplateRecord.read(sandbox.metadata)
    if owner is OwnerKind.NONE and record is not None:
        return _closed(
            f'this sandbox was made from SandboxTemplate "{record.name}" by a claim or a pool that no longer owns it; '
            "no Pod is created that its NetworkPolicy would not govern. Delete the sandbox, or remove the annotation "
            f"{ANNOTATION_TEMPLATE_REF} to run it without that policy",
            Reason.OWNER_NOT_FOUND,
        )
    if owner not in (OwnerKind.POOL, OwnerKind.CLAIM):
        return Gate()
    if record is None:
        return _closed(
            "this sandbox was made by a claim or a pool, but carries no record of its template; delete it, so that it "
            "is made again"
        )
    if not record.labels().items() <= sandbox.metadata.labels.items():
        return _closed(
            f'the labels that put this sandbox under the NetworkPolicy of SandboxTemplate "{record.name}" were '
            f"changed; set {record.labels()}"
        )
    namespace = sandbox.metadata.namespace
    template_view = world.templates.get(record.namespace, record.name)
    template = template_model(template_view) if template_view is not None else None
    if (template is None and record.unmanaged) or (template is not None and not is_managed(template)):
        return Gate()
    name = record.policy_name_in(namespace)
    if world.is_removing_policy(namespace, record.id):
        return _closed(f'NetworkPolicy "{name}" is being removed; no Pod is created before it stands', retry_after=1.0)
    policy = world.policies.get(namespace, name)
    if policy is None or policy.metadata.deleting or not is_ours(policy.metadata.labels, record):
        origin = "" if template is not None else ", and its template is gone, so that nobody can make it"
        return _closed(
            f'NetworkPolicy "{name}" of SandboxTemplate "{record.name}" does not stand yet{origin}; no Pod is created '
            f"before it does. See the template's NetworkPolicyReady condition"
        )
    if template is not None and not same_policy(raw_object(policy.spec), policy_spec(template, world.options)):
        return _closed(
            f'NetworkPolicy "{name}" is not what SandboxTemplate "{record.name}" asks for; it is being repaired'
        )
    return Gate()


def _closed(text: str, reason: str = Reason.NETWORK_POLICY_NOT_READY, *, retry_after: float | None = None) -> Gate:
    return Gate(Trouble(reason, text, retry_after))
