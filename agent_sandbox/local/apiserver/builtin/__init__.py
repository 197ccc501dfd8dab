"""The kinds that this server knows without being told."""

from agent_sandbox.local.apiserver.builtin.kinds import BUILTIN_KINDS, EVENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS

__all__ = ["BUILTIN_KINDS", "EVENTS", "NAMESPACES", "PODS", "SERVICE_ACCOUNTS"]
