"""Reads where a request wants to go out of its headers, and refuses what is no name, no port, no time."""

import math
import re
from dataclasses import dataclass
from typing import Final

from agent_sandbox.router.errors import BadRequestError
from agent_sandbox.router.http1 import RequestHead
from agent_sandbox.router.rewrite import text_of
from agent_sandbox_api.names import HEADER_SANDBOX_ID, HEADER_SANDBOX_NAMESPACE, HEADER_SANDBOX_PORT, RUNTIME_PORT

ID: Final = HEADER_SANDBOX_ID.lower().encode()
NAMESPACE: Final = HEADER_SANDBOX_NAMESPACE.lower().encode()
PORT: Final = HEADER_SANDBOX_PORT.lower().encode()
TIMEOUT: Final = b"x-sandbox-timeout"
AUTHORIZATION: Final = b"x-sandbox-authorization"

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*\Z")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_PORT: Final = re.compile(r"[0-9]{1,5}\Z")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request wants to go.

    Attributes:
        identifier: claim name, Sandbox name or UID.
        timeout: seconds for the whole exchange, or None.
    """

    namespace: str
    identifier: str
    port: int
    timeout: float | None


def read_route(head: RequestHead) -> Route:
    """The route in a request's headers.

    Raises:
        BadRequestError: a header is missing, repeated or malformed.
    """
    identifier = text_of(head, ID)
    if not identifier:
        raise BadRequestError("X-Sandbox-ID header is required.")
    if _NAME.match(identifier) is None:
        raise BadRequestError("Invalid sandbox ID format.")
    namespace = text_of(head, NAMESPACE) or "default"
    if _LABEL.match(namespace) is None:
        raise BadRequestError("Invalid namespace format.")
    return Route(namespace, identifier, _port(text_of(head, PORT)), _timeout(text_of(head, TIMEOUT)))


def _port(text: str | None) -> int:
    if not text:
        return RUNTIME_PORT
    if _PORT.match(text) is None or not 1 <= int(text) <= 65535:
        raise BadRequestError("Invalid port format.")
    return int(text)


def _timeout(text: str | None) -> float | None:
    if not text:
        return None
    if _SECONDS.match(text) is None or not (seconds := float(text)) or not math.isfinite(seconds):
        raise BadRequestError("Invalid timeout format.")
    return seconds
