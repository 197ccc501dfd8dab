"""Tells what changes below a directory, as the kernel (inotify) tells it.

In: an open directory. Out: events with paths relative to it. New directories are watched as they appear; what happened
in one before it was watched is told as created.
"""

import asyncio
import ctypes
import functools
import os
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio

from agent_sandbox.sandboxd.errors import ExhaustedError
from agent_sandbox.sandboxd.threads import in_thread

_ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ISDIR, _ONLYDIR, _DONT_FOLLOW = 0x4000, 0x8000, 0x40000000, 0x01000000, 0x02000000
_WANTED: Final = _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR | _DONT_FOLLOW
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_EVENT: Final = struct.Struct("iIII")
_KINDS: Final = (
    (_CREATE, "created"),
    (_MOVED_TO, "created"),
    (_DELETE, "deleted"),
    (_MOVED_FROM, "deleted"),
    (_CLOSE_WRITE, "modified"),
    (_ATTRIB, "attributes"),
)
MAX_WAITING: Final = 10_000
"""Events held for a slow reader; more are dropped, and ``overflow`` says so."""


@dataclass(frozen=True)
class FileEvent:
    """One change.

    Attributes:
        kind: ``created``, ``modified`` (written and closed), ``deleted``, ``attributes``, or ``overflow``: some
            changes were missed, look again.
        path: relative to the watched directory.
    """

    kind: str
    path: str


class Watch:
    """An inotify instance: make it, `start` it, take events from `next`, `close` it.

    Args:
        directory: an open directory; it stays the caller's.

    Raises:
        ExhaustedError: the kernel allows no more watches.
    """

    def __init__(self, directory: int, *, recursive: bool) -> None:
        self._recursive = recursive
        self._loop = asyncio.get_running_loop()
        self._descriptor = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise ExhaustedError("the kernel allows no more watches (fs.inotify.max_user_instances)")
        self._paths: dict[int, str] = {}
        self._waiting: deque[FileEvent] = deque()
        self._arrived = anyio.Event()
        self._root = os.dup(directory)

    async def start(self) -> None:
        """Watch from now on."""
        await in_thread(self._add_all_blocking)
        self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        os.close(self._root)

    async def next(self) -> FileEvent:
        """The next change."""
        while not self._waiting:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self._waiting.popleft()

    def _add_all_blocking(self) -> None:
        self._add("")
        if self._recursive:
            for path, is_directory in self._below(""):
                if is_directory:
                    self._add(path)

    def _add(self, path: str) -> None:
        with suppress(OSError), self._opened(path) as directory:
            # With "/." behind it, the link that /proc shows is followed and nothing else is.
            name = os.fsencode(f"/proc/self/fd/{directory}/.")
            number = _libc().inotify_add_watch(self._descriptor, name, _WANTED)
            if number >= 0:
                self._paths[number] = path

    def _below(self, path: str) -> Iterator[tuple[str, bool]]:
        """Everything below a directory of the tree, links not followed."""
        try:
            with self._opened(path) as top:
                walk = [(directory, directories, files) for directory, directories, files, _ in os.fwalk(dir_fd=top)]
        except OSError:
            return
        for directory, directories, files in walk:
            inside = _join(path, directory.removeprefix(".").removeprefix("/"))
            for name in directories:
                yield _join(inside, name), True
            for name in files:
                yield _join(inside, name), False

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """A directory of the tree, reached step by step: one that was swapped for a link meanwhile leads nowhere."""
        descriptor = os.dup(self._root)
        try:
            for part in path.split("/") if path else ():
                inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 64 * 1024)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            self._take(number, mask, name)

    def _take(self, number: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:
            self._tell("overflow", "")
        if mask & _IGNORED:
            self._paths.pop(number, None)
            return
        directory = self._paths.get(number)
        if directory is None or not name:
            return
        path = _join(directory, name)
        for bit, kind in _KINDS:
            if mask & bit:
                self._tell(kind, path)
        if self._recursive and mask & _ISDIR and mask & (_CREATE | _MOVED_TO):
            self._add(path)
            for inside, is_directory in self._below(path):
                self._tell("created", inside)
                if is_directory:
                    self._add(inside)

    def _tell(self, kind: str, path: str) -> None:
        if len(self._waiting) >= MAX_WAITING:
            kind, path = "overflow", ""
            if self._waiting[-1].kind == kind:
                return
        self._waiting.append(FileEvent(kind, path))
        self._arrived.set()


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory and name else directory or name


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
