"""A world for Pods to go out into, on a machine that has none: a host and an "internet", each in a network of its own.

While the block runs, the calling thread lives in the network of that host, and so does everything that it starts: the
node's way out, its questions to name servers. Nothing touches the network of the real machine. Needs root.
"""

import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

from agent_sandbox.local.node.helper import linux
from agent_sandbox.local.node.helper.netlink import Batch, Netlink

HOST, GATEWAY = "198.51.100.2", "198.51.100.1"
PUBLIC, OTHER_PUBLIC, PRIVATE, METADATA = "203.0.113.10", "203.0.113.20", "10.1.2.3", "169.254.169.254"
NAME_SERVER = "203.0.113.53"
WEB, NEIGHBOUR, ECHO = 80, 81, 5353
_DNS = 53
_BUFFER = 4096
NAMES = {b"\x07example\x03com\x00": PUBLIC}

_indexes = count(500)
_MAC = bytes.fromhex("020000005501")


@dataclass
class Outside:
    """What happened in that world.

    Attributes:
        questions: names that its name server was asked for.
    """

    questions: list[bytes] = field(default_factory=list)


def _new_network() -> int:
    linux.unshare(linux.CLONE_NEWNET)
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _configure(*addresses: str) -> None:
    netlink, batch = Netlink(), Batch()
    batch.up(1)
    for address in addresses:
        batch.address(1, address)
    netlink.send(batch)
    netlink.close()


def _connect_host(world: int) -> None:
    """Give the host, in whose network the caller is, an interface to the world, and the world one back."""
    index = next(_indexes)
    netlink, batch = Netlink(), Batch()
    batch.veth(index, "up0", _MAC, peer_name="down0", peer_mac=_MAC[:-1] + b"\x02", peer_netns_fd=world)
    batch.up(index)
    batch.address(index, HOST)
    netlink.send(batch)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    linux.setns(world, linux.CLONE_NEWNET)
    inside, there = Netlink(), Batch()
    there.up(2)
    there.address(2, GATEWAY)
    there.route(2, HOST)
    there.neighbour(2, HOST, _MAC)
    inside.send(there)
    inside.close()
    linux.setns(home, linux.CLONE_NEWNET)
    os.close(home)
    back = Batch()
    back.route(index, GATEWAY)
    back.route(index, None, gateway=GATEWAY)
    back.neighbour(index, GATEWAY, _MAC[:-1] + b"\x02")
    netlink.send(back)
    netlink.close()


def _bound(kind: int, address: str, port: int) -> socket.socket:
    mine = socket.socket(socket.AF_INET, kind)
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    mine.bind((address, port))
    if kind == socket.SOCK_STREAM:
        mine.listen()
    return mine


class _World(threading.Thread):
    """Serves until stopped: echoes on TCP and UDP, names on port 53."""

    def __init__(self, outside: Outside) -> None:
        """Listen in the network of the calling thread."""
        super().__init__(daemon=True)
        self._outside = outside
        self._open: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._end, self._ended = socket.socketpair()
        self._register(self._ended, None)
        for port in (WEB, NEIGHBOUR, _DNS):
            self._register(_bound(socket.SOCK_STREAM, "0.0.0.0", port), self._accept)  # noqa: S104 - its own network
        for address, port in ((PUBLIC, ECHO), (NAME_SERVER, _DNS)):  # a reply has to come from there
            self._register(_bound(socket.SOCK_DGRAM, address, port), self._datagram)

    def _register(self, mine: socket.socket, handler: Callable[[socket.socket], None] | None) -> None:
        self._open.add(mine)
        self._selector.register(mine, selectors.EVENT_READ, handler)

    def run(self) -> None:
        """Serve until ``stop``."""
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def stop(self) -> None:
        """End, and close everything."""
        self._end.close()
        if self.is_alive():
            self.join()
        for mine in self._open:
            mine.close()
        self._selector.close()

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._register(connection, self._echo)

    def _echo(self, connection: socket.socket) -> None:
        with suppress(OSError):
            data = connection.recv(_BUFFER)
            if data:
                connection.sendall(data)
                return
        self._selector.unregister(connection)
        self._open.remove(connection)
        connection.close()

    def _datagram(self, mine: socket.socket) -> None:
        data, sender = mine.recvfrom(_BUFFER)
        mine.sendto(self._answer(data) if mine.getsockname()[1] == _DNS else data, sender)

    def _answer(self, query: bytes) -> bytes:
        name = query[12 : query.index(b"\0", 12) + 1]
        self._outside.questions.append(name)
        question = query[12 : 12 + len(name) + 4]
        address, kind = NAMES.get(name), struct.unpack_from("!H", question, len(name))[0]
        if address is None:
            return query[:2] + struct.pack("!5H", 0x8183, 1, 0, 0, 0) + question
        if kind != 1:
            return query[:2] + struct.pack("!5H", 0x8180, 1, 0, 0, 0) + question
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address)
        return query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + question + record


@contextmanager
def outside_world() -> Iterator[Outside]:
    """Live in the network of a host that has an internet."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    outside = Outside()
    try:
        world_network = _new_network()
        _configure(PUBLIC, OTHER_PUBLIC, PRIVATE, METADATA, NAME_SERVER)
        world = _World(outside)
        try:
            os.close(_new_network())
            _configure()
            _connect_host(world_network)
            world.start()
            yield outside
        finally:
            world.stop()
            os.close(world_network)
    finally:
        linux.setns(home, linux.CLONE_NEWNET)
        os.close(home)
