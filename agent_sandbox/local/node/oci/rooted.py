"""Where a path leads in an image's files, its links followed as behind a changed root."""

import os
from pathlib import Path
from typing import Final

from agent_sandbox.local.node.errors import ContainerError

MAX_LINKS: Final = 40
"""Links followed in one path, as Linux does."""


def path_in_image(root: Path, path: str) -> str:
    """The absolute path without links and ``..`` that ``path`` means to a program of the image. Blocks.

    What mounts something there follows links as the machine does: to it an image's ``/d -> /oldroot/home`` is the
    machine's home. Nobody may be changing the image's files meanwhile.

    Args:
        root: the image's files.
        path: what is meant; what does not exist is taken for a directory yet to be made.

    Raises:
        ContainerError: links lead in a circle.
    """
    done: list[str] = []
    waiting = path.split("/")[::-1]
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        try:
            link = os.readlink(root.joinpath(*done, part))  # noqa: PTH115 - the text of the link is wanted, not a path
        except OSError:
            done.append(part)  # no link, or nothing yet
            continue
        links += 1
        if links > MAX_LINKS:
            raise ContainerError("CreateContainerConfigError", f"{path!r} leads through the image's links in a circle")
        if link.startswith("/"):
            done = []
        waiting += link.split("/")[::-1]
    return "/" + "/".join(done)
