"""The part of SPDY/3.1 that port-forwarding uses: open streams, carry data, close.

``FrameReader`` turns bytes into frames, the ``encode_`` functions turn frames into bytes. No flow control: the clients
of Kubernetes use none.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

_WORDS: Final = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|"
    "authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|"
    "content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|"
    "user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|"
    "keep-alive|origin"
)
_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-"
    "8859-1,utf-,*,enq=0."
)


def _make_dictionary(words: str, tail: str) -> bytes:
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words.split("|")) + tail.encode()


DICTIONARY: Final = _make_dictionary(_WORDS, _TAIL)
"""The text that both sides prime their header compression with, as the SPDY/3 draft has it."""

_CONTROL: Final = 0x8000
_VERSION: Final = 3
_SYN_STREAM: Final = 1
_SYN_REPLY: Final = 2
_RST_STREAM: Final = 3
_PING: Final = 6
_GOAWAY: Final = 7
_FIN: Final = 0x01
MAX_FRAME: Final = 1 << 20
"""The longest frame that is accepted, in bytes; clients send at most a few 10 kB."""


class SpdyError(Exception):
    """The peer does not speak SPDY/3.1."""


@dataclass(frozen=True)
class Opened:
    """The peer opens a stream."""

    stream: int
    headers: dict[str, str]
    finished: bool


@dataclass(frozen=True)
class Data:
    """The peer sends data on a stream."""

    stream: int
    data: bytes
    finished: bool


@dataclass(frozen=True)
class Reset:
    """The peer gives a stream up."""

    stream: int


@dataclass(frozen=True)
class Ping:
    """The peer wants this frame back."""

    identifier: int


@dataclass(frozen=True)
class GoAway:
    """The peer will open no more streams."""


Frame = Opened | Data | Reset | Ping | GoAway


class FrameReader:
    """Cuts a stream of bytes into frames; keeps what is incomplete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete.

        Raises:
            SpdyError: this is not SPDY/3.1.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            length = second & 0xFFFFFF
            if length > MAX_FRAME:
                raise SpdyError(f"a frame of {length} bytes is longer than the limit of {MAX_FRAME}")
            if len(self._buffer) < 8 + length:
                break
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frame = self._parse(first, second >> 24, body)
            if frame is not None:
                frames.append(frame)
        return frames

    def _parse(self, first: int, flags: int, body: bytes) -> Frame | None:
        if not first >> 31:
            return Data(first, body, bool(flags & _FIN))
        if (first >> 16) & 0x7FFF != _VERSION:
            raise SpdyError(f"version {(first >> 16) & 0x7FFF} is not SPDY/{_VERSION}")
        try:
            match first & 0xFFFF:
                case 1:
                    (stream,) = struct.unpack_from(">I", body)
                    return Opened(stream & 0x7FFFFFFF, self._parse_headers(body[10:]), bool(flags & _FIN))
                case 3:
                    return Reset(struct.unpack_from(">I", body)[0] & 0x7FFFFFFF)
                case 6:
                    return Ping(struct.unpack_from(">I", body)[0])
                case 7:
                    return GoAway()
                case _:
                    # Settings, window updates and the like change nothing here.
                    return None
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"a frame does not parse: {error}") from error

    def _parse_headers(self, block: bytes) -> dict[str, str]:
        plain = self._headers.decompress(block)
        (count,) = struct.unpack_from(">I", plain)
        position = 4
        texts = []
        for _ in range(count * 2):
            (length,) = struct.unpack_from(">I", plain, position)
            position += 4
            texts.append(plain[position : position + length].decode())
            position += length
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}


class FrameWriter:
    """Builds frames; header blocks share one compression context, so replies go out in the order they are built."""

    def __init__(self) -> None:
        self._headers = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """Accept a stream."""
        block = self._headers.compress(struct.pack(">I", 0)) + self._headers.flush(zlib.Z_SYNC_FLUSH)
        return _control(_SYN_REPLY, struct.pack(">I", stream) + block)

    def data(self, stream: int, data: bytes, *, finish: bool = False) -> bytes:
        """Send data on a stream, and close this side of it."""
        return struct.pack(">II", stream, (_FIN if finish else 0) << 24 | len(data)) + data

    def ping(self, identifier: int) -> bytes:
        """Send a ping back."""
        return _control(_PING, struct.pack(">I", identifier))


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", _CONTROL | _VERSION, kind, len(body)) + body
