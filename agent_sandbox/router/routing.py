"""Reads where a request wants to go, and refuses what is no name, no port, no time.

Programs say it in headers. Browsers cannot: for them the host (``<port>-<sandbox>-<namespace>.<domain>``) or the front
of the path (``/sandboxes/<namespace>/<sandbox>/<port>/``) says it. A host of its own also gives every sandbox an origin
of its own; behind paths all sandboxes share one, so it is for sandboxes that trust each other. Programs that know under
which path they are served (``/prefixed/<namespace>/<sandbox>/<port>/``) get that path with each request.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent_sandbox.router.errors import BadRequestError
from agent_sandbox.router.http1 import RequestHead, text_of
from agent_sandbox_api.names import HEADER_SANDBOX_ID, HEADER_SANDBOX_NAMESPACE, HEADER_SANDBOX_PORT, RUNTIME_PORT

ID: Final = HEADER_SANDBOX_ID.lower().encode()
NAMESPACE: Final = HEADER_SANDBOX_NAMESPACE.lower().encode()
PORT: Final = HEADER_SANDBOX_PORT.lower().encode()
TIMEOUT: Final = b"x-sandbox-timeout"
AUTHORIZATION: Final = b"x-sandbox-authorization"

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*\Z")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_PORT: Final = re.compile(r"[0-9]{1,5}\Z")
_PATH: Final = re.compile(rb"/(sandboxes|prefixed)/([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})/([0-9]{1,5})(?=[/?]|\Z)")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request wants to go.

    Attributes:
        identifier: claim name, Sandbox name or UID.
        timeout: seconds for the whole exchange, or None.
        target: the request target that the sandbox gets.
        base: the path below which the sandbox is for a browser; empty unless the path named the sandbox.
        prefix: what was taken from the front of the target: `base`, or nothing if the sandbox's program knows it.
        browser: whether host or path named the sandbox, as browsers do it; then a cookie may carry the credential.
        ambiguous: whether the host can mean another sandbox as well. Only who has a right to this one may learn that.
    """

    namespace: str
    identifier: str
    port: int
    timeout: float | None
    target: bytes
    base: bytes = b""
    prefix: bytes = b""
    browser: bool = False
    ambiguous: bool = False


Known = Callable[[str, str], bool]
"""Tells whether a namespace has a claim or Sandbox of that name, or whether that one is meant."""


def read_route(
    head: RequestHead, *, domain: str | None = None, known: Known = lambda *_: False, meant: Known = lambda *_: False
) -> Route:
    """The route of a request: by its headers, else by its host, else by its path.

    Args:
        domain: ``<port>-<sandbox>-<namespace>.<domain>`` names a sandbox; None turns this off.
        known: decides which of several readings of such a host is meant.
        meant: decides it where several are known: what the request's credential is for.

    Raises:
        BadRequestError: nothing names a sandbox, or a header is repeated or malformed.
    """
    identifier = text_of(head, ID)
    if identifier:
        return _by_headers(head, identifier)
    if domain is not None and (label := _label_before(domain, text_of(head, b"host"))) is not None:
        return _by_host(head, label, known, meant)
    if (match := _PATH.match(head.target)) is not None:
        return _by_path(head, match)
    raise BadRequestError("X-Sandbox-ID header is required.")


def is_sandbox_host(head: RequestHead, domain: str | None) -> bool:
    """Whether the host names a sandbox."""
    return domain is not None and _label_before(domain, text_of(head, b"host")) is not None


def _by_headers(head: RequestHead, identifier: str) -> Route:
    if _NAME.match(identifier) is None:
        raise BadRequestError("Invalid sandbox ID format.")
    namespace = text_of(head, NAMESPACE) or "default"
    if _LABEL.match(namespace) is None:
        raise BadRequestError("Invalid namespace format.")
    timeout = _timeout(text_of(head, TIMEOUT))
    return Route(namespace, identifier, _port(text_of(head, PORT)), timeout, head.target)


def _label_before(domain: str, host: str | None) -> str | None:
    name = (host or "").rpartition(":")[0] if (host or "").rpartition(":")[2].isdecimal() else host or ""
    suffix = "." + domain.lower().strip(".")
    return name.lower().removesuffix(suffix) if name.lower().endswith(suffix) else None


def _by_host(head: RequestHead, label: str, known: Known, meant: Known) -> Route:
    """Read ``<port>-<sandbox>-<namespace>``. Names may contain hyphens: what exists decides, if it is one thing, else
    the credential: nobody must be able to block a sandbox by another one's name.
    """
    port, _, rest = label.partition("-")
    readings = [(rest[:at], rest[at + 1 :]) for at, letter in enumerate(rest) if letter == "-"]
    readings = [(name, namespace) for name, namespace in readings if _LABEL.match(name) and _LABEL.match(namespace)]
    if not readings or _PORT.match(port) is None:
        raise BadRequestError("Invalid host format: <port>-<sandbox>-<namespace> is expected before the domain.")
    existing = [(name, namespace) for name, namespace in readings if known(namespace, name)]
    if len(existing) > 1:
        existing = [(name, namespace) for name, namespace in existing if meant(namespace, name)] or existing
    name, namespace = existing[0] if existing else readings[-1]
    timeout = _timeout(text_of(head, TIMEOUT))
    ambiguous = len(existing) > 1
    return Route(namespace, name, _port(port), timeout, head.target, browser=True, ambiguous=ambiguous)


def _by_path(head: RequestHead, match: "re.Match[bytes]") -> Route:
    namespace, name, port = (match[group].decode() for group in (2, 3, 4))
    if _LABEL.match(namespace) is None:
        raise BadRequestError("Invalid namespace format.")
    if _NAME.match(name) is None:
        raise BadRequestError("Invalid sandbox ID format.")
    base = match[0]
    prefix = base if match[1] == b"sandboxes" else b""
    target = head.target[len(prefix) :]
    if not target.startswith(b"/"):
        target = b"/" + target
    timeout = _timeout(text_of(head, TIMEOUT))
    return Route(namespace, name, _port(port), timeout, target, base, prefix, browser=True)


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
