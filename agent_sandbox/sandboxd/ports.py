"""Which TCP ports listen in this network: read from the kernel's own tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from agent_sandbox.sandboxd.threads import in_thread

_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTENING: Final = "0A"
_LOOPBACK: Final = frozenset({"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"})
LOOK_AGAIN: Final = 0.05
"""Seconds between two looks: the kernel tells nobody when a port begins to listen."""


@dataclass(frozen=True, order=True)
class Port:
    """A listening TCP port.

    Attributes:
        loopback: whether it can be reached from inside the sandbox only.
    """

    number: int
    loopback: bool


def listening_blocking() -> list[Port]:
    """All listening TCP ports. Reads files: call it in a thread."""
    found: dict[int, bool] = {}
    for table in _TABLES:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            address, _, number = local.partition(":")
            if state == _LISTENING:
                port = int(number, 16)
                found[port] = found.get(port, True) and address in _LOOPBACK
    return sorted(Port(number, loopback) for number, loopback in found.items())


async def wait_until_listening(number: int, timeout: float) -> bool:
    """Wait until a port listens; False if it does not within `timeout` seconds."""
    with anyio.move_on_after(timeout):
        while True:
            ports = await in_thread(listening_blocking)
            if any(port.number == number for port in ports):
                return True
            await anyio.sleep(LOOK_AGAIN)
    return False
