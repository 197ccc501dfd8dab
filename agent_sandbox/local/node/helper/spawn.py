"""Starts processes in Pods: new containers in a Pod's network, and commands inside a running container."""

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from agent_sandbox.local.node.helper import linux

_CONTAINER_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
    | linux.CLONE_NEWNET
)

_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
"""How many open files programs may have: what we had ourselves, before we took more."""

START_FAILED = 128
"""Exit code of a command that could not be started, as container runtimes report it."""


@dataclass(frozen=True)
class Program:
    """What to start, and with which descriptors.

    Attributes:
        argv: path and arguments; the path is looked up in PATH of ``env`` when it has no slash.
        env: the whole environment.
        fds: pairs of a descriptor and the number it gets in the program; everything else is closed.
        cwd: where it starts, or None for where the helper is.
        cgroups: ``cgroup.procs`` files to join first.
        file_size: bytes that one file may grow to.
        proc: an empty directory: give it a mount namespace in which gVisor works (``_mounts_for_gvisor``).
    """

    argv: Sequence[str]
    env: dict[str, str]
    fds: Sequence[tuple[int, int]]
    cwd: str | None = None
    cgroups: Sequence[str] = field(default=())
    file_size: int | None = None
    proc: str | None = None


def start(program: Program, *, netns: int | None, uid: int | None) -> int:
    """Start a program in a network namespace, as the leader of its own session.

    Args:
        program: what to start.
        netns: descriptor of the network namespace, or None for the helper's own.
        uid: the user and group to become first, without any other group; None to stay who we are.

    Returns:
        Its process id.

    Raises:
        OSError: a step before or at exec failed.
    """

    def prepare() -> None:
        _join(program.cgroups)
        os.setsid()
        if netns is not None:
            linux.setns(netns, linux.CLONE_NEWNET)
        if program.proc is not None:
            _mounts_for_gvisor(program.proc)
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        linux.die_with_parent(signal.SIGKILL)

    return _fork_exec(program, prepare)


def enter(program: Program, *, pidfd: int, ids: tuple[int, int], seccomp: bytes) -> int:
    """Start a command inside a running container, behind the same walls as the container's own processes.

    Args:
        program: what to start.
        pidfd: descriptor of a process of the container.
        ids: the user and the group, as the container knows them.
        seccomp: the filter.

    Returns:
        The id of a waiter process outside, which ends as the command does.

    Raises:
        OSError: the container is gone, or the command could not be started.
    """

    def prepare() -> None:
        linux.die_with_parent(signal.SIGKILL)
        _join(program.cgroups)
        with contextlib.suppress(PermissionError):  # rootless: the kernel forbids changing groups at all
            os.setgroups([])
        linux.setns(pidfd, _CONTAINER_NAMESPACES)
        linux.setns(pidfd, linux.CLONE_NEWUSER)
        inner = os.fork()  # only children enter the process namespace
        if inner:
            _become_waiter(inner)
        os.setsid()
        uid, gid = ids
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        linux.die_with_parent(signal.SIGKILL)
        linux.drop_capabilities()
        linux.forbid_new_privileges()

    return _fork_exec(program, prepare, seccomp)


def _mounts_for_gvisor(proc: str) -> None:
    """A mount namespace in which gVisor takes a Pod's network for what it is.

    Releases of 2022 to 2024 take a network namespace that has ``net.core.rmem_default`` for the host's own; since
    Linux 6.11 every namespace has it. And they mount ``/proc`` in a user namespace, which the kernel allows only while
    a ``/proc`` with nothing hidden is in sight.
    """
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("/proc", proc, flags=linux.MS_BIND)
    linux.mount("none", "/proc/sys/net", "tmpfs", linux.MS_RDONLY)


def _join(cgroups: Sequence[str]) -> None:
    for path in cgroups:
        with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib would cost an import in the child
            file.write("0")


def _become_waiter(inner: int) -> NoReturn:
    """Wait for the command and end as it did, holding no descriptor that anybody reads to its end."""
    os.closerange(0, 1 << 16)
    _, status = os.waitpid(inner, 0)
    os._exit(exit_code(status))


def exit_code(status: int) -> int:
    """The exit code in a wait status; 128 plus the signal for a process that was killed, as shells have it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _fork_exec(program: Program, prepare: Callable[[], None], seccomp: bytes = b"") -> int:
    error_read, error_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _exec_or_report(program, prepare, seccomp, error_write)
    os.close(error_write)
    with os.fdopen(error_read, "rb") as errors:
        report = errors.read()  # ends when exec closes the other side
    if not report:
        return pid
    os.waitpid(pid, 0)
    code, _, message = report.decode().partition(" ")
    raise OSError(int(code), message)


def _exec_or_report(program: Program, prepare: Callable[[], None], seccomp: bytes, error_write: int) -> NoReturn:
    try:
        import fcntl

        errors = fcntl.fcntl(error_write, fcntl.F_DUPFD_CLOEXEC, 200)
        linux.close_on_exec_from(3)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        # What the helper and Python ignore is inherited, and a shell cannot trap a signal that was ignored before it.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
    except OSError as error:
        os.write(error_write, f"{error.errno} {error.strerror or error}".encode())
        os._exit(START_FAILED)
    try:
        prepare()
        resource.setrlimit(resource.RLIMIT_NOFILE, _OPEN_FILES)
        if program.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (program.file_size, program.file_size))
        linux.place_fds(program.fds)  # last: the wanted numbers may be those of descriptors that prepare() uses
        keep = {want for _, want in program.fds}
        for low in range(3):
            if low not in keep:
                os.closerange(low, low + 1)
        linux.take_terminal(0)
        if program.cwd is not None:
            os.chdir(program.cwd)
        if seccomp:
            linux.install_seccomp_filter(seccomp)
        os.execvpe(program.argv[0], list(program.argv), program.env)  # noqa: S606 - this is what we are for
    except OSError as error:
        os.write(errors, f"{error.errno or 0} {error.strerror or error}".encode())
    except BaseException as error:  # a forked child must never return into the helper's loop
        os.write(errors, f"0 {type(error).__name__}: {error}".encode())
    os._exit(START_FAILED)
