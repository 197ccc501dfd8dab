"""Large files up and down: in pieces, checked, and continued where they were broken off."""

import hashlib
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import anyio
import anyio.to_thread

from agent_sandbox.sdk.errors import (
    RequestTimeoutError,
    SandboxConnectionError,
    SandboxError,
    SandboxFileNotFoundError,
    SandboxOutcomeUnknownError,
    SandboxProtocolError,
    SandboxRequestError,
)
from agent_sandbox.sdk.results import ProgressCallback
from agent_sandbox.sdk.wire import Wire, encode_path, payload

CHUNK: Final = 1 << 18
"""Bytes handled at once; memory stays at a few of these, whatever the size of the file."""

PART: Final = 8 * 2**20
"""Bytes per request of an upload: what is sent again at most when a connection breaks."""

ATTEMPTS: Final = 5
"""Broken connections in a row, without any progress between them, after which a transfer gives up."""

CONFLICT: Final = 409
"""The status of a part at another place than the sandbox expects, as when it arrived twice."""

_IDLE_SECONDS: Final = 60.0
_PART_SECONDS: Final = 300.0
_PAUSE: Final = 0.3
_BROKEN: Final = (SandboxConnectionError, SandboxOutcomeUnknownError, RequestTimeoutError)


class OpenSource(Protocol):
    """Something that is being uploaded."""

    mode: str | None

    async def read(self, offset: int, size: int) -> bytes:
        """The next bytes; fewer than asked for only at the end.

        Raises:
            SandboxOutcomeUnknownError: the source cannot go back to that offset.
        """


@dataclass
class BytesSource:
    """Content in memory."""

    data: bytes
    mode: str | None

    async def read(self, offset: int, size: int) -> bytes:
        """A part of it."""
        return self.data[offset : offset + size]


@dataclass
class FileSource:
    """A local file."""

    descriptor: int
    mode: str | None

    async def read(self, offset: int, size: int) -> bytes:
        """A part of it."""
        return await anyio.to_thread.run_sync(os.pread, self.descriptor, size, offset)


class PiecesSource:
    """Pieces as they come. The last part is kept, so that it can be sent again."""

    def __init__(self, pieces: AsyncIterator[bytes], mode: str | None) -> None:
        self.mode = mode
        self._pieces = pieces
        self._kept = b""
        self._kept_from = 0

    async def read(self, offset: int, size: int) -> bytes:
        """A part of it; not earlier than the part before."""
        if offset < self._kept_from:
            raise SandboxOutcomeUnknownError("the upload broke, and its source cannot be read again from there")
        buffer = bytearray(self._kept[offset - self._kept_from :])
        while len(buffer) < size:
            piece = await anext(self._pieces, None)
            if piece is None:
                break
            buffer += piece
        self._kept, self._kept_from = bytes(buffer), offset
        return self._kept[:size]


