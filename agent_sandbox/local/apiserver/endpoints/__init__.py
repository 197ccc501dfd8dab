"""What a request on a resource means: from the HTTP values to ``Objects`` and back."""

from agent_sandbox.local.apiserver.endpoints.resources import ResourceEndpoints

__all__ = ["ResourceEndpoints"]
