"""Models of cached objects, parsed once for equal content: a pool's members share one spec, everybody one template.

A model given out here is shared. Never change one.
"""

from functools import lru_cache

import msgspec

from agent_sandbox_api.agents.v1alpha1 import SandboxSpec, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SandboxTemplate,
    SandboxTemplateView,
    SandboxWarmPool,
    SandboxWarmPoolView,
)


def sandbox_spec(view: SandboxView) -> SandboxSpec:
    """The validated spec of a Sandbox."""
    return _sandbox_spec(bytes(view.spec))


def template_model(view: SandboxTemplateView) -> SandboxTemplate:
    """The validated model of a template."""
    return _template(msgspec.json.encode(view))


def pool_model(view: SandboxWarmPoolView) -> SandboxWarmPool:
    """The validated model of a pool."""
    return _pool(msgspec.json.encode(view))


@lru_cache(maxsize=512)
def _sandbox_spec(data: bytes) -> SandboxSpec:
    return SandboxSpec.model_validate_json(data)


@lru_cache(maxsize=128)
def _template(data: bytes) -> SandboxTemplate:
    return SandboxTemplate.from_json(data)


@lru_cache(maxsize=128)
def _pool(data: bytes) -> SandboxWarmPool:
    return SandboxWarmPool.from_json(data)
