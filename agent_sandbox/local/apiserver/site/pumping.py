"""Carries bytes from a Pod's port to a client."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import ByteStream

_CHUNK: Final = 32 * 1024


async def pump(source: ByteStream, send: Callable[[bytes], Awaitable[None]]) -> None:
    """Hand every chunk to ``send`` until the source ends or breaks."""
    while True:
        try:
            chunk = await source.receive(_CHUNK)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        await send(chunk)


async def write(target: ByteStream, data: bytes) -> bool:
    """Write to a Pod's port; False if it has closed."""
    try:
        await target.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return False
    return True


def refused(port: int, pod: str, error: OSError) -> str:
    """What a client is told when nothing listens on a port."""
    return f"error forwarding port {port} to pod {pod}: {error.strerror or error}"
