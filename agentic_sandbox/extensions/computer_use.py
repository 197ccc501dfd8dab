"""The client for a runtime with an agent inside, under both of its names."""

from agent_sandbox import ComputerUseExtension, ComputerUseSandbox

__all__ = ["ComputerUseExtension", "ComputerUseSandbox"]
