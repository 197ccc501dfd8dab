"""Reads containers' logs back from their files: tail, since, follow, previous."""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import anyio
import anyio.to_thread

from agent_sandbox.clock import Clock

_FOLLOW_PAUSE: Final = 0.1
_CHUNK_LINES: Final = 500


@dataclass(frozen=True)
class LogQuery:
    """Which part of a log is wanted; see ``v1.PodLogOptions``."""

    tail_lines: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None
    follow: bool = False


def run_files(directory: Path) -> list[Path]:
    """Log files of a container's runs, the oldest run first; rotated ones are not among them."""
    if not directory.is_dir():
        return []
    return sorted(directory.glob("*.log"), key=lambda path: int(path.stem))


def remove_old_runs(directory: Path, *, keep: int) -> None:
    """Remove the logs of all runs but the latest, so that a container that never stops failing fills no disk."""
    for path in run_files(directory)[:-keep]:
        for part in _with_rotated(path):
            part.unlink(missing_ok=True)


def _with_rotated(path: Path) -> list[Path]:
    rotated = sorted(path.parent.glob(f"{path.name}.*"), key=lambda entry: -int(entry.suffix[1:]))
    return [*rotated, path]


def shown(line: bytes, query: LogQuery) -> bytes | None:
    """A line of the file as the reader wants it; None if it is too old or damaged."""
    parts = line.split(b" ", 3)
    if len(parts) != 4:
        return None
    stamp, _, tag, text = parts
    if query.since is not None and _moment(stamp) < query.since:
        return None
    if tag == b"P":
        text = text.removesuffix(b"\n")
    return stamp + b" " + text if query.timestamps else text


def _moment(stamp: bytes) -> datetime:
    # datetime knows microseconds only.
    return datetime.fromisoformat(stamp[:26].decode() + "+00:00")


class _Tail:
    """An open log file that may be rotated away under us."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._rest = b""

    def lines(self) -> list[bytes]:
        """Complete lines that came since the last call, a bounded number of them."""
        found: list[bytes] = []
        while len(found) < _CHUNK_LINES:
            line = self._file.readline()
            if not line:
                if not self._did_rotate():
                    break
                continue
            self._rest += line
            if self._rest.endswith(b"\n"):
                found.append(self._rest)
                self._rest = b""
        return found

    def _did_rotate(self) -> bool:
        try:
            if self._path.stat().st_ino == self._inode():
                return False
            self._file.close()
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return False
        return True

    def _inode(self) -> int:
        return os.fstat(self._file.fileno()).st_ino

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _past(path: Path, query: LogQuery) -> tuple[list[bytes], _Tail]:
    """What the log holds now, cut as the query says, and the file positioned behind it."""
    *old, current = _with_rotated(path)
    lines: deque[bytes] = deque(maxlen=query.tail_lines)
    for entry in old:
        with entry.open("rb") as file:
            lines.extend(text for line in file if (text := shown(line, query)) is not None)
    tail = _Tail(current)
    while piece := tail.lines():
        lines.extend(text for line in piece if (text := shown(line, query)) is not None)
    return list(lines), tail


async def read_log(path: Path, query: LogQuery, clock: Clock, is_open: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log of one run, in pieces.

    Args:
        path: its file.
        query: the part that is wanted.
        clock: for the pauses while following.
        is_open: whether the container may still print; following ends when it may not.
    """
    left = query.limit_bytes
    lines, tail = await anyio.to_thread.run_sync(_past, path, query)
    try:
        while True:
            data = b"".join(lines)
            if left is not None:
                data = data[:left]
                left -= len(data)
            if data:
                yield data
            if left == 0 or not query.follow:
                return
            alive = is_open()
            fresh = await anyio.to_thread.run_sync(tail.lines)
            lines = [text for line in fresh if (text := shown(line, query)) is not None]
            if not fresh:
                if not alive:
                    return
                await clock.sleep(_FOLLOW_PAUSE)
    finally:
        tail.close()
