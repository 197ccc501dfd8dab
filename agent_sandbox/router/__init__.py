"""The data plane's front door: one address for all sandboxes, and nothing but sandboxes behind it.

In: HTTP requests that name a sandbox. Out: the same requests at that sandbox's Pod, byte for byte. Which Pod that is
comes from the router's own watch (`Directory`); who may pass is decided here, before anything is dialled.
"""

from agent_sandbox.router.directory import Directory, Target
from agent_sandbox.router.errors import RefusalError, RouterConfigError, RouterError
from agent_sandbox.router.options import AuthzMode, RouterOptions
from agent_sandbox.router.server import Router, serve
from agent_sandbox.router.tokens import Scope, TokenKeys
from agent_sandbox.router.upstream import SocketFactory

__all__ = [
    "AuthzMode",
    "Directory",
    "RefusalError",
    "Router",
    "RouterConfigError",
    "RouterError",
    "RouterOptions",
    "Scope",
    "SocketFactory",
    "Target",
    "TokenKeys",
    "serve",
]
