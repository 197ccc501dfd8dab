"""Uploads in parts: a file that arrives over several requests and connections, and appears when it is whole.

A part says at which offset it begins; a part at another place than the next one is refused, and the caller asks where
to go on. What arrived is held in a file without a name, so that an upload that nobody finishes leaves nothing behind.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import anyio

from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.errors import ConflictError, ExhaustedError, PathNotFoundError, SandboxdError
from agent_sandbox.sandboxd.files import FileSink

OPEN_AT_ONCE: Final = 64
IDLE_SECONDS: Final = 3600.0
"""How long an upload waits for its next part, and how long a finished one is remembered."""

ABANDONED_SECONDS: Final = 60.0
"""How long an upload waits for its next part while others want its place."""


@dataclass(eq=False)
class Upload:
    """One upload on its way, or finished."""

    path: str
    sink: FileSink | None
    touched: float
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    size: int = 0

    @property
    def offset(self) -> int:
        """Where the next part begins; of a finished upload, its size."""
        return self.size if self.sink is None else self.sink.received


class Uploads:
    """All uploads in parts.

    Args:
        limit: most bytes of one file; None means no limit.
    """

    def __init__(self, confinement: Confinement, *, limit: int | None) -> None:
        self._confinement = confinement
        self._limit = limit
        self._uploads: dict[str, Upload] = {}

    def offset(self, identifier: str) -> tuple[int, bool]:
        """Where the next part of an upload begins, and whether it is finished.

        Raises:
            PathNotFoundError: there is no such upload.
        """
        upload = self._known(identifier)
        return upload.offset, upload.sink is None

    async def add(self, identifier: str, path: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Take a part; gives the offset behind it. What arrived of a part that broke off counts.

        Raises:
            ConflictError: the part does not begin where the upload stands.
            ExhaustedError: too many uploads are on their way.
            DiskFullError, TooLargeError: it cannot be written; the upload is given up.
        """
        upload = await self._named(identifier, path, offset)
        async with upload.lock:
            if offset != upload.offset:
                raise ConflictError(f"upload {identifier} stands at offset {upload.offset}, the part began at {offset}")
            if upload.sink is None:
                return upload.offset
            try:
                async for piece in pieces:
                    await upload.sink.write(piece)
                    upload.touched = anyio.current_time()
            except SandboxdError:
                # Nothing can go on behind what could not be written, and on a full disk it only takes up space.
                self._uploads.pop(identifier, None)
                await upload.sink.close()
                raise
            return upload.offset

    async def finish(self, identifier: str, *, sha256: str | None, mode: int | None) -> int:
        """Let the file appear; gives its size. Finishing again changes nothing.

        Raises:
            ChecksumMismatchError: it arrived damaged; the upload is given up.
            PathNotFoundError: it was given up meanwhile.
        """
        upload = self._known(identifier)
        async with upload.lock:
            if upload.sink is not None:
                try:
                    upload.sink.mode = mode
                    await upload.sink.commit(sha256=sha256)
                except BaseException:
                    self._uploads.pop(identifier, None)
                    raise
                finally:
                    await upload.sink.close()
                upload.size, upload.sink = upload.sink.received, None
            return upload.size

    async def give_up(self, identifier: str) -> None:
        """Discard what arrived.

        Raises:
            PathNotFoundError: there is no such upload.
        """
        upload = self._known(identifier)
        del self._uploads[identifier]
        if upload.sink is not None:
            await upload.sink.close()

    async def close(self) -> None:
        """Discard everything that is not finished."""
        for identifier in list(self._uploads):
            await self.give_up(identifier)

    def _known(self, identifier: str) -> Upload:
        upload = self._uploads.get(identifier)
        if upload is None:
            raise PathNotFoundError(f"no upload {identifier}: it never began, was given up, or the daemon is a new one")
        return upload

    async def _named(self, identifier: str, path: str, offset: int) -> Upload:
        known = self._uploads.get(identifier)
        if known is not None:
            if known.path != path:
                raise ConflictError(f"upload {identifier} is for {known.path!r}, not for {path!r}")
            return known
        if offset:
            raise ConflictError(f"upload {identifier} stands at offset 0, the part began at {offset}")
        await self._forget_idle(IDLE_SECONDS)
        if self._open_uploads() >= OPEN_AT_ONCE:
            await self._forget_idle(ABANDONED_SECONDS)
        if self._open_uploads() >= OPEN_AT_ONCE:
            raise ExhaustedError(f"{OPEN_AT_ONCE} uploads are on their way; finish one, or give one up")
        sink = FileSink(self._confinement, path, limit=self._limit)
        await sink.open()
        upload = self._uploads[identifier] = Upload(path, sink, anyio.current_time())
        return upload

    def _open_uploads(self) -> int:
        return sum(upload.sink is not None for upload in self._uploads.values())

    async def _forget_idle(self, seconds: float) -> None:
        now = anyio.current_time()
        for identifier, upload in list(self._uploads.items()):
            if now - upload.touched > seconds and not upload.lock.locked() and identifier in self._uploads:
                await self.give_up(identifier)
