"""Where programs for the Go project's client of December 2025 find the result of a command, beside the client."""

from agent_sandbox import ExecutionResult, SandboxClient

__all__ = ["ExecutionResult", "SandboxClient"]
