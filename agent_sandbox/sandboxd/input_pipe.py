"""Standard input of a running command: bytes by offset, so that what was resent after a reconnect arrives once.

Several clients may type into one command. Each has a stream of its own, with its own offsets.
"""

import asyncio
import os
from collections import deque
from dataclasses import dataclass
from typing import Final

import anyio

from agent_sandbox.sandboxd.errors import InvalidRequestError

HELD: Final = 8 * 1024 * 1024
"""Bytes held for a command that does not read, before the sender has to wait."""

_END_OF_FILE: Final = b"\x04"


@dataclass(eq=False)
class Writer:
    """How far one client's input has come.

    Attributes:
        received: bytes accepted; the offset of its next one.
        written: bytes that left for the command.
    """

    received: int = 0
    written: int = 0


class InputPipe:
    """Feeds a descriptor without ever blocking.

    Args:
        descriptor: a pipe, or a terminal's master; it is closed at the end.
        terminal: whether the end is told by a control character instead of by closing.
    """

    def __init__(self, descriptor: int, *, terminal: bool = False) -> None:
        self._descriptor = descriptor
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._held = bytearray()
        self._writers: dict[str | None, Writer] = {}
        # Whose the held bytes are, in their order.
        self._shares: deque[tuple[Writer, int]] = deque()
        self._ending = False
        self._open = True
        self._writing = False
        self._room = anyio.Event()
        os.set_blocking(descriptor, False)

    def writer(self, name: str | None) -> Writer:
        """The client of that name; all that have none are one."""
        return self._writers.get(name) or Writer()

    async def write(self, offset: int, data: bytes, *, name: str | None = None) -> None:
        """Take bytes that stand at `offset` of a client's input; what was received before is skipped. Waits for room.

        Raises:
            InvalidRequestError: bytes before `offset` are missing.
        """
        writer = self._writers.setdefault(name, Writer())
        if offset > writer.received:
            raise InvalidRequestError(f"input at offset {offset} arrived, but {writer.received} is next")
        fresh = data[writer.received - offset :]
        if not fresh or self._ending or not self._open:
            return
        writer.received += len(fresh)
        self._hold(writer, fresh)
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
        self._account(len(self._held))  # Nobody will ever want it: as good as written.
        self._held.clear()
        self._room.set()

    def _hold(self, writer: Writer, data: bytes) -> None:
        self._held += data
        self._shares.append((writer, len(data)))
        self._watch()

    def _account(self, written: int) -> None:
        """Tell the bytes that left among those whose they were."""
        while written:
            writer, count = self._shares.popleft()
            part = min(written, count)
            writer.written += part
            written -= part
            if part < count:
                self._shares.appendleft((writer, count - part))

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
                self._account(written)
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
            self._hold(Writer(), _END_OF_FILE)
