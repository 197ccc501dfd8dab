"""What the router changes in heads: its own headers go, X-Forwarded-* are set, framing is restated. Nothing else.

Names, values, order and spelling of every other header stay as they came, and so does the request's target.
"""

import re
from typing import Final

from agent_sandbox.router.browser import COOKIE, without_token
from agent_sandbox.router.errors import BadRequestError
from agent_sandbox.router.http1 import (
    BodyKind,
    Framing,
    RequestHead,
    ResponseHead,
    encode_head,
    end_to_end,
)
from agent_sandbox.router.routing import Route
from agent_sandbox.tracing import HEADERS as TRACE_HEADERS
from agent_sandbox.tracing import TraceContext

OWN_PREFIX: Final = b"x-sandbox-"
ERROR_HEADER: Final = b"x-sandbox-error"
_TRACE_HEADERS: Final = frozenset(name.encode() for name in TRACE_HEADERS)
_SPOOFABLE: Final = frozenset({b"forwarded", b"x-real-ip"})
_ABSOLUTE: Final = re.compile(rb"(https?://)([^/?#]+)(.*)", re.IGNORECASE)
_COOKIE_PATH: Final = re.compile(rb"(;[ \t]*path[ \t]*=[ \t]*)([^;]*)", re.IGNORECASE)


def request_to_sandbox(
    head: RequestHead,
    framing: Framing,
    route: Route,
    *,
    peer: str,
    proto: str,
    trace: TraceContext,
) -> bytes:
    """The head that the sandbox gets; where the router has a span of its own, that span is its parent."""

    def is_ours(name: bytes) -> bool:
        if trace and name in _TRACE_HEADERS:
            return True
        return name.startswith((OWN_PREFIX, b"x-forwarded-")) or name in _SPOOFABLE

    headers = end_to_end(head, drop=is_ours)
    if route.browser:
        headers = _without_our_cookie(headers)
    headers.append((b"X-Forwarded-For", peer.encode()))
    headers.append((b"X-Forwarded-Proto", proto.encode()))
    if (host := head.one(b"host")) is not None:
        headers.append((b"X-Forwarded-Host", host))
    if route.prefix:
        headers.append((b"X-Forwarded-Prefix", route.prefix))
    headers += [(name.encode(), value.encode()) for name, value in trace.items()]
    if framing.kind is BodyKind.CHUNKED:
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif (length := head.one(b"content-length")) is not None:
        headers.append((b"Content-Length", length))
    if (protocol := head.upgrade) is not None:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", protocol)]
    return encode_head(b"%b %b HTTP/1.1" % (head.method, route.target), headers)


def response_to_client(
    head: ResponseHead, framing: Framing, request: RequestHead, route: Route, *, close: bool
) -> bytes:
    """The head that the client gets for a final response."""
    headers = end_to_end(head, drop=lambda name: name == ERROR_HEADER)
    if route.browser:
        headers = [(name, _below(name, value, route, request)) for name, value in headers if not _is_ours(name, value)]
    if framing.kind in (BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE) and request.minor == 1:
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif (length := head.one(b"content-length")) is not None and head.status != 204:
        headers.append((b"Content-Length", length))
    if close:
        headers.append((b"Connection", b"close"))
    elif request.minor == 0:
        headers.append((b"Connection", b"keep-alive"))
    return encode_head(_status_line(head), headers)


def _without_our_cookie(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in headers:
        if name.lower() == b"cookie" and COOKIE in value:
            value = without_token(value)
            if not value:
                continue
        kept.append((name, value))
    return kept


def _is_ours(name: bytes, value: bytes) -> bool:
    """Whether a sandbox tries to set the cookie that carries the credential."""
    return name.lower() == b"set-cookie" and value.partition(b"=")[0].strip() == COOKIE


def _below(name: bytes, value: bytes, route: Route, request: RequestHead) -> bytes:
    """Keep redirects and cookies of a sandbox behind a path below that path. Other hosts' addresses stay."""
    match name.lower():
        case b"location" | b"content-location" if route.prefix:
            return _address_below(value, route.prefix, request.one(b"host") or b"")
        case b"set-cookie" if route.base:
            return _cookie_below(value, route)
        case _:
            return value


def _address_below(address: bytes, prefix: bytes, host: bytes) -> bytes:
    if address.startswith(b"/") and not address.startswith(b"//"):
        return prefix + address
    match = _ABSOLUTE.fullmatch(address)
    if match is not None and match[2].lower() == host.lower():
        return match[1] + match[2] + prefix + (match[3] if match[3].startswith(b"/") else b"/" + match[3])
    return address


def _cookie_below(cookie: bytes, route: Route) -> bytes:
    def below(match: "re.Match[bytes]") -> bytes:
        path = match[2]
        inside = not route.prefix and (path + b"/").startswith(route.base + b"/")
        return match[0] if inside or not path.startswith(b"/") else match[1] + route.base + path

    # Of several paths the last one counts, so none may stay as it is.
    moved, paths = _COOKIE_PATH.subn(below, cookie)
    return moved if paths else cookie + b"; Path=" + route.base + b"/"


def interim_to_client(head: ResponseHead) -> bytes:
    """The head of a 1xx response other than 101."""
    return encode_head(_status_line(head), end_to_end(head, drop=lambda name: name == ERROR_HEADER))


def upgrade_to_client(head: ResponseHead) -> bytes:
    """The head of a 101 response: it keeps the headers that name the new protocol."""
    headers = end_to_end(head, drop=lambda name: name == ERROR_HEADER)
    protocol = head.one(b"upgrade")
    if protocol is None:
        raise BadRequestError("A response that switches protocols names none.")
    headers += [(b"Connection", b"Upgrade"), (b"Upgrade", protocol)]
    return encode_head(_status_line(head), headers)


def _status_line(head: ResponseHead) -> bytes:
    return b"HTTP/1.1 %d %b" % (head.status, head.phrase)
