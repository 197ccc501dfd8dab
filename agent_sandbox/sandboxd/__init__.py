"""The daemon inside a sandbox: processes, files, ports.

In: HTTP requests from an agent, through the router or directly. Out: what its commands printed, and its files. It knows
nothing of Kubernetes and imports nothing of the rest of the house, so that any image can carry it.

Importing this package is free; its names load on first use, because a sandbox is Ready only when its daemon is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agent_sandbox.sandboxd.app import create_app, serve
    from agent_sandbox.sandboxd.command_line import main
    from agent_sandbox.sandboxd.errors import SandboxdError
    from agent_sandbox.sandboxd.options import SandboxdOptions

__all__ = ["SandboxdError", "SandboxdOptions", "create_app", "main", "serve"]

_HOMES: Final = {
    "SandboxdError": "errors",
    "SandboxdOptions": "options",
    "create_app": "app",
    "main": "command_line",
    "serve": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
