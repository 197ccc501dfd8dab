"""The daemon inside a sandbox: processes, files, ports.

In: HTTP requests from an agent, through the router or directly. Out: what its commands printed, and its files. It knows
nothing of Kubernetes and imports nothing of the rest of the house, so that any image can carry it.
"""

from agent_sandbox.sandboxd.app import create_app, serve
from agent_sandbox.sandboxd.command_line import main
from agent_sandbox.sandboxd.errors import SandboxdError
from agent_sandbox.sandboxd.options import SandboxdOptions

__all__ = ["SandboxdError", "SandboxdOptions", "create_app", "main", "serve"]
