"""agents.x-k8s.io/v1alpha1."""

from agent_sandbox_api.agents.v1alpha1.sandbox import (
    SANDBOXES,
    Sandbox,
    SandboxSpec,
    SandboxStatus,
    SandboxStatusView,
    SandboxView,
    ShutdownPolicy,
)

__all__ = [
    "SANDBOXES",
    "Sandbox",
    "SandboxSpec",
    "SandboxStatus",
    "SandboxStatusView",
    "SandboxView",
    "ShutdownPolicy",
]
