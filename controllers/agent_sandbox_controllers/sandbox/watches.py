"""Which changes in the world concern which Sandboxes."""

from collections.abc import Iterable
from typing import Any, Final

from agent_sandbox.runtime import Change, Controller, Request, not_own_status
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import (
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    NetworkPolicyView,
)
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxTemplateView,
)
from agent_sandbox_api.names import CONDITION_READY
from agent_sandbox_api.views import is_condition_true
from agent_sandbox_controllers.indexes import BY_CHILD, BY_OWNER, BY_TEMPLATE, owner_value
from agent_sandbox_controllers.object_names import template_id
from agent_sandbox_controllers.sandbox.reconciler import SandboxReconciler
from agent_sandbox_controllers.vocabulary import LABEL_TEMPLATE_ID
from agent_sandbox_controllers.world import World

MEMBER_PRIORITY: Final = -10
"""Of a pool's members: by the queue's ageing they come three seconds after others at most."""


def sandbox_controller(world: World) -> Controller:
    """The controller with all its watches."""
    watches = Watches(world)
    return (
        Controller(
            "sandbox",
            SandboxReconciler(world),
            workers=world.options.sandbox_workers,
            yields_to=["sandboxclaim"],
            priority=watches.urgency,
        )
        .watches_for(SANDBOXES, not_own_status)
        .watches(PODS, watches.of_named_child)
        .watches(SERVICES, watches.of_named_child)
        .watches(PERSISTENT_VOLUME_CLAIMS, watches.of_volume)
        .watches(NETWORK_POLICIES, watches.of_policy)
        .watches(SANDBOX_TEMPLATES, watches.of_template)
        .watches(SANDBOX_CLAIMS, watches.of_new_owner)
        .watches(SANDBOX_WARM_POOLS, watches.of_new_owner)
    )


class Watches:
    """Mappings from changes of other kinds to the Sandboxes that they concern."""

    def __init__(self, world: World) -> None:
        self._world = world

    def urgency(self, request: Request) -> int:
        """A pool's members come after the Sandboxes that somebody waits for."""
        sandbox = self._world.sandboxes.get(request.namespace, request.name)
        owner = sandbox.metadata.controller if sandbox is not None else None
        return MEMBER_PRIORITY if owner is not None and owner.kind == SANDBOX_WARM_POOLS.kind else 0

    def of_named_child(self, change: Change[Any]) -> Iterable[Request]:
        """A Pod or a Service: its owner, and whoever waits for its name."""
        meta = change.object.metadata
        keys: dict[Request, None] = {}
        if self._world.sandboxes.get(meta.namespace, meta.name) is not None:
            keys[Request(meta.namespace, meta.name)] = None
        for sandbox in self._world.sandboxes.by_index(BY_CHILD, f"pod/{meta.namespace}/{meta.name}"):
            keys[_request(sandbox)] = None
        return _with_owners(keys, change)

    def of_volume(self, change: Change[Any]) -> Iterable[Request]:
        """A PersistentVolumeClaim: its owner, and whoever wants one of that name."""
        meta = change.object.metadata
        keys: dict[Request, None] = {}
        for sandbox in self._world.sandboxes.by_index(BY_CHILD, f"pvc/{meta.namespace}/{meta.name}"):
            keys[_request(sandbox)] = None
        return _with_owners(keys, change)

    def of_policy(self, change: Change[NetworkPolicyView]) -> Iterable[Request]:
        """A NetworkPolicy: Sandboxes that may wait for it."""
        meta = change.object.metadata
        return self._waiting_for(meta.labels.get(LABEL_TEMPLATE_ID, ""), meta.namespace)

    def of_template(self, change: Change[SandboxTemplateView]) -> Iterable[Request]:
        """A template: Sandboxes that may wait for its policy, or no longer need to."""
        meta = change.object.metadata
        return self._waiting_for(template_id(meta.namespace, meta.name))

    def of_new_owner(self, change: Change[Any]) -> Iterable[Request]:
        """A claim or a pool that is seen for the first time: Sandboxes that name it as their owner already."""
        if change.old is not None or change.initial:
            return ()
        return [
            _request(each) for each in self._world.sandboxes.by_index(BY_OWNER, owner_value(change.object.metadata))
        ]

    def _waiting_for(self, template: str, namespace: str | None = None) -> list[Request]:
        return [
            _request(sandbox)
            for sandbox in (self._world.sandboxes.by_index(BY_TEMPLATE, template) if template else ())
            if namespace in (None, sandbox.metadata.namespace)
            and not is_condition_true(sandbox.status.conditions, CONDITION_READY)
        ]


def _with_owners(keys: dict[Request, None], change: Change[Any]) -> dict[Request, None]:
    """The keys with those of the owners; without them if it was the owner's own pass that wrote, and looks again."""
    for owner in _owners(change):
        if change.own:
            keys.pop(owner, None)
        else:
            keys[owner] = None
    return keys


def _owners(change: Change[Any]) -> Iterable[Request]:
    for view in (change.old, change.new):
        if view is None:
            continue
        controller = view.metadata.controller
        if controller is not None and (controller.group, controller.kind) == (SANDBOXES.group, SANDBOXES.kind):
            yield Request(view.metadata.namespace, controller.name)


def _request(sandbox: SandboxView) -> Request:
    return Request(sandbox.metadata.namespace, sandbox.metadata.name)
