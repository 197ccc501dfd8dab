"""Who we are to the API server: bearer tokens that may change while we run."""

from pathlib import Path
from typing import Final, Protocol

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.kube.errors import ConfigError

TOKEN_FILE_LIFETIME: Final = 60.0
"""Seconds between two readings of a projected token, as client-go; the kubelet rotates it long before it expires."""


class Credentials(Protocol):
    """Gives the value of the ``Authorization`` header."""

    async def authorization(self) -> str | None:
        """The header's value now, or None for a client certificate or none at all."""

    async def refresh(self) -> bool:
        """The server said 401. Read again; True if it is worth another try."""


class StaticToken:
    """A token that never changes."""

    def __init__(self, token: str | None) -> None:
        self._header = f"Bearer {token}" if token else None

    async def authorization(self) -> str | None:
        """The header's value."""
        return self._header

    async def refresh(self) -> bool:
        """There is nothing to read again."""
        return False


class TokenFile:
    """A token in a file that somebody else rotates: read each minute and on 401."""

    def __init__(self, path: Path, *, clock: Clock, lifetime: float = TOKEN_FILE_LIFETIME) -> None:
        self._path = path
        self._clock = clock
        self._lifetime = lifetime
        self._header: str | None = None
        self._read_at = 0.0

    async def authorization(self) -> str | None:
        """The header's value, at most a minute old."""
        if self._header is None or self._clock.monotonic() - self._read_at >= self._lifetime:
            await self._read()
        return self._header

    async def refresh(self) -> bool:
        """Read the file again; True if the token is another one now."""
        before = self._header
        await self._read()
        return self._header != before

    async def _read(self) -> None:
        try:
            token = (await anyio.Path(self._path).read_text()).strip()
        except OSError as error:
            if self._header is not None:
                return  # being replaced just now: the old token lives a while longer
            raise ConfigError(f"the token file {self._path} cannot be read: {error}") from error
        self._header = f"Bearer {token}"
        self._read_at = self._clock.monotonic()
