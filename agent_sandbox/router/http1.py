"""HTTP/1.1 without input or output: heads and bodies, strictly, so that no two readers can disagree about them.

Bytes in, frozen values out. Whatever RFC 9112 leaves to tolerance is refused: bare line feeds, folded lines, white
space around header names, repeated or contradicting lengths. Targets and header values are kept byte for byte.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Final

from agent_sandbox.router.errors import BadRequestError, NotImplementedHttpError

MAX_HEAD: Final = 64 * 1024
"""Bytes of a head, request line included: the sum that common servers (nginx: 4 x 8 KiB) stay below."""

MAX_HEADERS: Final = 200
MAX_CHUNK_LINE: Final = 4096

Headers = tuple[tuple[bytes, bytes], ...]

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_NAME: Final = re.compile(_TOKEN)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that speak about one connection and never go through a proxy (RFC 9110, 7.6.1)."""


@dataclass(frozen=True)
class Head:
    """What request and response heads share: the headers in their order and spelling."""

    minor: int
    headers: Headers

    @cached_property
    def _by_name(self) -> dict[bytes, list[bytes]]:
        # A request is asked for some twenty names on its way.
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            found.setdefault(name.lower(), []).append(value)
        return found

    def all(self, name: bytes) -> Sequence[bytes]:
        """The values of every header of that (lower-case) name."""
        return self._by_name.get(name, ())

    def one(self, name: bytes) -> bytes | None:
        """The value of a header that may occur once; None if it is absent.

        Raises:
            BadRequestError: it occurs more than once.
        """
        values = self.all(name)
        if len(values) > 1:
            raise BadRequestError(f"The header {name.decode()} must not be repeated.")
        return values[0] if values else None

    @cached_property
    def connection(self) -> frozenset[bytes]:
        """The lower-case tokens of all Connection headers."""
        return _tokens(self.all(b"connection"))

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may serve another message after this one."""
        options = self.connection
        return b"close" not in options and (self.minor == 1 or b"keep-alive" in options)


@dataclass(frozen=True)
class RequestHead(Head):
    """A request's first part."""

    method: bytes
    target: bytes

    @property
    def upgrade(self) -> bytes | None:
        """The protocol that the client asks to change to, or None. h2c is never offered to a sandbox."""
        if self.minor == 0 or b"upgrade" not in self.connection:
            return None
        wanted = self.one(b"upgrade")
        return wanted if wanted and wanted.lower() != b"h2c" else None


@dataclass(frozen=True)
class ResponseHead(Head):
    """A response's first part."""

    status: int
    phrase: bytes


def text_of(head: Head, name: bytes) -> str | None:
    """A header as text, byte by byte.

    Raises:
        BadRequestError: it is repeated.
    """
    value = head.one(name)
    return None if value is None else value.decode("latin-1")


