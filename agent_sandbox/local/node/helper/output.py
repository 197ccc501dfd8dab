"""What containers print: bounded files in the kubelet's own format, written by the helper, so that nothing is lost and
nobody has to wait while no node is there.

In: the read ends of a process's stdout and stderr. Out: lines ``<time> <stream> <F|P> <text>`` in a file per container
run, at most ``keep`` files of ``max_bytes`` each; copies, as they come, for whoever is attached.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from selectors import EVENT_READ, BaseSelector

MAX_BYTES = 10 * 1024 * 1024
"""Size at which a file is rotated; the kubelet's containerLogMaxSize."""

KEEP_FILES = 2
"""Files of one container run; the kubelet keeps 5, a laptop has less room."""

_CHUNK = 32768
"""Bytes read at once: with the costliest content, nothing but ends of lines, a request waits some 5 ms for it."""

_MAX_LINE = 16384
_HEAD = 4096
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def format_moment(moment: datetime) -> str:
    """RFC 3339 with nanoseconds, as container runtimes write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


class LogFile:
    """The log of one container run.

    Its directory is held by a descriptor, because the helper has mounts of its own and may not see paths of the host.
    """

    def __init__(self, directory: int, name: str, *, max_bytes: int = MAX_BYTES, keep: int = KEEP_FILES) -> None:
        """
        Args:
            directory: descriptor of its directory; this object makes its own copy.
            name: of the file.
            max_bytes: size at which it is rotated.
            keep: how many files there may be, this one among them.

        Raises:
            OSError: it cannot be opened.
        """
        self._name = name
        self._max_bytes = max_bytes
        self._keep = keep
        self._rest = {"stdout": b"", "stderr": b""}
        self._directory = os.dup(directory)
        try:
            self._file = os.open(name, _FLAGS, 0o600, dir_fd=self._directory)
        except OSError:
            os.close(self._directory)
            raise
        self._size = os.fstat(self._file).st_size

    def append(self, stream: str, data: bytes, moment: datetime) -> None:
        """Write what a stream printed, line by line; an unfinished line waits for its end."""
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
        self.abandon()

    def abandon(self) -> None:
        """Close without a word."""
        os.close(self._directory)
        if self._file != -1:
            os.close(self._file)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            if view and (self._file == -1 or (self._size and self._size + len(view) > self._max_bytes)):
                self._rotate()
            while view:
                written = os.write(self._file, view)
                self._size += written
                view = view[written:]
        except OSError:
            return  # a full disk costs log lines, never the container

    def _rotate(self) -> None:
        if self._file != -1:
            os.close(self._file)
            self._file = -1
        names = [self._name, *(f"{self._name}.{number}" for number in range(1, self._keep))]
        for newer, older in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                os.replace(newer, older, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._file = os.open(self._name, _FLAGS | os.O_TRUNC, 0o600, dir_fd=self._directory)
        self._size = 0


class Output:
    """The output of one process, copied to its log until its last writer is gone."""

    def __init__(self, selector: BaseSelector, log: LogFile, pipes: dict[str, int], ended: Callable[[], None]) -> None:
        """
        Args:
            selector: where the pipes are waited for.
            log: where to write; closed at the end.
            pipes: read ends by ``stdout`` and ``stderr``, or the one side of a terminal as ``stdout``; owned by us.
            ended: called once, after everything is in the log.
        """
        self._selector = selector
        self._log = log
        self._pipes = dict(pipes)
        self._ended = ended
        self._listeners: dict[str, set[int]] = {"stdout": set(), "stderr": set()}
        self.head = b""
        """The first bytes of stderr: where bwrap says why it could not start the command."""
        for stream, fd in pipes.items():
            selector.register(fd, EVENT_READ, lambda _, stream=stream: self._copy(stream))

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return bool(self._pipes)

    def listen(self, stdout: int, stderr: int) -> None:
        """Copy what comes from now on to two pipes, owned by us; one that is full loses what it has no room for."""
        for stream, fd in (("stdout", stdout), ("stderr", stderr)):
            os.set_blocking(fd, False)
            self._listeners[stream].add(fd)
        if not self._pipes:
            self._close_listeners()

    def _copy(self, stream: str) -> None:
        try:
            data = os.read(self._pipes[stream], _CHUNK)
        except OSError:  # EIO: the last process has closed its side of a terminal
            data = b""
        if not data:
            self._close(stream)
            return
        if stream == "stderr" and len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        self._log.append(stream, data, datetime.now(UTC))
        for listener in tuple(self._listeners[stream]):
            try:
                os.write(listener, data)
            except BlockingIOError:
                continue
            except OSError:  # he has gone
                self._listeners[stream].remove(listener)
                os.close(listener)

    def _close(self, stream: str) -> None:
        fd = self._pipes.pop(stream)
        self._selector.unregister(fd)
        os.close(fd)
        if not self._pipes:
            self._log.finish(datetime.now(UTC))
            self._close_listeners()
            self._ended()

    def _close_listeners(self) -> None:
        for listeners in self._listeners.values():
            while listeners:
                os.close(listeners.pop())

    def abandon(self) -> None:
        """Read no more: the process has ended, and whoever holds its output open is none of ours."""
        for stream in tuple(self._pipes):
            self._close(stream)
