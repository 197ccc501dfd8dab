"""What a Sandbox remembers of the template that it was made from.

It is written once, when the Sandbox is made, and decides which NetworkPolicy governs it from then on: a claim or a pool
that points to another template later never moves a running Sandbox under another policy.
"""

from dataclasses import dataclass
from functools import cached_property

from agent_sandbox_api.extensions.v1alpha1 import NetworkPolicyManagement, SandboxTemplate
from agent_sandbox_api.names import ANNOTATION_TEMPLATE_REF, LABEL_TEMPLATE_REF_HASH, name_hash
from agent_sandbox_api.views import MetaView
from agent_sandbox_controllers.object_names import policy_name, template_id
from agent_sandbox_controllers.vocabulary import (
    ANNOTATION_POLICY_MANAGEMENT,
    ANNOTATION_TEMPLATE_NAMESPACE,
    LABEL_TEMPLATE_ID,
)


@dataclass(frozen=True)
class TemplateRecord:
    """The template of a Sandbox.

    Attributes:
        namespace: the template's namespace.
        name: its name.
        unmanaged: whether it left its NetworkPolicy to somebody else when the Sandbox was made.
    """

    namespace: str
    name: str
    unmanaged: bool = False

    @classmethod
    def of(cls, template: SandboxTemplate) -> "TemplateRecord":
        """The record for a Sandbox made from this template now."""
        return cls(
            namespace=template.metadata.namespace or "",
            name=template.metadata.name or "",
            unmanaged=template.spec.network_policy_management == NetworkPolicyManagement.UNMANAGED,
        )

    @classmethod
    def read(cls, meta: MetaView) -> "TemplateRecord | None":
        """The record that a Sandbox or a NetworkPolicy carries; None if it was not made from a template."""
        name = meta.annotations.get(ANNOTATION_TEMPLATE_REF)
        if not name:
            return None
        return cls(
            namespace=meta.annotations.get(ANNOTATION_TEMPLATE_NAMESPACE) or meta.namespace,
            name=name,
            unmanaged=meta.annotations.get(ANNOTATION_POLICY_MANAGEMENT) == NetworkPolicyManagement.UNMANAGED,
        )

    @classmethod
    def is_on(cls, meta: MetaView) -> bool:
        """Whether an object carries a record at all."""
        return bool(meta.annotations.get(ANNOTATION_TEMPLATE_REF))

    @cached_property
    def id(self) -> str:
        """The template's identity as a label value."""
        return template_id(self.namespace, self.name)

    def policy_name_in(self, namespace: str) -> str:
        """Name of the NetworkPolicy that governs this template's Pods in a namespace."""
        return policy_name(self.namespace, self.name, namespace)

    def labels(self) -> dict[str, str]:
        """The labels that a Sandbox of this template, and through it its Pod, carries."""
        return {LABEL_TEMPLATE_REF_HASH: name_hash(self.name), LABEL_TEMPLATE_ID: self.id}

    def annotations(self, namespace: str) -> dict[str, str]:
        """The annotations that hold this record on an object in that namespace."""
        noted = {ANNOTATION_TEMPLATE_REF: self.name}
        if self.namespace != namespace:
            noted[ANNOTATION_TEMPLATE_NAMESPACE] = self.namespace
        if self.unmanaged:
            noted[ANNOTATION_POLICY_MANAGEMENT] = NetworkPolicyManagement.UNMANAGED.value
        return noted


def is_open_to(template: SandboxTemplate, namespace: str) -> bool:
    """Whether a namespace may have sandboxes of this template, and know what it says: its own, and those it allows."""
    allowed = template.spec.allowed_namespaces or ()
    return namespace == template.metadata.namespace or namespace in allowed or "*" in allowed