@asynccontextmanager
async def open_source(source: Any, mode: str | None) -> AsyncIterator[OpenSource]:
    """Open what is to be uploaded.

    Raises:
        OSError: the local file cannot be read.
        TypeError: it is nothing that can be uploaded.
    """
    match source:
        case bytes() | bytearray() | memoryview():
            yield BytesSource(bytes(source), mode)
        case str():
            yield BytesSource(source.encode(), mode)
        case Path():
            descriptor = await anyio.to_thread.run_sync(os.open, source, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                yield FileSource(descriptor, mode or f"{status.st_mode & 0o777:04o}")
            finally:
                os.close(descriptor)
        case AsyncIterable():
            yield PiecesSource(aiter(source), mode)
        case Iterable():
            yield PiecesSource(_in_threads(iter(source)), mode)
        case _:
            raise TypeError(
                f"a {type(source).__name__} cannot be uploaded: give bytes, text, a Path or pieces of bytes"
            )


async def _in_threads(pieces: Any) -> AsyncIterator[bytes]:
    """Pieces of an iterator that may block."""
    while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece


class Upload:
    """One upload: parts of a temporary file in the sandbox, which gets its name with the last one."""

    def __init__(self, wire: Wire, source: OpenSource, path: str, on_progress: ProgressCallback | None) -> None:
        self._wire = wire
        self._source = source
        self._path = path
        self._progress = on_progress
        self._id = secrets.token_hex(16)
        self._digest = hashlib.sha256()
        self._digested = 0

    async def send(self) -> int:
        """Send everything; returns the size."""
        offset = failures = 0
        while True:
            part = await self._source.read(offset, PART)
            last = len(part) < PART
            self._add_to_digest(part, offset)
            try:
                await self._send_part(part, offset, last=last)
            except (*_BROKEN, SandboxRequestError) as error:
                if isinstance(error, SandboxRequestError) and error.status != CONFLICT:
                    raise
                known = await self._known_offset(last=last)
                failures = 0 if known > offset else failures + 1
                if failures >= ATTEMPTS:
                    raise
                offset = known
                await anyio.sleep(_PAUSE)
                continue
            failures = 0
            offset += len(part)
            if self._progress is not None:
                await call(self._progress, offset)
            if last:
                return offset

    def _add_to_digest(self, part: bytes, offset: int) -> None:
        new = part[max(0, self._digested - offset) :]
        self._digest.update(new)
        self._digested += len(new)

    async def _send_part(self, part: bytes, offset: int, *, last: bool) -> None:
        query = {"path": self._path, "offset": str(offset)}
        if last:
            query |= {"final": "true", "sha256": self._digest.hexdigest()}
            if self._source.mode is not None:
                query["mode"] = self._source.mode
        await self._wire.request(
            "PUT",
            f"v1/uploads/{self._id}",
            timeout=_PART_SECONDS,
            query=query,
            body=lambda: payload(part),
            headers={"Content-Type": "application/octet-stream"},
        )

    async def _known_offset(self, *, last: bool) -> int:
        """How much the sandbox has. After the last part it may have finished and forgotten the upload."""
        try:
            answer = await self._wire.request("GET", f"v1/uploads/{self._id}", timeout=30)
            return int(answer.json()["offset"])
        except SandboxFileNotFoundError:
            if last:
                raise SandboxOutcomeUnknownError(
                    f"uploading {self._path!r}: the connection broke while the file was given its name; "
                    "look whether it is there"
                ) from None
            return 0
        except (KeyError, TypeError, ValueError) as error:
            raise SandboxProtocolError("the daemon does not say how much of the upload it has") from error


def partial_of(target: Path) -> Path:
    """Where an unfinished download is kept."""
    return target.with_name(f".{target.name}.partial")


class Download:
    """One download: a hidden file beside the target, which is continued and takes its name when it is right."""

    def __init__(self, wire: Wire, path: str, target: Path, on_progress: ProgressCallback | None) -> None:
        self._wire = wire
        self._path = path
        self._target = target
        self._partial = partial_of(target)
        self._progress = on_progress
        self._tag = ""

    async def receive(self) -> int:
        """Receive everything; returns the size."""
        await anyio.Path(self._target.parent).mkdir(parents=True, exist_ok=True)
        if not await self._wire.speaks_v1():
            # Nothing would tell whether what an earlier call left is part of the same content.
            await anyio.Path(self._partial).unlink(missing_ok=True)
        failures, most = 0, await self._size()
        while True:
            try:
                await self._receive_rest()
            except _BROKEN:
                size = await self._size()
                failures = 0 if size > most else failures + 1
                most = max(most, size)
                if failures >= ATTEMPTS:
                    raise
                await anyio.sleep(_PAUSE)
                continue
            if await self._check():
                await anyio.Path(self._partial).replace(self._target)
                return (await anyio.Path(self._target).stat()).st_size
            await anyio.Path(self._partial).unlink()  # the file changed between two attempts: begin again
            most = 0
            failures += 1
            if failures >= ATTEMPTS:
                raise SandboxProtocolError(f"downloading {self._path!r}: the checksum is wrong again and again")

    async def _size(self) -> int:
        try:
            return (await anyio.Path(self._partial).stat()).st_size
        except FileNotFoundError:
            return 0

    async def _receive_rest(self) -> None:
        """Append what is missing; a file that has become another one is begun anew."""
        offset = await self._size()
        if not self._tag and not await self._wire.speaks_v1():
            offset = 0  # neither a tag nor a checksum would tell that this is another content by now
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._tag:
                headers["If-Range"] = self._tag
        async with self._wire.stream(
            "GET",
            f"download/{encode_path(self._path)}",
            timeout=None,
            read_timeout=_IDLE_SECONDS,
            headers=headers,
            accept=frozenset({416}),
        ) as response:
            if response.status == 416:  # there is no more
                return
            tag = response.headers.get("ETag", "")
            self._tag = "" if tag.startswith("W/") else tag
            await self._append(response, 0 if response.status == 200 else offset)

    async def _append(self, response: aiohttp.ClientResponse, offset: int) -> None:
        async with await anyio.open_file(self._partial, "ab") as file:
            await file.truncate(offset)
            try:
                async for piece in response.content.iter_chunked(CHUNK):
                    await file.write(piece)
                    offset += len(piece)
                    if self._progress is not None:
                        await call(self._progress, offset)
            except TimeoutError as error:
                raise RequestTimeoutError(f"downloading {self._path!r}: nothing came for a while") from error
            except aiohttp.ClientError as error:
                raise SandboxOutcomeUnknownError(
                    f"downloading {self._path!r}: the connection broke ({error})"
                ) from error

    async def _check(self) -> bool:
        """Compare with the sandbox's checksum, where it has one."""
        if not await self._wire.speaks_v1():
            return True
        try:
            answer = await self._wire.request(
                "HEAD", f"v1/files/{encode_path(self._path)}", timeout=_PART_SECONDS, query={"checksum": "sha256"}
            )
        except SandboxRequestError as error:
            raise SandboxError(f"downloading {self._path!r}: it vanished meanwhile: {error}") from error
        expected = answer.headers.get("X-Content-SHA256")
        return expected is None or expected == await anyio.to_thread.run_sync(sha256_of, self._partial)


def sha256_of(path: Path) -> str:
    """The checksum of a local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


async def call(callback: ProgressCallback, value: int) -> None:
    """Call a callback that may be an async function."""
    result = callback(value)
    if hasattr(result, "__await__"):
        await result


__all__ = ["CHUNK", "Download", "Upload", "open_source", "partial_of", "sha256_of"]
