"""CustomResourceDefinitions: objects that define further kinds."""

from agent_sandbox.local.apiserver.custom.definition import CUSTOM_RESOURCE_DEFINITIONS
from agent_sandbox.local.apiserver.custom.kinds import kinds_of

__all__ = ["CUSTOM_RESOURCE_DEFINITIONS", "kinds_of"]
