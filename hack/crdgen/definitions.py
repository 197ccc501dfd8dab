"""Makes whole CustomResourceDefinitions: names, columns and subresources around the schemas of our models."""

from dataclasses import dataclass, field
from typing import Any

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, Sandbox
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxClaim,
    SandboxTemplate,
    SandboxWarmPool,
)
from agent_sandbox_api.meta import KubeModel
from agent_sandbox_api.resource import Resource
from crdgen.models import object_schema

CATEGORY = "agent-sandbox"


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``; with ``wide`` only of ``-o wide``."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def to_json(self) -> dict[str, Any]:
        """As an ``additionalPrinterColumns`` entry."""
        column: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "jsonPath": self.path,
        }
        return {**column, "priority": 1} if self.wide else column


@dataclass(frozen=True)
class Definition:
    """One kind: where it lives, its model, and how people see it."""

    resource: Resource[Any]
    model: type[KubeModel]
    short_name: str
    columns: list[Column] = field(default_factory=list)
    scale: bool = False

    @property
    def file_stem(self) -> str:
        """Name of the generated files, without their ending."""
        return f"{self.resource.group}_{self.resource.plural}"

    def to_json(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        resource = self.resource
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{resource.plural}.{resource.group}",
                "labels": {"app.kubernetes.io/name": "agent-sandbox", "app.kubernetes.io/component": "crd"},
            },
            "spec": {
                "group": resource.group,
                "names": {
                    "kind": resource.kind,
                    "listKind": f"{resource.kind}List",
                    "plural": resource.plural,
                    "singular": resource.kind.lower(),
                    "shortNames": [self.short_name],
                    "categories": [CATEGORY],
                },
                "scope": "Namespaced",
                "versions": [self._version()],
            },
        }

    def _version(self) -> dict[str, Any]:
        subresources: dict[str, Any] = {"status": {}}
        if self.scale:
            subresources["scale"] = {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            }
        return {
            "name": self.resource.version,
            "served": True,
            "storage": True,
            "additionalPrinterColumns": [column.to_json() for column in self.columns],
            "schema": {"openAPIV3Schema": object_schema(self.model)},
            "subresources": subresources,
        }


def _condition(name: str, part: str, description: str, condition: str = "Ready") -> Column:
    return Column(name, f".status.conditions[?(@.type=='{condition}')].{part}", description)


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since creation.", "date")
_READY = _condition("Ready", "status", "Whether the sandbox can be used now.")
_REASON = _condition("Reason", "reason", "Why it is ready or not.")

DEFINITIONS = (
    Definition(
        SANDBOXES,
        Sandbox,
        "sandbox",
        [
            _READY,
            _REASON,
            Column("Replicas", ".spec.replicas", "1 runs, 0 is suspended.", "integer", wide=True),
            Column("Addresses", ".status.podIPs", "Addresses of the Pod.", wide=True),
            Column("Node", ".status.nodeName", "Node of the Pod.", wide=True),
            _AGE,
        ],
        scale=True,
    ),
    Definition(
        SANDBOX_CLAIMS,
        SandboxClaim,
        "sandboxclaim",
        [
            _READY,
            Column("Sandbox", ".status.sandbox.name", "The claimed Sandbox."),
            _REASON,
            Column("Template", ".spec.sandboxTemplateRef.name", "The template asked for.", wide=True),
            _AGE,
        ],
    ),
    Definition(
        SANDBOX_TEMPLATES,
        SandboxTemplate,
        "sandboxtemplate",
        [
            Column("Network", ".spec.networkPolicyManagement", "Who keeps the NetworkPolicy."),
            _condition("PolicyReady", "status", "Whether the NetworkPolicy stands.", "NetworkPolicyReady"),
            _AGE,
        ],
    ),
    Definition(
        SANDBOX_WARM_POOLS,
        SandboxWarmPool,
        "swp",
        [
            Column("Ready", ".status.readyReplicas", "Members that are Ready.", "integer"),
            Column("Desired", ".spec.replicas", "Members wanted.", "integer"),
            Column("Template", ".spec.sandboxTemplateRef.name", "The members' template.", wide=True),
            _AGE,
        ],
        scale=True,
    ),
)
