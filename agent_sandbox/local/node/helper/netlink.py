"""Routing netlink, as much of it as a Pod's network needs: links, addresses, routes, neighbours.

Written against the kernel's own interface because forking ``ip`` costs 15 to 35 ms for each Pod and this about 1 ms.
Requests collect in a ``Batch`` and travel in one packet; the first refusal is raised with the kernel's error.
"""

import os
import socket
import struct

_REQUEST, _ACK, _CREATE, _EXCL, _REPLACE = 1, 4, 0x400, 0x200, 0x100
_GETLINK, _IFLA_QDISC = 18, 6
_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH = 16, 17, 20, 24, 28
_ERROR = 2
_IFF_UP = 1
_NUD_PERMANENT = 0x80
_TABLE_MAIN, _PROTOCOL_BOOT, _UNICAST, _UNREACHABLE = 254, 3, 1, 7
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_VETH_INFO_PEER = 1
_NESTED = 0x8000


def _attribute(kind: int, value: bytes) -> bytes:
    raw = struct.pack("=HH", 4 + len(value), kind) + value
    return raw + bytes(-len(raw) % 4)


def _name(value: str) -> bytes:
    return value.encode() + b"\0"


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _link(index: int, *, up: bool = False) -> bytes:
    flags = _IFF_UP if up else 0
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


class Batch:
    """Requests to one network namespace, sent together."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, int, int, bytes]] = []

    def _add(self, what: str, kind: int, flags: int, body: bytes) -> None:
        self._messages.append((what, kind, flags, body))

    def veth(self, index: int, name: str, mac: bytes, *, peer_name: str, peer_mac: bytes, peer_netns_fd: int) -> None:
        """A pair of virtual Ethernet devices: ``name`` here, the peer, as interface 2, in another namespace."""
        peer = _link(2) + _attribute(3, _name(peer_name)) + _attribute(1, peer_mac)
        peer += _attribute(28, _u32(peer_netns_fd))
        data = _attribute(_VETH_INFO_PEER | _NESTED, peer)
        info = _attribute(1, b"veth") + _attribute(2 | _NESTED, data)
        body = _link(index) + _attribute(3, _name(name)) + _attribute(1, mac) + _attribute(18 | _NESTED, info)
        self._add(f"create interface {name}", _NEWLINK, _CREATE | _EXCL, body)

    def up(self, index: int) -> None:
        """Bring an interface up."""
        self._add(f"bring interface {index} up", _NEWLINK, 0, _link(index, up=True))

    def delete_link(self, index: int) -> None:
        """Delete an interface, and with it its peer."""
        self._add(f"delete interface {index}", _DELLINK, 0, _link(index))

    def address(self, index: int, address: str) -> None:
        """Give an interface an address of its own, with no network around it (/32)."""
        raw = socket.inet_aton(address)
        body = struct.pack("=BBBBi", socket.AF_INET, 32, 0, _SCOPE_UNIVERSE, index)
        self._add(f"add address {address}", _NEWADDR, _CREATE | _EXCL, body + _attribute(2, raw) + _attribute(1, raw))

    def route(self, index: int, destination: str | None, *, gateway: str | None = None) -> None:
        """A route to one address (or, if None, to everything) through an interface."""
        scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
        length = 32 if destination else 0
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, scope, _UNICAST, 0)
        if destination:
            body += _attribute(1, socket.inet_aton(destination))
        if gateway:
            body += _attribute(5, socket.inet_aton(gateway))
        body += _attribute(4, _u32(index))
        self._add(f"add route to {destination or 'default'}", _NEWROUTE, _CREATE | _EXCL, body)

    def unreachable(self, network: str, length: int) -> None:
        """Let every address of a network for which there is no better route be refused at once."""
        body = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, length, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _UNREACHABLE, 0
        )
        body += _attribute(1, socket.inet_aton(network))
        self._add(f"close {network}/{length}", _NEWROUTE, _CREATE | _EXCL, body)

    def neighbour(self, index: int, address: str, mac: bytes) -> None:
        """A permanent neighbour entry, so that the first packet never waits a second for a lost ARP answer."""
        body = struct.pack("=BxxxiHBB", socket.AF_INET, index, _NUD_PERMANENT, 0, 0)
        body += _attribute(1, socket.inet_aton(address)) + _attribute(2, mac)
        self._add(f"add neighbour {address}", _NEWNEIGH, _CREATE | _REPLACE, body)

    def packet(self) -> tuple[bytes, list[str]]:
        """The bytes of all requests, numbered from 1, and what each is for."""
        parts = []
        for number, (_, kind, flags, body) in enumerate(self._messages, start=1):
            header = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, number, 0)
            parts.append(header + body)
        return b"".join(parts), [what for what, *_ in self._messages]


class Netlink:
    """A routing socket of the network namespace in which it was made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))

    def send(self, batch: Batch) -> None:
        """Carry out all requests of a batch.

        Raises:
            OSError: the kernel refused one; the message says which.
        """
        packet, purposes = batch.packet()
        self._socket.send(packet)
        waiting = len(purposes)
        failure: OSError | None = None
        while waiting:
            data = self._socket.recv(65536)
            offset = 0
            while offset < len(data):
                length, kind, _, number, _ = struct.unpack_from("=IHHII", data, offset)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", data, offset + 16)
                    waiting -= 1
                    if code and failure is None:
                        failure = OSError(-code, f"{purposes[number - 1]}: {os.strerror(-code)}")
                offset += (length + 3) & ~3
        if failure is not None:
            raise failure

    def carries(self, index: int) -> bool:
        """Whether an interface has its queue. Until then, for some ms after it came up, it drops what it is to send.

        Raises:
            OSError: there is no such interface.
        """
        body = _link(index)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), _GETLINK, _REQUEST, 1, 0) + body)
        data = self._socket.recv(65536)
        _, kind, *_ = struct.unpack_from("=IHHII", data)
        if kind == _ERROR:
            (code,) = struct.unpack_from("=i", data, 16)
            raise OSError(-code, f"look at interface {index}: {os.strerror(-code)}")
        return _attributes(data[32:]).get(_IFLA_QDISC, b"noop\0") != b"noop\0"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
