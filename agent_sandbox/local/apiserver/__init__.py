"""A Kubernetes API for one machine: semantics and storage in ``ApiServer``, the wire in ``ApiServerSite``."""

from agent_sandbox.local.apiserver.errors import StatusError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, UserInfo
from agent_sandbox.local.apiserver.providers import (
    ExecCall,
    ExecInput,
    ExecSession,
    LogCall,
    PodProviders,
    Resize,
    StdinClosed,
    StdinData,
)
from agent_sandbox.local.apiserver.server import ApiServer
from agent_sandbox.local.apiserver.storage import Journal, MemoryJournal, ObjectStore, SqliteJournal

__all__ = [
    "ApiRequest",
    "ApiResponse",
    "ApiServer",
    "ExecCall",
    "ExecInput",
    "ExecSession",
    "Journal",
    "LogCall",
    "MemoryJournal",
    "ObjectStore",
    "PodProviders",
    "Resize",
    "SqliteJournal",
    "StatusError",
    "StdinClosed",
    "StdinData",
    "UserInfo",
]
