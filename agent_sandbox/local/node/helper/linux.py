"""Linux system calls that the standard library of Python 3.11 lacks, each with the kernel's own error."""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_MNT_DETACH = 2
_TIOCSCTTY = 0x540E
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CLOSE_RANGE = 436
_CLOSE_RANGE_CLOEXEC = 4
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_POSSIBLE_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, flags: int) -> None:
    """Enter the namespace behind ``fd``, or, if ``fd`` is a pidfd, all those of that process named by ``flags``."""
    _check(_libc.setns(fd, flags), f"setns({flags:#x})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)
    _check(result, f"mount {kind or 'bind'} on {target}")


def unmount(target: str) -> None:
    """Take a mount away from the name space at once, and for good when nobody uses it any more."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"unmount {target}")


def take_terminal(fd: int) -> None:
    """Make a terminal the controlling one of this session; anything else than a terminal is left alone."""
    _libc.ioctl(fd, _TIOCSCTTY, 0)


def die_with_parent(signal_number: int) -> None:
    """Receive this signal when the parent thread ends. Reset by a change of user, kept across exec."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def drop_capabilities() -> None:
    """Give up every capability, in every set, for this process and all it will start."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_LAST_POSSIBLE_CAPABILITY + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # the kernel knows no capability of this number: all are dropped
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def forbid_new_privileges() -> None:
    """Make setuid programs and file capabilities without effect from now on."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_seccomp_filter(program: bytes) -> None:
    """Apply a classic BPF program to every later system call of this process."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    result = _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0)
    _check(result, "prctl(PR_SET_SECCOMP)")


def close_on_exec_from(lowest: int) -> None:
    """Let no descriptor from this number on reach a program that is started, also not those that a C library opened."""
    if _libc.syscall(_CLOSE_RANGE, ctypes.c_uint(lowest), ctypes.c_uint(2**32 - 1), _CLOSE_RANGE_CLOEXEC) == 0:
        return
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a kernel before 5.11; pathlib costs an import
        with contextlib.suppress(OSError):  # the listing's own
            if int(name) >= lowest:
                os.set_inheritable(int(name), False)


def place_fds(fds: Iterable[tuple[int, int]]) -> None:
    """Give each descriptor its number in the program about to be started: pairs of (have, want)."""
    # First out of the way of every wanted number, so that one move cannot overwrite the next one's source.
    import fcntl

    moved = [(fcntl.fcntl(have, fcntl.F_DUPFD_CLOEXEC, 100), want) for have, want in fds]
    for have, want in moved:
        os.dup2(have, want, inheritable=True)
