"""What the controllers may do to the API, declared once: manifests are generated from this, and tests run under it.

One process, all four controllers. The Lease of the election belongs to the manager and is not here.
"""

from dataclasses import dataclass
from typing import Any, Final

from agent_sandbox_api.names import AGENTS_GROUP, EXTENSIONS_GROUP

_FOLLOW: Final = ("get", "list", "watch")


@dataclass(frozen=True)
class Rule:
    """One permission.

    Attributes:
        group: API group; empty for the core group.
        resources: plurals, with subresources as ``sandboxes/status``.
        verbs: what may be done.
        why: for the reader of the manifest.
    """

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str


RULES: Final = (
    Rule(
        AGENTS_GROUP,
        ("sandboxes",),
        (*_FOLLOW, "create", "patch", "delete"),
        "claims and pools make, adopt and remove Sandboxes; an expired one removes itself",
    ),
    Rule(AGENTS_GROUP, ("sandboxes/status",), ("patch",), "what was observed"),
    Rule(AGENTS_GROUP, ("sandboxes/finalizers",), ("update",), "ownerReferences of children that block its deletion"),
    Rule(EXTENSIONS_GROUP, ("sandboxclaims",), (*_FOLLOW, "delete"), "an expired claim may remove itself"),
    Rule(EXTENSIONS_GROUP, ("sandboxtemplates", "sandboxwarmpools"), _FOLLOW, "what to make, and how many"),
    Rule(
        EXTENSIONS_GROUP,
        ("sandboxclaims/status", "sandboxtemplates/status", "sandboxwarmpools/status"),
        ("patch",),
        "what was observed",
    ),
    Rule(
        EXTENSIONS_GROUP,
        ("sandboxclaims/finalizers", "sandboxwarmpools/finalizers"),
        ("update",),
        "ownerReferences of Sandboxes that block its deletion",
    ),
    Rule("", ("pods",), (*_FOLLOW, "create", "patch", "delete"), "the Pod of each Sandbox"),
    Rule("", ("services",), (*_FOLLOW, "create", "patch", "delete"), "the headless Service of each Sandbox"),
    Rule("", ("persistentvolumeclaims",), (*_FOLLOW, "create", "patch"), "volumes; the garbage collector removes them"),
    Rule(
        "networking.k8s.io",
        ("networkpolicies",),
        (*_FOLLOW, "create", "patch", "delete"),
        "the policy of each template, before its first Pod and until its last",
    ),
    Rule("events.k8s.io", ("events",), ("create", "patch"), "what people should hear of"),
)


def rules() -> list[dict[str, Any]]:
    """The rules in wire form, for a Role or a ClusterRole."""
    return [{"apiGroups": [rule.group], "resources": [*rule.resources], "verbs": [*rule.verbs]} for rule in RULES]
