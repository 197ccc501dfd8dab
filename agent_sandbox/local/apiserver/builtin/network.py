"""NetworkPolicies: which directions one governs when it does not say."""

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy


def _default(value: JsonObject) -> None:
    """A policy governs ingress, and egress if it has egress rules."""
    spec = value.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or []:
            for port in rule.get("ports") or []:
                port.setdefault("protocol", "TCP")


def _causes(value: JsonObject, _old: JsonObject | None) -> list[Cause]:
    directions = ("Ingress", "Egress")
    return [
        Cause.unsupported(f"spec.policyTypes[{index}]", found, directions)
        for index, found in enumerate(value["spec"]["policyTypes"])
        if found not in directions
    ]


NETWORK_POLICY_STRATEGY = Strategy(generation=True, default=_default, validate=_causes)
