"""Finds files by name and lines by content, in a process that has a deadline."""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import anyio

from agent_sandbox.sandboxd.child import Launch, StartError, start_child
from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.environment import inherited_environment
from agent_sandbox.sandboxd.errors import InvalidRequestError, SandboxdError
from agent_sandbox.sandboxd.execution import Capture
from agent_sandbox.sandboxd.reaper import Reaper
from agent_sandbox.sandboxd.threads import in_thread

DEADLINE: Final = 30.0
MAX_RESULT: Final = 16 * 1024 * 1024
_WORKER: Final = str(Path(__file__).with_name("search_worker.py"))
_BAD_PATTERN: Final = 2


async def search(
    confinement: Confinement, reaper: Reaper, path: str, *, name: str, content: str, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Search below a directory; gives matches, and whether there may be more of them.

    Args:
        name: glob for file names; empty for all.
        content: regular expression for lines; empty to find files.

    Raises:
        InvalidRequestError: the expression is none.
        PathNotFoundError: there is no such directory.
    """
    opened = confinement.open(path, os.O_RDONLY | os.O_DIRECTORY)
    directory = await in_thread(opened.__enter__)
    out, err = Capture(MAX_RESULT), Capture(4096)
    try:
        launch = Launch(
            argv=[sys.executable, "-I", "-S", _WORKER],
            # The open directory itself: its path may mean something else by now.
            cwd=f"/proc/{os.getpid()}/fd/{directory}",
            environment=inherited_environment(),
            stdin=json.dumps({"name": name, "content": content, "limit": limit + 1}).encode(),
        )
        child = await start_child(launch, reaper, on_stdout=out.feed, on_stderr=err.feed)
    except StartError as error:
        raise SandboxdError(f"the search did not start: {error}") from error
    finally:
        opened.__exit__(None, None, None)
    try:
        with anyio.move_on_after(DEADLINE):
            await child.wait()
            await child.wait_for_output(1.0)
    finally:
        child.kill()
    if child.returncode == _BAD_PATTERN:
        raise InvalidRequestError(f"content is no regular expression: {err.seal().decode(errors='replace')}")
    whole = child.returncode == 0 and not out.truncated
    lines = out.seal().splitlines(keepends=True)
    matches = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return matches[:limit], not whole or len(matches) > limit
