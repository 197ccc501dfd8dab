"""Responses that the router writes itself, as bytes."""

import json
from email.utils import formatdate
from typing import Final

from agent_sandbox.router.errors import RefusalError
from agent_sandbox.router.http1 import RequestHead, encode_head

_PHRASES: Final = {
    200: b"OK", 302: b"Found",
    400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found", 409: b"Conflict",
    413: b"Content Too Large", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout",
}  # fmt: skip


def refusal_response(refusal: RefusalError, request: RequestHead | None, *, close: bool) -> bytes:
    """The answer for a refused request."""
    extra = [(b"X-Sandbox-Error", refusal.reason.encode())]
    if refusal.retry_after is not None:
        extra.append((b"Retry-After", b"%d" % refusal.retry_after))
    if refusal.status == 401:
        extra.append((b"WWW-Authenticate", b'Bearer realm="agent-sandbox-router"'))
    return json_response(refusal.status, {"detail": refusal.detail}, request, close=close, extra=extra)


def json_response(
    status: int,
    body: dict[str, str],
    request: RequestHead | None,
    *,
    close: bool,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """A whole response with a JSON body."""
    return response(status, json.dumps(body).encode(), "application/json", request, close=close, extra=extra)


def response(
    status: int,
    body: bytes,
    content_type: str,
    request: RequestHead | None,
    *,
    close: bool,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """A whole response; without its body for HEAD."""
    headers = [
        (b"Content-Type", content_type.encode()),
        (b"Content-Length", b"%d" % len(body)),
        (b"Date", formatdate(usegmt=True).encode()),
        *(extra or []),
    ]
    if close:
        headers.append((b"Connection", b"close"))
    head = encode_head(b"HTTP/1.1 %d %b" % (status, _PHRASES[status]), headers)
    return head if request is not None and request.method == b"HEAD" else head + body