class BodyKind(Enum):
    """How the end of a body is known."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Framing:
    """The kind of a body, and its length where it is stated."""

    kind: BodyKind
    length: int = 0


NO_BODY: Final = Framing(BodyKind.NONE)
CHUNKED: Final = Framing(BodyKind.CHUNKED)


def parse_request(head: bytes) -> RequestHead:
    """Read a request's head, without its closing empty line.

    Raises:
        BadRequestError: it is malformed or ambiguous.
    """
    lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise BadRequestError("Malformed request line.")
    headers = _headers(lines[1:])
    request = RequestHead(int(match[3]), headers, match[1], match[2])
    host = request.one(b"host")
    if host is None and request.minor == 1:
        raise BadRequestError("The Host header is required.")
    return _with_origin_form(request)


def parse_response(head: bytes) -> ResponseHead:
    """Read a response's head, without its closing empty line.

    Raises:
        BadRequestError: it is malformed. The caller says whose fault that is.
    """
    lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise BadRequestError("Malformed status line.")
    return ResponseHead(int(match[1]), _headers(lines[1:]), int(match[2]), match[3] or b"")


def request_framing(head: RequestHead) -> Framing:
    """How the request's body ends.

    Raises:
        BadRequestError: the lengths contradict each other.
        NotImplementedHttpError: a transfer coding other than chunked.
    """
    coded = head.all(b"transfer-encoding")
    length = _content_length(head)
    if not coded:
        return Framing(BodyKind.LENGTH, length) if length else NO_BODY
    if length is not None or head.minor == 0 or len(coded) > 1:
        raise BadRequestError("Ambiguous request body: Transfer-Encoding contradicts another header or the version.")
    if coded[0].lower() != b"chunked":
        raise NotImplementedHttpError("The only transfer coding understood is chunked.")
    return CHUNKED


def response_framing(head: ResponseHead, method: bytes) -> Framing:
    """How the response's body ends.

    Raises:
        BadRequestError: the lengths contradict each other.
    """
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return NO_BODY
    coded = head.all(b"transfer-encoding")
    length = _content_length(head)
    if coded:
        if length is not None or [value.lower() for value in coded] != [b"chunked"]:
            raise BadRequestError("Ambiguous response body.")
        return CHUNKED
    if length is None:
        return Framing(BodyKind.UNTIL_CLOSE)
    return Framing(BodyKind.LENGTH, length) if length else NO_BODY


def end_to_end(head: Head, *, drop: Callable[[bytes], bool]) -> list[tuple[bytes, bytes]]:
    """The headers that go through a proxy: without hop-by-hop ones, those named by Connection, and what `drop` names.

    Content-Length is left to the caller, who knows the framing.
    """
    nominated = head.connection
    kept = []
    for name, value in head.headers:
        lower = name.lower()
        if lower in HOP_BY_HOP or lower in nominated or lower == b"content-length" or drop(lower):
            continue
        kept.append((name, value))
    return kept


def encode_head(first_line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a head, with its closing empty line."""
    lines = [first_line]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def encode_chunk(data: bytes) -> bytes:
    """One chunk; never call it with no data, that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


class BodyDecoder:
    """Takes the bytes of a connection and gives those of one body, up to its end.

    Attributes:
        done: True once the body is complete; what was fed beyond it is in `rest`.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._left = framing.length
        self._chunked = _ChunkedState.SIZE
        self._line = b""
        self.rest = b""
        self.done = framing.kind is BodyKind.NONE

    def feed(self, data: bytes) -> bytes:
        """The body's bytes within `data`.

        Raises:
            BadRequestError: the chunked coding is malformed.
        """
        if self.done:
            self.rest += data
            return b""
        if self._framing.kind is BodyKind.UNTIL_CLOSE:
            return data
        if self._framing.kind is BodyKind.LENGTH:
            return self._take(data)
        return self._feed_chunked(data)

    def end(self) -> bool:
        """The connection ended: whether the body is complete."""
        if self._framing.kind is BodyKind.UNTIL_CLOSE:
            self.done = True
        return self.done

    def _take(self, data: bytes) -> bytes:
        body, self.rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.done = not self._left
        return body

    def _feed_chunked(self, data: bytes) -> bytes:
        body: list[bytes] = []
        data = self._line + data
        self._line = b""
        while data:
            if self._chunked is _ChunkedState.DATA:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                body.append(piece)
                if self._left:
                    break
                self._chunked = _ChunkedState.DATA_END
                continue
            line, found, after = data.partition(b"\r\n")
            if not found:
                if len(data) > MAX_CHUNK_LINE or b"\n" in data:
                    raise BadRequestError("Malformed chunk.")
                self._line = data
                break
            data = after
            self._on_line(line)
            if self.done:
                self.rest = data
                break
        return b"".join(body)

    def _on_line(self, line: bytes) -> None:
        match self._chunked:
            case _ChunkedState.SIZE:
                match = _CHUNK_SIZE.fullmatch(line)
                if match is None or len(line) > MAX_CHUNK_LINE:
                    raise BadRequestError("Malformed chunk size.")
                self._left = int(match[1], 16)
                self._chunked = _ChunkedState.DATA if self._left else _ChunkedState.TRAILERS
            case _ChunkedState.DATA_END:
                if line:
                    raise BadRequestError("Malformed end of a chunk.")
                self._chunked = _ChunkedState.SIZE
            case _ChunkedState.TRAILERS:
                # Trailers are read to the end and dropped, as RFC 9110 6.5.1 allows.
                if not line:
                    self.done = True
                else:
                    _header(line)
            case _ChunkedState.DATA:
                raise AssertionError("data is not read by lines")


class _ChunkedState(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()


def _headers(lines: list[bytes]) -> Headers:
    if len(lines) > MAX_HEADERS:
        raise BadRequestError(f"More than {MAX_HEADERS} headers.")
    return tuple(_header(line) for line in lines)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
        raise BadRequestError("Malformed header line.")
    return name, value.strip(b" \t")


def _with_origin_form(head: RequestHead) -> RequestHead:
    if head.method == b"CONNECT":
        raise NotImplementedHttpError("CONNECT is not supported.")
    if head.target.startswith(b"/") or (head.target == b"*" and head.method == b"OPTIONS"):
        return head
    match = _ABSOLUTE.fullmatch(head.target)
    if match is None:
        raise BadRequestError("Malformed request target.")
    # RFC 9112 3.2.2: the authority of an absolute target replaces Host.
    headers = tuple((name, match[1] if name.lower() == b"host" else value) for name, value in head.headers)
    path = match[2] if match[2].startswith(b"/") else b"/" + match[2]
    return RequestHead(head.minor, headers, head.method, path)


def _content_length(head: Head) -> int | None:
    value = head.one(b"content-length")
    if value is None:
        return None
    if _LENGTH.fullmatch(value) is None:
        raise BadRequestError("Malformed Content-Length.")
    return int(value)


def _tokens(values: Sequence[bytes]) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for value in values for token in value.split(b",") if token.strip())
