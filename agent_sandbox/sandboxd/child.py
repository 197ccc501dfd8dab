"""One started command: its process group, its output as it comes, its end.

In: what to run (`Launch`). Out: bytes handed to callbacks on the event loop, and a return code. A command is the leader
of a session of its own, so that it and everything it started can be signalled together. Starting happens in a worker
thread, because fork and exec may block; everything afterwards is driven by readiness of descriptors, without a thread.
"""

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from agent_sandbox.sandboxd.identity import identity_of
from agent_sandbox.sandboxd.reaper import Reaper
from agent_sandbox.sandboxd.terminal import Terminal
from agent_sandbox.sandboxd.threads import in_thread_or_undo

READ_SIZE: Final = 64 * 1024
"""Bytes read from a pipe at once: the capacity of a Linux pipe."""

OnData = Callable[[bytes], None]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What to run.

    Attributes:
        argv: program and arguments; the program is looked up in the PATH of `environment`.
        cwd: working directory.
        environment: all variables.
        stdin: what standard input gives before its end; None is an empty one.
        user: name or number of the user to become; None stays who the daemon is.
    """

    argv: Sequence[str]
    cwd: str
    environment: Mapping[str, str]
    stdin: bytes | None = None
    user: str | int | None = None


class StartError(Exception):
    """The command did not start; nothing of it ran. The message is what the operating system said."""


class Pump:
    """Moves what can be read from a descriptor to a callback, and closes it at the end.

    Attributes:
        ended: set when every writer has closed its end.
    """

    def __init__(self, descriptor: int, on_data: OnData) -> None:
        self.ended = anyio.Event()
        self._descriptor = descriptor
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self._reading = False
        os.set_blocking(descriptor, False)
        self.resume()

    def pause(self) -> None:
        """Stop reading: the command blocks once the pipe is full."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Read again after `pause`."""
        if not self._reading and not self.ended.is_set():
            self._reading = True
            self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Give up what was not read."""
        self.pause()
        if not self.ended.is_set():
            self.ended.set()
            os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # What a terminal says when its last process has gone.
                raise
            data = b""
        if data:
            self._on_data(data)
        else:
            self.close()


class Child:
    """A running or ended command.

    Attributes:
        pid: process identifier, and that of its process group.
        returncode: None while it runs; then the exit code, or the negative number of the signal that ended it.
        exited: set when `returncode` is known.
        pumps: its output, by channel (stdout, stderr; or the terminal alone).
    """

    def __init__(self, pid: int, pumps: Sequence[Pump]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.exited = anyio.Event()
        self.pumps = pumps
        self._kill_rest = False

    def signal(self, number: int, *, group: bool = True) -> bool:
        """Send a signal to the whole process group, or to its leader alone; False if there is nobody to get it."""
        if self.returncode is not None and not (group and self._left_others()):
            return False
        try:
            if group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _left_others(self) -> bool:
        """Whether the group of a leader that has ended may still be ours.

        The kernel gives a number to no new process as long as a group carries it. So if a process has it now, the group
        died before, and that process is a stranger.
        """
        return not os.path.exists(f"/proc/{self.pid}")  # noqa: PTH110 - a system call, not a file

    def kill(self) -> None:
        """Kill the whole process group at once; what the leader leaves behind goes with it."""
        self._kill_rest = True
        self.signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end of the leader and give its return code."""
        await self.exited.wait()
        assert self.returncode is not None
        return self.returncode

    async def wait_for_output(self, grace: float) -> None:
        """Wait until all output was read, at most `grace` seconds: a background process may hold the pipe open."""
        with anyio.move_on_after(grace):
            for pump in self.pumps:
                await pump.ended.wait()

    def on_exit(self, returncode: int) -> None:
        """Called by the reaper, while the leader's number is still taken."""
        if self._kill_rest:
            self.signal(signal.SIGKILL)
        self.returncode = returncode
        self.exited.set()


async def start_child(
    launch: Launch, reaper: Reaper, *, on_stdout: OnData, on_stderr: OnData, stdin: int | None = None
) -> Child:
    """Start a command with pipes for its output.

    Args:
        stdin: descriptor to read input from instead of `launch.stdin`; it stays the caller's.

    Raises:
        StartError: the program, the working directory or the user does not exist, or the system is out of resources.
    """
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    with reaper.starting():
        try:
            pid = await _spawn(launch, _Stdio(stdin, out_write, err_write), reaper)
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        child = Child(pid, (Pump(out_read, on_stdout), Pump(err_read, on_stderr)))
        reaper.watch(pid, child.on_exit)
    return child


async def start_in_terminal(launch: Launch, reaper: Reaper, terminal: Terminal, *, on_output: OnData) -> Child:
    """Start a command on a terminal of its own: it is the session's leader, the terminal controls it.

    Args:
        terminal: closed for us once the last process on it has gone; the caller writes input and sizes to it.

    Raises:
        StartError: as `start_child`.
    """
    with reaper.starting():
        try:
            slave = terminal.slave
            pid = await _spawn(launch, _Stdio(slave, slave, slave, controlling=True), reaper)
        finally:
            terminal.close_slave()
        child = Child(pid, (Pump(os.dup(terminal.master), on_output),))
        reaper.watch(pid, child.on_exit)
    return child


@dataclass(frozen=True)
class _Stdio:
    stdin: int | None
    stdout: int
    stderr: int
    controlling: bool = False


async def _spawn(launch: Launch, stdio: _Stdio, reaper: Reaper) -> int:
    """Fork and exec in a thread. Once begun it is waited for, so that no started process is ever lost."""

    def unwanted(pid: int) -> None:
        os.killpg(pid, signal.SIGKILL)
        reaper.watch(pid, lambda _: None)

    try:
        return await in_thread_or_undo(partial(_spawn_blocking, launch, stdio), unwanted)
    except (OSError, ValueError, LookupError, OverflowError, subprocess.SubprocessError) as error:
        raise StartError(str(error)) from error


def _spawn_blocking(launch: Launch, stdio: _Stdio) -> int:
    account = identity_of(launch.user) if launch.user is not None else None
    environment = dict(launch.environment)
    if account is not None:
        environment |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    with _input(launch.stdin) as stdin:
        process = subprocess.Popen(  # noqa: S603 - running what the caller says is what we are for
            list(launch.argv),
            stdin=stdin if stdio.stdin is None else stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            cwd=launch.cwd,
            env=environment,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else account.groups,
            start_new_session=True,
            # One system call between fork and exec; there is no other way to make a terminal the controlling one.
            preexec_fn=partial(fcntl.ioctl, stdio.stdout, termios.TIOCSCTTY, 0) if stdio.controlling else None,  # noqa: PLW1509
        )
    # The reaper waits for this process; Popen must neither poll it nor warn about it.
    process.returncode = 0
    return process.pid


@contextmanager
def _input(data: bytes | None) -> Iterator[int]:
    """A descriptor that gives `data`: from memory, so that nobody has to feed a pipe."""
    if data is None:
        yield subprocess.DEVNULL
        return
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
