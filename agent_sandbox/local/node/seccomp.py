"""The system call filter of every sandbox, assembled as classic BPF without any library.

A deny list: calls that widen the kernel's attack surface or reach things that no namespace separates fail with EPERM
(EAFNOSUPPORT for sockets); everything else is allowed, so that ordinary programs, threads and compilers run. It is one
wall among several: capabilities, namespaces and no-new-privileges stand behind it.
"""

import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent_sandbox.local.node.errors import UnsupportedMachineError

_LD_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97

_X32_BIT: Final = 0x40000000
_NAMESPACE_FLAGS: Final = 0x7E020000
"""CLONE_NEW* for mount, cgroup, uts, ipc, user, pid and net."""

_ALLOWED_FAMILIES: Final = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Among the refused: AF_VSOCK reaches the hypervisor past every namespace,
AF_ALG and AF_PACKET reach rarely tested kernel code."""

_REFUSED_IOCTLS: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX push input into a terminal that may be the user's own."""

_ALLOWED_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, 32-bit Linux, their UNAME26 forms, and the query: what container runtimes allow."""

# One row per call that is always refused: name, number on x86_64, number on aarch64 (None: does not exist there).
_DENIED: Final[tuple[tuple[str, int | None, int | None], ...]] = (
    ("acct", 163, 89),
    ("add_key", 248, 217),
    ("adjtimex", 159, 171),
    ("bpf", 321, 280),
    ("clock_adjtime", 305, 266),
    ("clock_settime", 227, 112),
    ("create_module", 174, None),
    ("delete_module", 176, 106),
    ("fanotify_init", 300, 262),
    ("finit_module", 313, 273),
    ("fsconfig", 431, 431),
    ("fsmount", 432, 432),
    ("fsopen", 430, 430),
    ("fspick", 433, 433),
    ("get_kernel_syms", 177, None),
    ("init_module", 175, 105),
    ("io_uring_enter", 426, 426),
    ("io_uring_register", 427, 427),
    ("io_uring_setup", 425, 425),
    ("ioperm", 173, None),
    ("iopl", 172, None),
    ("kcmp", 312, 272),
    ("kexec_file_load", 320, 294),
    ("kexec_load", 246, 104),
    ("keyctl", 250, 219),
    ("lookup_dcookie", 212, 18),
    ("mbind", 237, 235),
    ("migrate_pages", 256, 238),
    ("modify_ldt", 154, None),
    ("mount", 165, 40),
    ("mount_setattr", 442, 442),
    ("move_mount", 429, 429),
    ("move_pages", 279, 239),
    ("name_to_handle_at", 303, 264),
    ("nfsservctl", 180, 42),
    ("open_by_handle_at", 304, 265),
    ("open_tree", 428, 428),
    ("open_tree_attr", 467, 467),
    ("perf_event_open", 298, 241),
    ("pivot_root", 155, 41),
    ("process_madvise", 440, 440),
    ("query_module", 178, None),
    ("quotactl", 179, 60),
    ("quotactl_fd", 443, 443),
    ("reboot", 169, 142),
    ("request_key", 249, 218),
    ("set_mempolicy", 238, 237),
    ("set_mempolicy_home_node", 450, 450),
    ("setdomainname", 171, 162),
    ("sethostname", 170, 161),
    ("setns", 308, 268),
    ("settimeofday", 164, 170),
    ("swapoff", 168, 225),
    ("swapon", 167, 224),
    ("sysfs", 139, None),
    ("syslog", 103, 116),
    ("_sysctl", 156, None),
    ("umount2", 166, 39),
    ("unshare", 272, 97),
    ("uselib", 134, None),
    ("userfaultfd", 323, 282),
    ("ustat", 136, None),
    ("vhangup", 153, 58),
)


@dataclass(frozen=True)
class _Machine:
    audit_arch: int
    column: int
    clone: int
    clone3: int
    socket: int
    ioctl: int
    personality: int
    has_x32: bool


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 1, clone=56, clone3=435, socket=41, ioctl=16, personality=135, has_x32=True),
    "aarch64": _Machine(0xC00000B7, 2, clone=220, clone3=435, socket=198, ioctl=29, personality=92, has_x32=False),
}

_Instruction = tuple[int, int, int, int]


def _fail(error: int) -> _Instruction:
    return (_RET, 0, 0, _ERRNO | error)


_PASS: Final[_Instruction] = (_RET, 0, 0, _ALLOW)


def _when_number(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """Run ``body``, which ends in a return, for one system call only."""
    return [(_JEQ, 0, len(body), number), *body]


def _load_argument(index: int) -> _Instruction:
    return (_LD_ABS, 0, 0, _OFFSET_ARGUMENTS + 8 * index)  # the low half: both machines are little-endian


def _one_of(values: Iterable[int], found: _Instruction) -> list[_Instruction]:
    return [instruction for value in values for instruction in ((_JEQ, 0, 1, value), found)]


def denied_calls(machine: str) -> dict[str, int]:
    """Names and numbers of the calls that are always refused on a machine (``platform.machine()``)."""
    column = _MACHINES[machine].column
    return {row[0]: number for row in _DENIED if isinstance(number := row[column], int)}


def filter_program(machine: str | None = None) -> bytes:
    """The filter as the kernel and ``bwrap --seccomp`` take it: 8 bytes per instruction.

    Args:
        machine: ``platform.machine()`` of the target; this machine by default.

    Raises:
        UnsupportedMachineError: no table of system call numbers for that machine.
    """
    name = machine or platform.machine()
    if name not in _MACHINES:
        raise UnsupportedMachineError(f"no system call filter for the machine {name!r}; known: {sorted(_MACHINES)}")
    table = _MACHINES[name]
    program: list[_Instruction] = [
        (_LD_ABS, 0, 0, _OFFSET_ARCH),
        (_JEQ, 1, 0, table.audit_arch),
        _fail(_ENOSYS),  # a call by another architecture's numbers, such as 32-bit x86
        (_LD_ABS, 0, 0, _OFFSET_NUMBER),
    ]
    if table.has_x32:
        program += [(_JGE, 0, 1, _X32_BIT), _fail(_ENOSYS)]
    for number in denied_calls(name).values():
        program += _when_number(number, [_fail(_EPERM)])
    # ENOSYS makes the C library fall back to clone, whose flags a filter can read.
    program += _when_number(table.clone3, [_fail(_ENOSYS)])
    program += _when_number(table.clone, [_load_argument(0), (_JSET, 0, 1, _NAMESPACE_FLAGS), _fail(_EPERM), _PASS])
    program += _when_number(table.socket, [_load_argument(0), *_one_of(_ALLOWED_FAMILIES, _PASS), _fail(_EAFNOSUPPORT)])
    program += _when_number(table.ioctl, [_load_argument(1), *_one_of(_REFUSED_IOCTLS, _fail(_EPERM)), _PASS])
    program += _when_number(
        table.personality, [_load_argument(0), *_one_of(_ALLOWED_PERSONALITIES, _PASS), _fail(_EPERM)]
    )
    program.append(_PASS)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
