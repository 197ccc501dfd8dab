"""Files over HTTP: which path a request means, and a response that sends an open file."""

import os
from contextlib import ExitStack
from typing import Final, Self
from urllib.parse import parse_qs, quote, unquote_to_bytes

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.files import open_file_blocking
from agent_sandbox.sandboxd.threads import in_thread

ANY_PATH: Final = r"{path:[\s\S]*}"
"""The end of a route that takes every path: a file's name may hold line breaks, which ``.`` does not match."""


def path_after(request: web.Request, prefix: str) -> str:
    """The path behind `prefix`, decoded exactly once; bytes that are no UTF-8 survive."""
    raw = request.raw_path.partition("?")[0]
    _, _, encoded = raw.partition(prefix)
    return os.fsdecode(unquote_to_bytes(encoded))


def path_in_query(request: web.Request) -> str | None:
    """The parameter ``path`` of the query, decoded as the path behind a prefix is; None if it is not there."""
    query = parse_qs(request.raw_path.partition("?")[2], keep_blank_values=True, errors="surrogateescape")
    return query.get("path", [None])[0]


class OpenedFile(web.FileResponse):
    """Sends a file through the descriptor it was opened with: its path is never looked up again.

    Ranges, ETag, Last-Modified and conditional requests work as for any file.
    """

    def __init__(self, descriptor: int, opened: ExitStack, headers: CIMultiDict[str]) -> None:
        super().__init__(f"/proc/self/fd/{descriptor}", chunk_size=256 * 1024, headers=headers)
        self._opened = opened

    @classmethod
    async def open(cls, confinement: Confinement, path: str, headers: dict[str, str] | None = None) -> Self:
        """Open the file at `path`; it is closed once the response was sent.

        Raises:
            PathNotFoundError: there is no regular file.
            PathDeniedError: the path leaves the allowed directories.
        """
        with ExitStack() as opened:
            descriptor = await in_thread(opened.enter_context, open_file_blocking(confinement, path))
            name = quote(os.fsencode(path.rstrip("/").rpartition("/")[2]), safe="")
            all_headers: CIMultiDict[str] = CIMultiDict(headers or {})
            all_headers["Content-Type"] = "application/octet-stream"
            all_headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
            return cls(descriptor, opened.pop_all(), all_headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send everything, then close the file."""
        with self._opened:
            return await super().prepare(request)
