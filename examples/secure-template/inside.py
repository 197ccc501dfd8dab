"""Runs in the sandbox, with nothing but Python: tries what the template should not allow."""

import os
import socket
import struct
from pathlib import Path

QUESTION = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\7example\3com\0" + struct.pack(">HH", 1, 1)
"""Asks a name server for the address of example.com."""


def name_server_answers() -> bool:
    """Whether it says anything at all; "I do not know" is an answer, too."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    server = next(line.split()[1] for line in lines if line.startswith("nameserver"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(QUESTION, (server, 53))
        return len(asking.recv(4096)) >= len(QUESTION)


def outcome_of(connect_to: tuple[str, int]) -> str:
    """What becomes of a connection."""
    try:
        socket.create_connection(connect_to, timeout=5).close()
    except OSError as error:
        return f"no ({type(error).__name__})"
    return "yes"


def may_write(path: str) -> bool:
    """Whether a file can be made there."""
    try:
        Path(path, "probe").write_text("")
    except OSError:
        return False
    return True


print("kernel:          ", *Path("/proc/version").read_text().split()[:3])
print("user:            ", os.getuid())
print("writes to:       ", *(path for path in ("/usr", "/etc", "/workspace", "/tmp") if may_write(path)))
print("asks for names:  ", "yes" if name_server_answers() else "no")
print("the internet:    ", outcome_of(("1.1.1.1", 443)))
print("the metadata API:", outcome_of(("169.254.169.254", 80)))
