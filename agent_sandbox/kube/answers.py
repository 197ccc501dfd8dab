"""Reads the answers of an API server from the bytes of a connection: HTTP/1.1, without input or output.

What API servers send is understood, a length or chunks, and nothing is guessed: an answer whose end is not certain is
an error, since a cut body could pass for an object.
"""

import re
from typing import Final

from multidict import CIMultiDict

from agent_sandbox.kube.transport import RawResponse

MAX_HEAD: Final = 256 * 1024
"""Bytes of a head; a server's warnings may make it long."""

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_WITHOUT_BODY: Final = frozenset({204, 304})


class MalformedAnswerError(Exception):
    """The bytes are no answer of which the end is certain; the message says what is wrong with them."""


class AnswerReader:
    """Reads the one answer to one request.

    Flow: ``feed`` what arrives until it returns the answer; ``end`` when the connection ends before.
    Guarantees: an answer is whole, as its own head says.
    """

    def __init__(self, method: str) -> None:
        self._is_head = method == "HEAD"
        self._unread = bytearray()
        self._status = 0  # 0 until the head has been read
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._left: int | None = None  # bytes to come: of the body, or of the chunk being read
        self._chunks: list[bytes] | None = None  # None for a body that is not in chunks
        self._in_trailers = False
        self._may_stay = True

    @property
    def may_stay(self) -> bool:
        """Once the answer is read: whether the connection takes another request."""
        return self._may_stay and not self._unread

    def feed(self, data: bytes) -> RawResponse | None:
        """Take the next bytes; the answer once it is complete.

        Raises:
            MalformedAnswerError: they make no sense.
        """
        self._unread += data
        while not self._status:
            if not self._read_head():
                return None
        if self._chunks is not None:
            return self._answer(b"".join(self._chunks)) if self._read_chunks(self._chunks) else None
        if self._left is None or len(self._unread) < self._left:
            return None
        return self._answer(self._cut(self._left))

    def end(self) -> RawResponse | None:
        """The connection ended: the answer, if its body is one that ends with the connection."""
        if not self._status or self._chunks is not None or self._left is not None:
            return None
        return self._answer(self._cut(len(self._unread)))

    def _answer(self, body: bytes) -> RawResponse:
        return RawResponse(self._status, self._headers, body)

    def _cut(self, count: int, *, drop: int = 0) -> bytes:
        """Take so many unread bytes, and drop some after them."""
        taken = bytes(self._unread[:count])
        del self._unread[: count + drop]
        return taken

    def _read_head(self) -> bool:
        end = self._unread.find(b"\r\n\r\n")
        if end < 0:
            if len(self._unread) > MAX_HEAD:
                raise MalformedAnswerError(f"its head is longer than {MAX_HEAD} bytes")
            return False
        first, *lines = self._cut(end, drop=4).split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise MalformedAnswerError("it begins with no status line of HTTP/1.1")
        status = int(match[2])
        if status < 200:
            return True  # only announces the answer
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise MalformedAnswerError("a line of its head is no header")
            self._headers.add(name.decode("latin-1"), value.strip().decode("latin-1"))
        self._status = status
        connection = self._headers.get("Connection", "").lower()
        self._may_stay = "close" not in connection and (match[1] == b"1" or "keep-alive" in connection)
        self._frame()
        return True

    def _frame(self) -> None:
        """Find out how the body ends."""
        lengths, codings = self._headers.getall("Content-Length", []), self._headers.getall("Transfer-Encoding", [])
        if self._is_head or self._status in _WITHOUT_BODY:
            self._left = 0
        elif codings:
            if lengths or [coding.lower() for coding in codings] != ["chunked"]:
                raise MalformedAnswerError("its body has another transfer coding than chunked, or a length besides")
            self._chunks = []
        elif lengths:
            if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
                raise MalformedAnswerError("its length is no number")
            self._left = int(lengths[0])
        else:
            self._may_stay = False  # the body ends with the connection

    def _read_chunks(self, chunks: list[bytes]) -> bool:
        """Read on in a body of chunks; True at its end."""
        while True:
            if self._left is not None:
                if len(self._unread) < self._left + 2:
                    return False
                chunks.append(self._cut(self._left))
                if self._cut(2) != b"\r\n":
                    raise MalformedAnswerError("a chunk is longer than it says")
                self._left = None
            end = self._unread.find(b"\r\n")
            if end < 0:
                if len(self._unread) > MAX_HEAD:
                    raise MalformedAnswerError("a chunk does not say its size")
                return False
            line = self._cut(end, drop=2)
            if self._in_trailers:
                if not line:
                    return True
                continue
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise MalformedAnswerError("a chunk does not say its size")
            size = int(match[1], 16)
            if size:
                self._left = size
            else:
                self._in_trailers = True
