"""CustomResourceDefinitions: objects that define further kinds."""

from agent_sandbox.local.apiserver.custom.definition import CLEANUP_FINALIZER, CUSTOM_RESOURCE_DEFINITIONS
from agent_sandbox.local.apiserver.custom.kinds import kinds_of

__all__ = ["CLEANUP_FINALIZER", "CUSTOM_RESOURCE_DEFINITIONS", "kinds_of"]
