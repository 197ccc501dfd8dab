"""Who may pass: compares the caller's bearer token with those in a file, without telling by its time how close it was.

The file may change while the router runs: it is read again when its modification time does.
"""

import hmac
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from agent_sandbox.router.errors import RouterConfigError, UnauthenticatedError

CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks at the file: a wrong token never makes the router read files faster."""


class TokenFile:
    """The tokens in a file, one per line; empty lines and lines that start with # do not count.

    Raises:
        RouterConfigError: the file cannot be read or has no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._next_check = 0.0
        self._tokens: tuple[bytes, ...] = ()
        self._read_blocking()

    async def check(self, given: str | None) -> None:
        """Let a caller pass.

        Raises:
            UnauthenticatedError: no token, or none of ours.
        """
        scheme, _, token = (given or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("Missing or invalid X-Sandbox-Authorization header.")
        await self._refresh()
        offered = token.strip().encode("utf-8", "surrogateescape")
        if not any(hmac.compare_digest(offered, known) for known in self._tokens):
            raise UnauthenticatedError("Invalid token.")

    async def _refresh(self) -> None:
        now = anyio.current_time()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_INTERVAL
        try:
            await anyio.to_thread.run_sync(self._read_blocking)
        except RouterConfigError:
            # The file is being replaced, or was emptied: what was good a moment ago stays good.
            return

    def _read_blocking(self) -> None:
        try:
            status = self._path.stat()
            if (seen := (status.st_mtime_ns, status.st_ino)) == self._seen:
                return
            lines = self._path.read_bytes().split(b"\n")
        except OSError as error:
            raise RouterConfigError(f"cannot read the token file {self._path}: {error.strerror}") from error
        tokens = tuple(line.strip() for line in lines if line.strip() and not line.startswith(b"#"))
        if not tokens:
            raise RouterConfigError(f"the token file {self._path} contains no token")
        self._tokens, self._seen = tokens, seen
