"""What this machine shows of a stack: processes, mounts, interfaces, namespaces, files. Compare before and after."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

_NAMES = (b"-m\0agent_sandbox\0", b"/agent-sandbox\0", b"/local/node/helper/", b"bwrap\0")


@dataclass(frozen=True)
class Footprint:
    """A snapshot; equal snapshots mean that nothing was left behind.

    Attributes:
        processes: command lines of our programs and of bubblewrap, with their process ids; not those that another
            living program started.
        mounts: mount points of this mount namespace.
        interfaces: network interfaces of this network namespace.
        files: names in the given directories.
    """

    processes: frozenset[str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    files: frozenset[str]

    def appeared_since(self, before: "Footprint") -> dict[str, list[str]]:
        """What is here now and was not before, by kind; empty if nothing."""
        found = {field.name: sorted(getattr(self, field.name) - getattr(before, field.name)) for field in fields(self)}
        return {kind: items for kind, items in found.items() if items}


def take_footprint(*directories: Path) -> Footprint:
    """Look at this machine, and at the names in some directories."""
    files = (str(entry) for directory in directories if directory.is_dir() for entry in directory.iterdir())
    return Footprint(
        processes=frozenset(_processes()),
        mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        interfaces=frozenset(name for _, name in socket.if_nameindex()),
        files=frozenset(files),
    )


def _processes() -> list[str]:
    """Our programs that this process started, or nobody who lives any more: another's stacks are its own matter."""
    ours, found = {0, *_ancestry(os.getpid())}, []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        command = _command(int(entry.name))
        if _is_our_program(command) and all(
            _is_our_program(_command(pid)) for pid in _ancestry(int(entry.name)) if pid not in ours
        ):
            found.append(f"{entry.name} {command.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return found


def _ancestry(pid: int) -> Iterator[int]:
    """A process, its parent, and so on to the first one."""
    while pid > 0:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return  # it ended while we looked


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it ended while we looked


def _is_our_program(command: bytes) -> bool:
    return any(name in command for name in _NAMES)
