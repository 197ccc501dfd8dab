"""What the router changes in heads: its own headers go, X-Forwarded-* are set, framing is restated. Nothing else.

Names, values, order and spelling of every other header stay as they came, and so does the request's target.
"""

from typing import Final

from agent_sandbox.router.errors import BadRequestError
from agent_sandbox.router.http1 import (
    BodyKind,
    Framing,
    Head,
    RequestHead,
    ResponseHead,
    encode_head,
    end_to_end,
)

OWN_PREFIX: Final = b"x-sandbox-"
ERROR_HEADER: Final = b"x-sandbox-error"
_SPOOFABLE: Final = frozenset({b"forwarded", b"x-real-ip"})
_INFORMATIVE: Final = 200


def request_to_sandbox(head: RequestHead, framing: Framing, *, peer: str, proto: str) -> bytes:
    """The head that the sandbox gets."""

    def is_ours(name: bytes) -> bool:
        return name.startswith((OWN_PREFIX, b"x-forwarded-")) or name in _SPOOFABLE

    headers = end_to_end(head, drop=is_ours)
    headers.append((b"X-Forwarded-For", peer.encode()))
    headers.append((b"X-Forwarded-Proto", proto.encode()))
    if (host := head.one(b"host")) is not None:
        headers.append((b"X-Forwarded-Host", host))
    if framing.kind is BodyKind.CHUNKED:
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif (length := head.one(b"content-length")) is not None:
        headers.append((b"Content-Length", length))
    if (protocol := head.upgrade) is not None:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", protocol)]
    return encode_head(b"%b %b HTTP/1.1" % (head.method, head.target), headers)


def response_to_client(head: ResponseHead, framing: Framing, request: RequestHead, *, close: bool) -> bytes:
    """The head that the client gets for a final response."""
    headers = end_to_end(head, drop=lambda name: name == ERROR_HEADER)
    if framing.kind in (BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE) and request.minor == 1:
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif (length := head.one(b"content-length")) is not None and head.status != 204:
        headers.append((b"Content-Length", length))
    if close:
        headers.append((b"Connection", b"close"))
    elif request.minor == 0:
        headers.append((b"Connection", b"keep-alive"))
    return encode_head(_status_line(head), headers)


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


def text_of(head: Head, name: bytes) -> str | None:
    """A header as text, byte by byte.

    Raises:
        BadRequestError: it is repeated.
    """
    value = head.one(name)
    return None if value is None else value.decode("latin-1")


def _status_line(head: ResponseHead) -> bytes:
    return b"HTTP/1.1 %d %b" % (head.status, head.phrase)
