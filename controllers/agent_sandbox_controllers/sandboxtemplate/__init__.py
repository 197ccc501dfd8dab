"""SandboxTemplate → the NetworkPolicies of its Pods, before the first Pod and until the last."""

from agent_sandbox_controllers.sandboxtemplate.plan import (
    TemplateObserved,
    TemplatePlan,
    is_managed,
    plan_template,
    template_conditions,
)
from agent_sandbox_controllers.sandboxtemplate.policy import is_ours, network_policy, policy_spec, same_policy

__all__ = [
    "TemplateObserved",
    "TemplatePlan",
    "is_managed",
    "is_ours",
    "network_policy",
    "plan_template",
    "policy_spec",
    "same_policy",
    "template_conditions",
]
