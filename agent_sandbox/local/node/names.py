"""The stack's name server, on the address by which Pods know their router.

In: queries of Pods, by UDP and TCP. Out: addresses of the stack's Services, answered here; and, for Pods whose policies
let them ask a name server, what this machine's own name servers say of every other name. For all other Pods a foreign
name does not exist, and nothing about it leaves the machine.
"""

import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskGroup

from agent_sandbox.local.node.dns import Resolve, answer, is_foreign, server_failure

_SERVERS: Final = re.compile(r"^\s*nameserver\s+(\S+)", re.MULTILINE)
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_PORT: Final = 53
_ANSWER_TIMEOUT: Final = 2.0
_IDLE_TIMEOUT: Final = 10.0
_AT_ONCE_PER_POD: Final = 16
"""Foreign lookups and connections that one Pod may have under way; more are dropped, and asked again by the Pod."""

_MAX_PACKET: Final = 65535
_LENGTH: Final = struct.Struct("!H")
_HUNG_UP: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError)

MayAskOutside = Callable[[str], bool]
"""Address of a Pod to whether foreign names are looked up for it."""

Forward = Callable[[bytes, bool], Awaitable[bytes | None]]
"""A query, and whether it came by TCP, to the answer of a name server outside; None if there was none."""


def name_servers() -> list[str]:
    """The name servers of this machine, in the order in which it asks them."""
    with suppress(OSError):
        return _SERVERS.findall(_RESOLV_CONF.read_text(encoding="utf-8", errors="replace"))
    return []


async def ask_outside(query: bytes, by_tcp: bool) -> bytes | None:
    """Ask this machine's name servers, one after another."""
    for server in await anyio.to_thread.run_sync(name_servers):
        with anyio.move_on_after(_ANSWER_TIMEOUT), suppress(OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return await (_ask_by_tcp(server, query) if by_tcp else _ask_by_udp(server, query))
    return None


async def _ask_by_udp(server: str, query: bytes) -> bytes:
    """Ask from a port of its own under a number of our own, so that nobody can answer in the server's place."""
    number = os.urandom(2)
    async with await anyio.create_connected_udp_socket(server, _PORT) as connection:
        await connection.send(number + query[2:])
        while True:
            reply = await connection.receive()
            if reply[:2] == number:
                return query[:2] + reply[2:]


async def _ask_by_tcp(server: str, query: bytes) -> bytes:
    async with await anyio.connect_tcp(server, _PORT) as stream:
        await stream.send(_LENGTH.pack(len(query)) + query)
        return await _read_message(stream)


async def _read_exactly(stream: ByteStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive(count - len(data))
    return data


async def _read_message(stream: ByteStream) -> bytes:
    (length,) = _LENGTH.unpack(await _read_exactly(stream, _LENGTH.size))
    return await _read_exactly(stream, length)


class NameServer:
    """Answers the Pods of one pod network."""

    def __init__(self, resolve: Resolve, may_ask_outside: MayAskOutside, forward: Forward = ask_outside) -> None:
        """
        Args:
            resolve: knows the names of the stack.
            may_ask_outside: whose foreign names are looked up.
            forward: looks them up.
        """
        self._resolve = resolve
        self._may_ask_outside = may_ask_outside
        self._forward = forward
        self._busy: Counter[str] = Counter()

    async def run(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Answer on these sockets until cancelled; closes them."""
        with udp, tcp:
            async with anyio.create_task_group() as group:
                group.start_soon(self._serve_tcp, tcp, group)
                await self._serve_udp(udp, group)

    def _is_foreign(self, query: bytes, address: str) -> bool:
        return self._may_ask_outside(address) and is_foreign(query)

    @contextmanager
    def _slot(self, address: str) -> Iterator[bool]:
        """Whether a Pod may have one more thing under way."""
        self._busy[address] += 1
        try:
            yield self._busy[address] <= _AT_ONCE_PER_POD
        finally:
            self._busy[address] -= 1
            if not self._busy[address]:
                del self._busy[address]

    async def _serve_udp(self, listener: socket.socket, group: TaskGroup) -> None:
        while True:
            await anyio.wait_readable(listener)
            with suppress(BlockingIOError, ConnectionError):
                query, sender = listener.recvfrom(_MAX_PACKET)
                if self._is_foreign(query, sender[0]):
                    group.start_soon(self._relay, listener, query, sender)
                else:
                    _send(listener, answer(query, self._resolve), sender)

    async def _relay(self, listener: socket.socket, query: bytes, sender: tuple[str, int]) -> None:
        with self._slot(sender[0]) as is_free:
            if is_free:
                _send(listener, await self._forward(query, False) or server_failure(query), sender)

    async def _serve_tcp(self, listener: socket.socket, group: TaskGroup) -> None:
        while True:
            await anyio.wait_readable(listener)
            with suppress(BlockingIOError, ConnectionError):
                connection, _ = listener.accept()
                connection.setblocking(False)
                group.start_soon(self._converse, await SocketStream.from_socket(connection))

    async def _converse(self, stream: SocketStream) -> None:
        address = str(stream.extra(SocketAttribute.remote_address)[0])  # noqa: S610 - anyio's, not Django's
        async with stream:
            with self._slot(address) as is_free, suppress(*_HUNG_UP):
                while is_free:
                    with anyio.fail_after(_IDLE_TIMEOUT):
                        query = await _read_message(stream)
                    reply = await self._reply_by_tcp(query, address)
                    if reply is None:
                        return
                    with anyio.fail_after(_IDLE_TIMEOUT):
                        await stream.send(_LENGTH.pack(len(reply)) + reply)

    async def _reply_by_tcp(self, query: bytes, address: str) -> bytes | None:
        if self._is_foreign(query, address):
            return await self._forward(query, True) or server_failure(query)
        return answer(query, self._resolve)


def _send(listener: socket.socket, reply: bytes | None, receiver: tuple[str, int]) -> None:
    if reply is not None:
        with suppress(BlockingIOError, ConnectionError, PermissionError):  # it may not be answered any more
            listener.sendto(reply, receiver)
