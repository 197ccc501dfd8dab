"""What sandboxes can be made from in a namespace: its templates and its warm pools."""

from dataclasses import dataclass
from typing import Any

from agent_sandbox.kube import KubeClient, KubeError, NotFoundError
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import SandboxWarmPoolNotFoundError
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxTemplateView,
    SandboxWarmPoolView,
)
from agent_sandbox_api.views import ConditionView, raw_object


@dataclass(frozen=True)
class TemplateInfo:
    """A SandboxTemplate.

    Attributes:
        name: what ``create`` takes.
        trouble: what keeps sandboxes from being made from it, for people; empty if nothing does.
        observed: whether a controller has looked at it as it is now.
    """

    name: str
    trouble: str = ""
    observed: bool = True


@dataclass(frozen=True)
class PoolInfo:
    """A SandboxWarmPool.

    Attributes:
        name: what ``create`` takes as ``warmpool``.
        template_name: the template of its members.
        wanted: how many sandboxes it is to keep ready.
        ready: how many are.
        trouble: what it complains of, for people; empty if nothing.
    """

    name: str
    template_name: str
    wanted: int
    ready: int
    trouble: str = ""


async def list_templates(kube: KubeClient, namespace: str) -> list[TemplateInfo]:
    """The templates of a namespace, by name.

    Raises:
        SandboxError: the cluster cannot be reached or refuses.
    """
    try:
        found = await kube.list(SANDBOX_TEMPLATES, namespace)
    except KubeError as error:
        raise explain(error, "listing templates") from error
    return sorted((_template_info(view) for view in found.items), key=lambda one: one.name)


async def list_pools(kube: KubeClient, namespace: str) -> list[PoolInfo]:
    """The warm pools of a namespace, by name.

    Raises:
        SandboxError: the cluster cannot be reached or refuses.
    """
    try:
        found = await kube.list(SANDBOX_WARM_POOLS, namespace)
    except KubeError as error:
        raise explain(error, "listing pools") from error
    return sorted((_pool_info(view) for view in found.items), key=lambda one: one.name)


async def template_of_pool(kube: KubeClient, pool: str, namespace: str) -> str:
    """The template that the members of a pool are made from.

    Raises:
        SandboxWarmPoolNotFoundError: there is no such pool.
        SandboxError: the cluster cannot be reached or refuses.
    """
    try:
        return _pool_info(await kube.get(SANDBOX_WARM_POOLS, pool, namespace)).template_name
    except NotFoundError as error:
        raise SandboxWarmPoolNotFoundError(f"there is no SandboxWarmPool {namespace}/{pool}") from error
    except KubeError as error:
        raise explain(error, f"looking for SandboxWarmPool {namespace}/{pool}") from error


def _template_info(view: SandboxTemplateView) -> TemplateInfo:
    conditions, generation = view.status.conditions, view.metadata.generation
    observed = any(condition.observed_generation in {None, generation} for condition in conditions)
    return TemplateInfo(view.metadata.name, _trouble(conditions), observed)


def _pool_info(view: SandboxWarmPoolView) -> PoolInfo:
    spec: dict[str, Any] = raw_object(view.spec)
    return PoolInfo(
        name=view.metadata.name,
        template_name=(spec.get("sandboxTemplateRef") or {}).get("name", ""),
        wanted=int(spec.get("replicas") or 0),
        ready=view.status.ready_replicas or 0,
        trouble=_trouble(view.status.conditions),
    )


def _trouble(conditions: tuple[ConditionView, ...]) -> str:
    """The first condition that does not hold, in one line."""
    for condition in conditions:
        if condition.status == "False":
            return f"{condition.type} is False, {condition.reason}: {condition.message}"
    return ""
