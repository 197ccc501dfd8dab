"""The rights that a set of controllers needs for what it declares to watch, as RBAC rules.

In: controllers. Out: ``rules`` of a ClusterRole or, with namespaces, of a Role. Rights to write are the reconcilers'
own knowledge and are added by whoever writes the role.
"""

from collections.abc import Iterable
from typing import Any, Final

from agent_sandbox.runtime.controller import Controller

READ: Final = ("get", "list", "watch")

PolicyRule = dict[str, list[str]]


def watch_rules(controllers: Iterable[Controller]) -> list[PolicyRule]:
    """One rule per API group with the kinds that the controllers watch, sorted."""
    plurals: dict[str, set[str]] = {}
    for controller in controllers:
        for source in controller.sources:
            plurals.setdefault(source.resource.group, set()).add(source.resource.plural)
    return [
        {"apiGroups": [group], "resources": sorted(names), "verbs": [*READ]} for group, names in sorted(plurals.items())
    ]


def machinery_rules(*, leader_election: bool = True, metrics_authorizer: bool = False) -> list[PolicyRule]:
    """What the runtime itself needs: events, the Lease, and the two reviews of the metrics server."""
    rules: list[PolicyRule] = [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    if leader_election:
        rules.append(
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": ["create", "get", "list", "patch", "watch"],
            }
        )
    if metrics_authorizer:
        rules += [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        ]
    return rules


def role(name: str, rules: Iterable[PolicyRule], *, namespace: str | None = None) -> dict[str, Any]:
    """A ClusterRole, or a Role in a namespace, ready to be applied."""
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    kind = "ClusterRole" if namespace is None else "Role"
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": [*rules]}
