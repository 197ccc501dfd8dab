"""Keeps the beginning of a stream and passes all of it on, decoded."""

import codecs
import inspect

from agent_sandbox.sdk.results import OutputCallback


class Collector:
    """One stream of output while it arrives.

    Attributes:
        kept: its first bytes, up to the limit.
        truncated: True if more came than was kept.
    """

    def __init__(self, limit: int, callback: OutputCallback | None) -> None:
        self.truncated = False
        self._limit = limit
        self._callback = callback
        self._parts = bytearray()
        # A character may be cut in two by the pieces that it arrives in.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def kept(self) -> bytes:
        """The bytes that were kept."""
        return bytes(self._parts)

    @property
    def text(self) -> str:
        """The bytes that were kept, decoded."""
        return self._parts.decode("utf-8", "replace")

    async def add(self, data: bytes) -> None:
        """The next piece."""
        room = self._limit - len(self._parts)
        self.truncated = self.truncated or len(data) > room
        self._parts += data[:room]
        if self._callback is not None:
            await self._pass_on(self._decoder.decode(data))

    async def finish(self) -> None:
        """There are no more pieces."""
        if self._callback is not None:
            await self._pass_on(self._decoder.decode(b"", final=True))

    async def _pass_on(self, text: str) -> None:
        if text and self._callback is not None:
            result = self._callback(text)
            if inspect.isawaitable(result):
                await result
