"""Standard input of a running command: bytes by offset, so that what was resent after a reconnect arrives once."""

import asyncio
import os
from typing import Final

import anyio

from agent_sandbox.sandboxd.errors import InvalidRequestError

HELD: Final = 8 * 1024 * 1024
"""Bytes held for a command that does not read, before the sender has to wait."""

_END_OF_FILE: Final = b"\x04"


class InputPipe:
    """Feeds a descriptor without ever blocking.

    Args:
        descriptor: a pipe, or a terminal's master; it is closed at the end.
        terminal: whether the end is told by a control character instead of by closing.

    Attributes:
        received: bytes accepted so far; the offset of the next one.
    """

    def __init__(self, descriptor: int, *, terminal: bool = False) -> None:
        self.received = 0
        self._descriptor = descriptor
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._held = bytearray()
        self._ending = False
        self._open = True
        self._writing = False
        self._room = anyio.Event()
        os.set_blocking(descriptor, False)

    async def write(self, offset: int, data: bytes) -> None:
        """Take bytes that stand at `offset` of the whole input; what was received before is skipped. Waits for room.

        Raises:
            InvalidRequestError: bytes before `offset` are missing.
        """
        if offset > self.received:
            raise InvalidRequestError(f"input at offset {offset} arrived, but {self.received} is next")
        fresh = data[self.received - offset :]
        if not fresh or self._ending or not self._open:
            return
        self.received += len(fresh)
        self._held += fresh
        self._watch()
        while len(self._held) > HELD and self._open:
            self._room = anyio.Event()
            await self._room.wait()

    def end(self) -> None:
        """No more input comes."""
        if not self._ending:
            self._ending = True
            self._watch()

    def close(self) -> None:
        """Drop what was not written."""
        if not self._open:
            return
        self._open = False
        self._unwatch()
        os.close(self._descriptor)
        self._held.clear()
        self._room.set()

    def _watch(self) -> None:
        if self._open and not self._writing:
            self._writing = True
            self._loop.add_writer(self._descriptor, self._write_some)

    def _unwatch(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._descriptor)

    def _write_some(self) -> None:
        try:
            if self._held:
                written = os.write(self._descriptor, self._held[: 64 * 1024])
                del self._held[:written]
        except BlockingIOError:
            return
        except OSError:
            self.close()  # Nobody reads any more.
            return
        if len(self._held) <= HELD:
            self._room.set()
        if self._held:
            return
        self._unwatch()
        if self._ending:
            self._finish()

    def _finish(self) -> None:
        if not self._terminal:
            self.close()
        else:
            self._ending = False
            self._held += _END_OF_FILE
            self._watch()
