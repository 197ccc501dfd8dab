"""Fetches images from Podman or Docker through their socket, whose API both share.

Flow: ``find_engine`` looks where the sockets are; ``ImageEngine`` asks for an image, lets the engine pull it, and saves
it as an archive for the store. Nothing is ever run there.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import anyio

from agent_sandbox.local.node.errors import ImageError

_CHUNK: Final = 1 << 20
_ANSWER_TIMEOUT: Final = 30.0
_PULL_TIMEOUT: Final = 1800.0
_HOST: Final = "http://engine"


@dataclass(frozen=True)
class ImageEngine:
    """Podman or Docker.

    Attributes:
        socket: path of its Unix socket.
    """

    socket: Path

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=_PULL_TIMEOUT, sock_connect=_ANSWER_TIMEOUT)
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(self.socket)), timeout=timeout)

    async def image_id(self, reference: str) -> str | None:
        """The id of an image that the engine has, or None.

        Raises:
            ImageError: the engine does not answer as it should.
        """
        async with self._asking(reference, "GET", f"/images/{quote(reference, safe='/:@')}/json") as answer:
            if answer.status == 404:
                return None
            body = await _json(answer, reference)
        found = str(body["Id"])
        return found if ":" in found else f"sha256:{found}"

    async def pull(self, reference: str) -> None:
        """Let the engine fetch an image from its registry.

        Raises:
            ImageError: it could not; the message is the engine's.
        """
        async with self._asking(reference, "POST", "/images/create", fromImage=reference) as answer:
            if answer.status != 200:
                await _json(answer, reference)
            async for line in answer.content:
                progress = json.loads(line) if line.strip() else {}
                if "error" in progress:
                    raise ImageError(f"{reference}: {progress['error']}")

    async def save(self, reference: str, target: Path) -> None:
        """Write an image, as an archive, to a file.

        Raises:
            ImageError: it could not.
        """
        async with self._asking(reference, "GET", f"/images/{quote(reference, safe='/:@')}/get") as answer:
            if answer.status != 200:
                await _json(answer, reference)
            async with await anyio.open_file(target, "wb") as file:
                async for piece in answer.content.iter_chunked(_CHUNK):
                    await file.write(piece)

    @asynccontextmanager
    async def _asking(
        self, reference: str, method: str, path: str, **parameters: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; what a broken connection says becomes an ``ImageError``."""
        try:
            async with self._session() as session, session.request(method, _HOST + path, params=parameters) as answer:
                yield answer
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TimeoutError) as error:
            message = f"{reference}: the container engine at {self.socket} gave no answer: {error!r}"
            raise ImageError(message) from error


async def _json(answer: aiohttp.ClientResponse, reference: str) -> dict[str, Any]:
    body: dict[str, Any] = await answer.json(content_type=None)
    if answer.status != 200:
        raise ImageError(f"{reference}: {body.get('message') or body.get('cause') or answer.reason}")
    return body


def engine_sockets(environ: Mapping[str, str]) -> list[Path]:
    """Where Podman and Docker listen: named by ``CONTAINER_HOST`` or ``DOCKER_HOST``, or at their usual places."""
    named = [environ.get("CONTAINER_HOST", ""), environ.get("DOCKER_HOST", "")]
    found = [Path(value.removeprefix("unix://")) for value in named if value.startswith("unix://")]
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime, "podman", "podman.sock"))
    if os.geteuid() == 0:
        found.append(Path("/run/podman/podman.sock"))
    return [*found, Path("/var/run/docker.sock")]


def find_engine(environ: Mapping[str, str] | None = None) -> ImageEngine | None:
    """The engine whose socket is there and may be used, or None."""
    for path in engine_sockets(os.environ if environ is None else environ):
        if path.is_socket() and os.access(path, os.R_OK | os.W_OK):
            return ImageEngine(path)
    return None
