"""Keeps the log of a stack in the background from growing without end.

The stack's output goes straight to the file, appended by the kernel, so the file is cut in place: what it held becomes
``stack.log.1``, and lines written in between may be lost.
"""

import os
import shutil
from pathlib import Path
from typing import Final

import anyio.to_thread
import structlog

from agent_sandbox.clock import Clock

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 20 * 1024 * 1024
_PERIOD: Final = 60.0
_STDERR: Final = 2


async def keep_bounded(path: Path, clock: Clock, *, max_bytes: int = MAX_BYTES) -> None:
    """Cut the log when it exceeds ``max_bytes``, until cancelled; returns at once if our output goes elsewhere."""
    while await anyio.to_thread.run_sync(_is_our_output, path):
        await anyio.to_thread.run_sync(cut, path, max_bytes)
        await clock.sleep(_PERIOD)


def _is_our_output(path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(_STDERR), path.stat())
    except OSError:
        return False


def cut(path: Path, max_bytes: int) -> bool:
    """Move what a log holds to ``<name>.1`` if it is too much; False if it is not, or the disk has no room for that."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    except OSError as error:
        log.warning("the stack's log is not kept before it is cut", error=str(error))
    os.truncate(path, 0)
    return True
