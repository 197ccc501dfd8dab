"""Who owns an object: judged by UID, never by name.

An object's owner is its controller ownerReference. Another object of the owner's name but a different UID is a
stranger.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from agent_sandbox_api.names import LABEL_ADOPTABLE, LABEL_SANDBOX_NAME_HASH
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView
from agent_sandbox_controllers.vocabulary import TRUE


class Ownership(Enum):
    """How an object stands to somebody."""

    OWNED = "owned"
    UNOWNED = "unowned"
    FOREIGN = "foreign"


def ownership_of(child: MetaView, owner_uid: str) -> Ownership:
    """Whether the owner of that UID controls the child, nobody does, or somebody else."""
    controller = child.controller
    if controller is None:
        return Ownership.UNOWNED
    return Ownership.OWNED if controller.uid == owner_uid else Ownership.FOREIGN


def controller_reference(resource: Resource[Any], owner: MetaView) -> dict[str, Any]:
    """The ownerReference that makes ``owner`` the controller of what carries it."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def references_json(meta: MetaView) -> list[dict[str, Any]]:
    """The object's ownerReferences in wire form, for a patch that must keep them: a merge patch replaces the whole
    list.
    """
    return [
        {
            "apiVersion": reference.api_version,
            "kind": reference.kind,
            "name": reference.name,
            "uid": reference.uid,
            "controller": reference.controller,
            "blockOwnerDeletion": reference.block_owner_deletion,
        }
        for reference in meta.owner_references
    ]


def describe_controller(child: MetaView) -> str:
    """The controller of an object for a message: ``Kind/name (UID: …)``."""
    controller = child.controller
    if controller is None:
        return "nobody"
    return f"{controller.kind}/{controller.name} (UID: {controller.uid})"


def may_adopt(labels: Mapping[str, str], sandbox_name_hash: str) -> bool:
    """Whether an unowned object says itself that a Sandbox may take it: by the adoptable label, or by its tracking
    label.
    """
    return labels.get(LABEL_ADOPTABLE) == TRUE or labels.get(LABEL_SANDBOX_NAME_HASH) == sandbox_name_hash


def is_of_former(child: MetaView, resource: Resource[Any], owner: MetaView) -> bool:
    """Whether an object belongs to a former object of the owner's name, and goes as soon as it is collected."""
    controller = child.controller
    return (
        controller is not None
        and (controller.group, controller.kind, controller.name) == (resource.group, resource.kind, owner.name)
        and controller.uid != owner.uid
    )


def refusal_of_foreign(what: str, child: MetaView, sandbox: str) -> str:
    """Why a Sandbox does not touch an object that somebody else owns, and what to do."""
    return (
        f'{what} "{child.name}" is owned by {describe_controller(child)}, not by sandbox "{sandbox}"; '
        f"delete it or give the sandbox another name"
    )


def refusal_of_unowned(what: str, child: MetaView) -> str:
    """Why a Sandbox does not take an unowned object, and what to do."""
    return (
        f'cannot adopt unowned {what} "{child.name}": missing required pool authorization label ("{LABEL_ADOPTABLE}") '
        f'or sandbox tracking label ("{LABEL_SANDBOX_NAME_HASH}"); label it {LABEL_ADOPTABLE}=true to hand it over, or '
        "delete it"
    )
