"""By what the stores can be asked, beyond names: declared once, registered before the caches fill."""

from collections.abc import Iterable
from typing import Final

import msgspec

from agent_sandbox.runtime import Cache
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import NETWORK_POLICIES, PODS
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    SANDBOX_WARM_POOLS,
    SandboxClaimView,
    SandboxWarmPoolView,
)
from agent_sandbox_api.names import ANNOTATION_POD_NAME, EXTENSIONS_GROUP, LABEL_CLAIM_UID, LABEL_WARM_POOL
from agent_sandbox_api.views import MetaView, View
from agent_sandbox_controllers.blueprint import glance, sandbox_hash
from agent_sandbox_controllers.object_names import volume_claim_name
from agent_sandbox_controllers.sandboxwarmpool.members import is_ready
from agent_sandbox_controllers.vocabulary import LABEL_TEMPLATE_ID

BY_READY_CONTENT: Final = "ready-content"
"""Ready Sandboxes controlled by a pool: ``<pool>/<blueprint hash>``, the pool as ``owner_value`` says it."""
BY_OWNER: Final = "controller-uid"
"""Pods, Sandboxes: their controller, as ``owner_value`` says it."""
BY_TEMPLATE: Final = "template-id"
"""Pods, Sandboxes, NetworkPolicies: value of the template's identity label."""
BY_CHILD: Final = "child-name"
"""Sandboxes: ``pvc/<namespace>/<name>`` of volumes they want, ``pod/<namespace>/<name>`` of a Pod they are handed."""
BY_POOL_STATE: Final = "pool-state"
"""Sandboxes controlled by a pool: ``ready/<pool>`` or ``pending/<pool>``; none while they are being deleted."""
ORPHANS: Final = "orphans"
"""Sandboxes that nobody controls and that carry a pool's label: ``<namespace>/<label value>``."""
BY_TEMPLATE_REF: Final = "template-ref"
"""Claims, pools: ``<namespace>/<name>`` of the template they name."""
BY_POOL_REF: Final = "pool-ref"
"""Claims: ``<namespace>/<name>`` of the pool they name."""


def register_indexes(cache: Cache) -> None:
    """Add all indexes to the informers of a cache."""
    sandboxes = cache.informer(SANDBOXES)
    sandboxes.add_index(BY_OWNER, by_owner)
    sandboxes.add_index(BY_TEMPLATE, by_template)
    sandboxes.add_index(BY_CHILD, by_child)
    sandboxes.add_index(BY_POOL_STATE, by_pool_state)
    sandboxes.add_index(BY_READY_CONTENT, by_ready_content)
    sandboxes.add_index(ORPHANS, by_orphaned_label)
    pods = cache.informer(PODS)
    pods.add_index(BY_OWNER, by_owner)
    pods.add_index(BY_TEMPLATE, by_template)
    cache.informer(NETWORK_POLICIES).add_index(BY_TEMPLATE, by_template)
    cache.informer(SANDBOX_WARM_POOLS).add_index(BY_TEMPLATE_REF, by_template_ref)
    claims = cache.informer(SANDBOX_CLAIMS)
    claims.add_index(BY_TEMPLATE_REF, by_template_ref)
    claims.add_index(BY_POOL_REF, by_pool_ref)


def owner_value(owner: MetaView) -> str:
    """An owner in these indexes: a UID of its namespace.

    An owner of another namespace is none, for Kubernetes and for us. A UID is no secret: whoever may create an object
    anywhere can name one.
    """
    return f"{owner.namespace}/{owner.uid}"


def by_owner(view: View) -> Iterable[str]:
    """The controller."""
    controller = view.metadata.controller
    return (f"{view.metadata.namespace}/{controller.uid}",) if controller is not None else ()


def by_template(view: View) -> Iterable[str]:
    """The template's identity."""
    value = view.metadata.labels.get(LABEL_TEMPLATE_ID)
    return (value,) if value else ()


def by_child(view: SandboxView) -> Iterable[str]:
    """Objects that the Sandbox needs under names of their own."""
    meta = view.metadata
    keys = [
        f"pvc/{meta.namespace}/{volume_claim_name(volume['metadata']['name'], meta.name)}"
        for volume in glance(view.spec).volume_claim_templates or ()
        if (volume.get("metadata") or {}).get("name")
    ]
    if pod := meta.annotations.get(ANNOTATION_POD_NAME):
        keys.append(f"pod/{meta.namespace}/{pod}")
    return keys


def by_pool_state(view: SandboxView) -> Iterable[str]:
    """The pool, and whether the member could be taken now."""
    pool = _pool(view)
    if pool is None:
        return ()
    return (f"ready/{pool}" if is_ready(view) else f"pending/{pool}",)


def by_ready_content(view: SandboxView) -> Iterable[str]:
    """The pool, and what a member that could be taken now consists of."""
    pool = _pool(view) if is_ready(view) else None
    return (f"{pool}/{sandbox_hash(view.spec)}",) if pool is not None else ()


def _pool(view: SandboxView) -> str | None:
    """The pool that a living Sandbox belongs to."""
    controller = view.metadata.controller
    if controller is None or view.metadata.deleting:
        return None
    is_pool = (controller.group, controller.kind) == (EXTENSIONS_GROUP, SANDBOX_WARM_POOLS.kind)
    return f"{view.metadata.namespace}/{controller.uid}" if is_pool else None


def by_orphaned_label(view: SandboxView) -> Iterable[str]:
    """The pool's label on a Sandbox without controller."""
    label = view.metadata.labels.get(LABEL_WARM_POOL)
    if not label or view.metadata.controller is not None or view.metadata.deleting:
        return ()
    if LABEL_CLAIM_UID in view.metadata.labels:
        # Somebody has worked in it: it never becomes another's, whoever let go of it.
        return ()
    return (f"{view.metadata.namespace}/{label}",)


class _Reference(msgspec.Struct):
    name: str = ""
    namespace: str | None = None


class _References(msgspec.Struct, rename="camel"):
    sandbox_template_ref: _Reference = msgspec.field(default_factory=_Reference)
    warmpool: str | None = None


_references = msgspec.json.Decoder(_References)


def by_template_ref(view: SandboxClaimView | SandboxWarmPoolView) -> Iterable[str]:
    """The template that a claim or a pool names."""
    reference = _references.decode(view.spec).sandbox_template_ref
    return (f"{reference.namespace or view.metadata.namespace}/{reference.name}",)


def by_pool_ref(view: SandboxClaimView) -> Iterable[str]:
    """The pool that a claim insists on."""
    wanted = _references.decode(view.spec).warmpool
    return (f"{view.metadata.namespace}/{wanted}",) if wanted and wanted not in ("none", "default") else ()
