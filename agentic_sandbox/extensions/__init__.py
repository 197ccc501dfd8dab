"""Clients for runtimes that can more than run commands."""

from agent_sandbox import ComputerUseExtension

__all__ = ["ComputerUseExtension"]
