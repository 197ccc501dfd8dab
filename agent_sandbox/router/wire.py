"""One TCP connection as two bounded streams: reads wait for bytes, writes wait for room, each half closes by itself.

It stands on asyncio's transports rather than on its StreamReader, because a proxy hands bytes on as they come, must see
a half-close while nobody reads, and must know whether anything was written at all.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

HIGH_WATER: Final = 256 * 1024
"""Unread bytes at which reading from the peer stops, until somebody has read them."""


_NO_LINGER: Final = struct.pack("ii", 1, 0)


class WireError(Exception):
    """The connection broke; the cause is chained where there is one."""


class Wire(asyncio.Protocol):
    """A connection.

    Attributes:
        on_eof: called when the peer has ended its half, and again when the whole connection is gone; at once if that
            has happened already.
        written: bytes handed to the transport so far.
        peer: address of the other side.
    """

    def __init__(self, on_connected: "Callable[[Wire], None] | None" = None) -> None:
        self.written = 0
        self.peer = ""
        self._on_connected = on_connected
        self._on_eof: Callable[[], None] | None = None
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that hold no end of a head
        self._ended = False
        self._lost: BaseException | None = None
        self._closed = False
        self._finished = False  # we ended our half
        self._paused = False
        self._blocked = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        self._end()
        # Our half stays open, except over TLS, which cannot do that.
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._lost = exc
        self._end(again=True)
        self._wake_writer()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._wake_writer()

    # What the proxy calls

    @property
    def on_eof(self) -> Callable[[], None] | None:
        return self._on_eof

    @on_eof.setter
    def on_eof(self, callback: Callable[[], None] | None) -> None:
        self._on_eof = callback
        if callback is not None and self._ended:
            callback()

    @property
    def quiet(self) -> bool:
        """True if the peer sent nothing and neither side ended anything: an idle connection that can be used again."""
        return not (self._buffer or self._ended or self._closed or self._finished)

    @property
    def closed(self) -> bool:
        """True once both directions are gone: nobody is left to answer."""
        return self._closed

    @property
    def ended(self) -> bool:
        """True once the peer will send nothing more, though unread bytes may be left."""
        return self._ended

    @property
    def blocked(self) -> bool:
        """True if the peer must take something before more should be written."""
        return self._blocked

    @property
    def pending(self) -> bool:
        """True if there is something to read now."""
        return bool(self._buffer)

    async def read(self) -> bytes:
        """All bytes that are there, or the next ones; empty at the end.

        Raises:
            WireError: the connection broke.
        """
        await self.readable()
        data = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        self._resume()
        return data

    async def read_head(self, limit: int) -> bytes | None:
        """The bytes up to an empty line, without it; None if the peer ended instead.

        Empty lines before the head are skipped, as RFC 9112 2.2 advises.

        Raises:
            WireError: the connection broke.
            ValueError: no empty line within `limit` bytes.
        """
        while True:
            if (head := self.take_head(limit)) is not None:
                return head
            if self._ended:
                return None
            await self._more(len(self._buffer))

    def take_head(self, limit: int) -> bytes | None:
        """The bytes up to an empty line, without it, if they are there already.

        Raises:
            ValueError: no empty line within `limit` bytes.
        """
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            self._searched = 0
        found = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if 0 <= found <= limit:
            head = bytes(self._buffer[:found])
            del self._buffer[: found + 4]
            self._searched = 0
            self._resume()
            return head
        if len(self._buffer) > limit:
            raise ValueError("head too large")
        self._searched = len(self._buffer)
        return None

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of what is unread."""
        self._searched = 0
        self._buffer[:0] = data

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport; `drain` waits for room.

        Raises:
            WireError: the connection broke.
        """
        if self._closed or self._finished or self._transport.is_closing():
            raise WireError("the connection is closed") from self._lost
        self.written += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the peer took enough of what was written.

        Raises:
            WireError: the connection broke.
        """
        while self._blocked and not self._closed:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        if self._closed:
            raise WireError("the connection is closed") from self._lost

    def write_eof(self) -> None:
        """End our half, once everything written has gone."""
        if not self._closed and not self._transport.is_closing() and self._transport.can_write_eof():
            self._finished = True
            with suppress(OSError):  # The peer reset the connection, and asyncio has not told us yet.
                self._transport.write_eof()

    def close(self) -> None:
        """Close after everything written has gone."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once; the peer sees a reset, so that it cannot take what it got for a whole."""
        if not self._closed:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()

    async def readable(self) -> None:
        """Wait until there is something to read, or the peer has ended.

        Raises:
            WireError: the connection broke.
        """
        while not self._buffer:
            if self._ended:
                if self._lost is not None:
                    raise WireError("the connection was lost") from self._lost
                return
            await self._more(0)

    async def _more(self, have: int) -> None:
        """Wait until there are more than `have` unread bytes, or the peer ended."""
        assert self._reader is None, "two readers on one wire"
        if len(self._buffer) > have or self._ended:
            return
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _resume(self) -> None:
        if self._paused and len(self._buffer) < HIGH_WATER:
            self._paused = False
            self._transport.resume_reading()

    def _end(self, *, again: bool = False) -> None:
        if self._ended and not again:
            return
        self._ended = True
        self._wake_reader()
        if self._on_eof is not None:
            self._on_eof()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
