"""A Kubernetes API for one machine: semantics and storage in ``ApiServer``, the wire in ``ApiServerSite``."""

from agent_sandbox.local.apiserver.errors import StatusError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, UserInfo
from agent_sandbox.local.apiserver.server import ApiServer
from agent_sandbox.local.apiserver.storage import Journal, MemoryJournal, ObjectStore

__all__ = [
    "ApiRequest",
    "ApiResponse",
    "ApiServer",
    "Journal",
    "MemoryJournal",
    "ObjectStore",
    "StatusError",
    "UserInfo",
]
