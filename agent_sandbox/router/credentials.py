"""Tokens and keys in files that may change while the router runs: read again when they do, so they rotate without a
restart.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import anyio
import anyio.to_thread

from agent_sandbox.router.errors import RouterConfigError

CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks at a file: a wrong token never makes the router read files faster."""

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """A file's content, read again when it changes.

    Args:
        read: makes the content; raises `RouterConfigError` for a file that is no good. Called in a thread.

    Raises:
        RouterConfigError: the file is no good at the start. Later, what was good before stays in force.
    """

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self._path = path
        self._read = read
        self._next_check = 0.0
        self._seen = self._look_blocking()
        self._content = read(path)

    async def get(self) -> T:
        """The content, at most a second old."""
        now = anyio.current_time()
        if now >= self._next_check:
            self._next_check = now + CHECK_INTERVAL
            await anyio.to_thread.run_sync(self._refresh_blocking)
        return self._content

    def _refresh_blocking(self) -> None:
        try:
            seen = self._look_blocking()
            if seen != self._seen:
                self._content, self._seen = self._read(self._path), seen
        except RouterConfigError:
            # It is being replaced, or was emptied: what was good a moment ago stays good.
            return

    def _look_blocking(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise RouterConfigError(f"cannot read {self._path}: {error.strerror}") from error
        return status.st_mtime_ns, status.st_ino, status.st_size


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """The tokens in a file, one per line; empty lines and lines that start with # do not count. Blocks.

    Raises:
        RouterConfigError: the file cannot be read or has no token.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RouterConfigError(f"cannot read the token file {path}: {error.strerror}") from error
    tokens = tuple(line.strip() for line in lines if line.strip() and not line.startswith(b"#"))
    if not tokens:
        raise RouterConfigError(f"the token file {path} contains no token")
    return tokens
