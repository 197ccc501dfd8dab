"""Logs of containers: bounded files in the kubelet's own format, written by one thread for all containers.

In: the read ends of containers' stdout and stderr. Out: lines ``<time> <stream> <F|P> <text>`` in a file per container
run, at most ``keep`` files of ``max_bytes`` each. A thread of its own, because a container that prints without pause
must not slow the event loop down.
"""

import os
import selectors
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from agent_sandbox.clock import Clock

MAX_BYTES: Final = 10 * 1024 * 1024
"""Size at which a file is rotated; the kubelet's containerLogMaxSize."""

KEEP_FILES: Final = 2
"""Files of one container run; the kubelet keeps 5, a laptop has less room."""

_CHUNK: Final = 65536
_MAX_LINE: Final = 16384
_HEAD: Final = 4096


def format_moment(moment: datetime) -> str:
    """RFC 3339 with nanoseconds, as container runtimes write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


Listener = Callable[[str, bytes], None]
"""``stdout`` or ``stderr``, and what was printed. Called in the log thread: must return at once."""


class LogFile:
    """The log of one container run. Used by the log thread alone, except for ``head`` and ``listeners``."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP_FILES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._rest = {"stdout": b"", "stderr": b""}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path.open("ab")
        self._size = self._file.tell()
        self.head = b""
        """The first bytes of stderr: where bwrap says why it could not start the command."""
        self.listeners: set[Listener] = set()
        """Told what was printed, as it was, by the log thread."""

    def append(self, stream: str, data: bytes, moment: datetime) -> None:
        """Write what a stream printed, line by line; an unfinished line waits for its end."""
        for listener in tuple(self.listeners):
            listener(stream, data)
        if stream == "stderr" and len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        stamp = format_moment(moment).encode() + b" " + stream.encode()
        out = [stamp + b" F " + line + b"\n" for line in lines]
        while len(rest) >= _MAX_LINE:
            out.append(stamp + b" P " + rest[:_MAX_LINE] + b"\n")
            rest = rest[_MAX_LINE:]
        self._rest[stream] = rest
        self._write(b"".join(out))

    def finish(self, moment: datetime) -> None:
        """Write unfinished lines and close."""
        for stream, rest in self._rest.items():
            if rest:
                self._write(f"{format_moment(moment)} {stream} F ".encode() + rest + b"\n")
        self._file.close()

    def _write(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._file.closed or (self._size and self._size + len(data) > self._max_bytes):
                self._rotate()
            self._file.write(data)
            self._file.flush()
        except OSError:
            return  # a full disk costs log lines, never the container
        self._size += len(data)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._keep - 1, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            with suppress(FileNotFoundError):
                older.replace(self.path.with_name(f"{self.path.name}.{number}"))
        self._file = self.path.open("wb")
        self._size = 0


@dataclass(eq=False)
class _Capture:
    """Two pipes that end in one file."""

    file: LogFile
    open_pipes: int
    on_end: Callable[[], None]


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # EIO: the last process has closed its side of a terminal
        return b""


class LogThread:
    """Copies containers' output to their files until told to stop; ``run`` is its body.

    Guarantees: ``on_end`` is called, in this thread, after everything that a container printed is in its file.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._new: deque[tuple[int, str, _Capture]] = deque()
        self._stopping = False

    def capture(self, stdout: int, stderr: int | None, file: LogFile, on_end: Callable[[], None]) -> None:
        """Take over two read ends, or the one of a terminal; callable from any thread."""
        capture = _Capture(file, 1 if stderr is None else 2, on_end)
        self._new.append((stdout, "stdout", capture))
        if stderr is not None:
            self._new.append((stderr, "stderr", capture))
        os.write(self._wake_write, b"n")

    def stop(self) -> None:
        """Let ``run`` return after copying what is already there; callable from any thread."""
        self._stopping = True
        os.write(self._wake_write, b"s")

    def run(self) -> None:
        """Copy until stopped."""
        try:
            while not self._stopping:
                self._step(None)
            self._step(0)
        finally:
            self._accept()
            for key in list(self._selector.get_map().values()):
                if key.data is not None:
                    self._end(key.fd, key.data[1])
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _step(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._accept()
                continue
            stream, capture = key.data
            data = _read(key.fd)
            if data:
                capture.file.append(stream, data, self._clock.now())
            else:
                self._end(key.fd, capture)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, _CHUNK)
        while self._new:
            fd, stream, capture = self._new.popleft()
            self._selector.register(fd, selectors.EVENT_READ, (stream, capture))

    def _end(self, fd: int, capture: _Capture) -> None:
        self._selector.unregister(fd)
        os.close(fd)
        capture.open_pipes -= 1
        if capture.open_pipes == 0:
            capture.file.finish(self._clock.now())
            capture.on_end()
