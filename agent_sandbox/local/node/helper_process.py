"""The helper's process: started by a node, outliving it if it is killed, found again by the next one.

A helper listens on a socket in the state directory, which only its user can enter; who listens there is the kernel's
answer, not a guess from names or numbers. As long as it lives it holds a lock beside the socket, so that there is never
a second one.
"""

import fcntl
import hashlib
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from subprocess import DEVNULL
from typing import Final, Self

import anyio
from anyio.abc import Process

from agent_sandbox.local.node.errors import HelperError
from agent_sandbox.local.node.helper import channel

SOCKET: Final = "helper.sock"
"""Its name in the state directory; it is not there where no helper was left behind."""

_LOCK: Final = "helper.lock"
_LOG: Final = "helper.log"
_PROGRAM: Final = Path(__file__).with_name("helper")
_LOCK_ATTEMPTS: Final = 100
_LOCK_PAUSE: Final = 0.05
_END_TIMEOUT: Final = 5.0


@lru_cache(maxsize=1)
def source_digest() -> str:
    """What a helper was started from: one of another version does not understand us."""
    parts = (path.read_bytes() for path in sorted(_PROGRAM.glob("*.py")))
    return hashlib.sha256(b"".join(parts)).hexdigest()


class HelperProcess:
    """A helper that lives, and the channel to it. ``close`` gives both back and leaves it alone."""

    def __init__(self, control: socket.socket, pid: int, state: Path | None, child: Process | None = None) -> None:
        self.control = control
        self.pid = pid
        self._state = state
        self._child = child
        self._pidfd = os.pidfd_open(pid)
        self._descendants: list[int] = []

    @classmethod
    async def start(cls, state: Path | None) -> Self:
        """Start one.

        Args:
            state: where it can be found again; None for one that ends with its node.

        Raises:
            HelperError: an earlier one does not end.
        """
        control, theirs = channel.pair()
        control.setblocking(False)
        fds, log = [theirs.fileno()], None
        try:
            if state is not None:
                lock = await _lock(state)
                fds += [_bind(state), lock]
                log = os.open(state / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            child = await anyio.open_process(
                [sys.executable, "-I", "-S", str(_PROGRAM / "__main__.py"), *map(str, fds)],
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=log,
                pass_fds=fds,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=state is not None,
            )
        except BaseException:
            control.close()
            raise
        finally:
            theirs.close()
            for fd in [*fds[1:], *([] if log is None else [log])]:
                os.close(fd)
        return cls(control, child.pid, state, child)

    @classmethod
    def find(cls, state: Path) -> Self | None:
        """The one that an earlier node left behind, or None."""
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _Place(state) as place:
                control.connect(place)
            channel.widen(control)
            pid, uid, _ = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid() or pid == 0:
                raise PermissionError("somebody else listens there")
            control.setblocking(False)
            return cls(control, pid, state)
        except OSError:  # nobody listens any more, or he ended in this moment
            control.close()
            return None

    def close(self) -> None:
        """Hang up."""
        self.control.close()
        for fd in (self._pidfd, *self._descendants):
            os.close(fd)
        self._descendants.clear()

    def remember_descendants(self) -> None:
        """Look at all processes below it, before it is told to end: they end with it, and are to be waited for."""
        waiting = [self.pid]
        while waiting:
            parent = waiting.pop()
            for child in _children(parent):
                with suppress(OSError):
                    self._descendants.append(os.pidfd_open(child))
                    waiting.append(child)

    async def until_ended(self) -> None:
        """Wait for its end, which was asked for; killed if that takes long. All that it started ends with it."""
        with anyio.move_on_after(_END_TIMEOUT) as scope:
            await anyio.wait_readable(self._pidfd)
        if scope.cancelled_caught:
            self._kill()
            await anyio.wait_readable(self._pidfd)
        if self._child is not None:
            await self._child.wait()
        with anyio.move_on_after(_END_TIMEOUT):  # not for ever: without walls, a descendant may live on
            for fd in self._descendants:
                await anyio.wait_readable(fd)
        self._unlink()

    def join(self) -> None:
        """``until_ended`` with plain calls, for commands beside the stack."""
        if not _wait(self._pidfd):
            self._kill()
            _wait(self._pidfd)
        for fd in self._descendants:
            if not _wait(fd):
                break  # without walls, a descendant may live on
        self._unlink()

    def _unlink(self) -> None:
        if self._state is not None:
            (self._state / SOCKET).unlink(missing_ok=True)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _wait(fd: int) -> bool:
    poll = select.poll()  # select knows no descriptors above 1023, and each descendant has one
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * _END_TIMEOUT))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:  # it has ended, or the kernel does not tell
        return []


class _Place:
    """The path of the socket, by a directory held open: the address of a socket has no more than 108 bytes."""

    def __init__(self, state: Path) -> None:
        self._directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._directory}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)


def _bind(state: Path) -> int:
    (state / SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _Place(state) as place:
        listener.bind(place)
    (state / SOCKET).chmod(0o600)
    return listener.detach()


async def _lock(state: Path) -> int:
    """The lock of the helper's life; one that was told to end may need a moment."""
    fd = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await anyio.sleep(_LOCK_PAUSE)
        else:
            return fd
    os.close(fd)
    raise HelperError("the pod network of an earlier node does not end")


def end_left_behind(state: Path) -> bool:
    """End the helper that a killed node left behind, and with it all its Pods; False if there is none.

    Plain calls, for commands beside the stack. Call it only while no node runs on the directory.
    """
    found = HelperProcess.find(state) if state.is_dir() else None
    if found is None:
        return False
    try:
        found.remember_descendants()
        with suppress(OSError):
            channel.send(found.control, {"id": 0, "op": "end"})
        found.join()
    finally:
        found.close()
    return True
