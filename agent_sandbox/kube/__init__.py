"""An API server seen from a client: connect, read, write, watch.

In: ``Resource`` values of ``agent_sandbox_api``, names, bodies. Out: lean views, and the errors of ``errors.py``. It
keeps
nothing: caches and controllers are in ``agent_sandbox.runtime``. Importing it loads neither aiohttp's client sessions
nor kubernetes_asyncio; ``connect`` does.
"""

from agent_sandbox.kube.client import KubeClient, ObjectList, Propagation
from agent_sandbox.kube.config import connect, connect_to, in_cluster
from agent_sandbox.kube.errors import (
    AlreadyExistsError,
    ApiError,
    BadRequestError,
    ConfigError,
    ConflictError,
    DecodeError,
    ForbiddenError,
    GoneError,
    InvalidError,
    InvalidNameError,
    KubeError,
    NotFoundError,
    OutcomeUnknownError,
    ServerError,
    StatusCause,
    StatusDetails,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
    UnreachableError,
)
from agent_sandbox.kube.modify import modify
from agent_sandbox.kube.patches import ApplyPatch, Body, JsonPatch, MergePatch, Patch
from agent_sandbox.kube.scale import Scale
from agent_sandbox.kube.selectors import EVERYTHING, Requirement, Selector, format_labels, parse_selector, selector_from
from agent_sandbox.kube.transport import RawResponse, RawStream, Transport
from agent_sandbox.kube.watch import EventType, WatchEvent

__all__ = [
    "EVERYTHING",
    "AlreadyExistsError",
    "ApiError",
    "ApplyPatch",
    "BadRequestError",
    "Body",
    "ConfigError",
    "ConflictError",
    "DecodeError",
    "EventType",
    "ForbiddenError",
    "GoneError",
    "InvalidError",
    "InvalidNameError",
    "JsonPatch",
    "KubeClient",
    "KubeError",
    "MergePatch",
    "NotFoundError",
    "ObjectList",
    "OutcomeUnknownError",
    "Patch",
    "Propagation",
    "RawResponse",
    "RawStream",
    "Requirement",
    "Scale",
    "Selector",
    "ServerError",
    "StatusCause",
    "StatusDetails",
    "TooManyRequestsError",
    "Transport",
    "TransportError",
    "UnauthorizedError",
    "UnreachableError",
    "WatchEvent",
    "connect",
    "connect_to",
    "format_labels",
    "in_cluster",
    "modify",
    "parse_selector",
    "selector_from",
]
