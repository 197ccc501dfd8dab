"""Searches a tree, as a process of its own: a pattern that never ends can be killed, and cannot hold the daemon up.

Run as a script with nothing but the standard library. In: one JSON object on standard input (name, content, limit); the
tree is the working directory. Out: one JSON object per match on standard output.
"""

import fnmatch
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any

MAX_LINE = 4096
SNIFFED = 8192


def main() -> int:
    """Search; 2 says that the pattern is none."""
    wanted = json.load(sys.stdin)
    try:
        pattern = re.compile(wanted["content"].encode()) if wanted["content"] else None
    except re.error as error:
        sys.stderr.write(str(error))
        return 2
    left = wanted["limit"]
    for match in _matches(wanted["name"], pattern):
        sys.stdout.write(json.dumps(match) + "\n")
        left -= 1
        if not left:
            break
    return 0


def _matches(name: str, pattern: "re.Pattern[bytes] | None") -> Iterator[dict[str, Any]]:
    for directory, directories, files, descriptor in os.fwalk("."):
        directories.sort()
        for file in sorted(files if pattern is not None else [*files, *directories]):
            if name and not fnmatch.fnmatchcase(file, name):
                continue
            path = f"{directory}/{file}".removeprefix("./")
            if pattern is None:
                yield {"path": path}
            else:
                yield from _lines(path, file, descriptor, pattern)


def _lines(path: str, file: str, directory: int, pattern: "re.Pattern[bytes]") -> Iterator[dict[str, Any]]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags, dir_fd=directory)
    except OSError:
        return  # A link, or gone, or not ours to read.
    with os.fdopen(descriptor, "rb") as content:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or b"\0" in content.read(SNIFFED):
            return
        content.seek(0)
        for number, line in enumerate(content, 1):
            if pattern.search(line):
                yield {"path": path, "line": number, "text": line[:MAX_LINE].rstrip(b"\r\n").decode(errors="replace")}


if __name__ == "__main__":
    sys.exit(main())
