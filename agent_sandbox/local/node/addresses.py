"""Which address and which host uid a Pod gets. Addresses are lent in turn, so that a freed one is reused late."""

import ipaddress
import zlib
from pathlib import Path
from typing import Final

from agent_sandbox.local.node.errors import NodeError
from agent_sandbox.local.node.helper.namespaces import POD_NETWORK

ISOLATED_NETWORK: Final = ipaddress.IPv4Network(POD_NETWORK)
BARE_NETWORK: Final = ipaddress.IPv4Network("127.77.0.0/16")
"""Loopback addresses for Pods that run without isolation: they exist on every Linux machine without any set-up."""

_UNUSED_UIDS: Final = 1_900_000_000
"""Start of a range that neither distributions nor systemd nor subuid files hand out."""

_UIDS_PER_NODE: Final = 1 << 16
_NODES: Final = 1000


class AddressPool:
    """Lends addresses of one network."""

    def __init__(self, network: ipaddress.IPv4Network) -> None:
        self._network = network
        self._taken: set[int] = set()
        self._next = 2

    def take(self, wanted: str | None = None) -> str:
        """An address that nobody has; ``wanted`` if that one is free.

        Raises:
            NodeError: all are taken.
        """
        offset = self._offset(wanted)
        if offset is None or offset in self._taken:
            offset = self._free_offset()
        self._taken.add(offset)
        return str(self._network.network_address + offset)

    def give_back(self, address: str) -> None:
        """The address may be lent again."""
        offset = self._offset(address)
        if offset is not None:
            self._taken.discard(offset)

    def _offset(self, address: str | None) -> int | None:
        if not address:
            return None
        parsed = ipaddress.ip_address(address)
        if parsed not in self._network:
            return None
        return int(parsed) - int(self._network.network_address)

    def _free_offset(self) -> int:
        last = self._network.num_addresses - 2
        for _ in range(last):
            offset, self._next = self._next, self._next + 1 if self._next < last else 2
            if offset not in self._taken:
                return offset
        raise NodeError(f"all {last - 1} Pod addresses of {self._network} are taken; delete Pods")


def host_uid(address: str, state_dir: Path) -> int:
    """The host uid of a Pod on a node that runs as root: its own while it has its address.

    Nodes with different state directories use different ranges, so that their Pods are strangers to each other too.
    """
    parsed = ipaddress.ip_address(address)
    node = zlib.crc32(str(state_dir).encode()) % _NODES
    return _UNUSED_UIDS + node * _UIDS_PER_NODE + (int(parsed) & 0xFFFF)
