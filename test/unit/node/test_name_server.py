"""The name server: the stack's names for everybody, foreign ones for those whose policies allow it."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from agent_sandbox.local.node.names import NameServer

NAMES = {"db.shop.svc.cluster.local": ["10.88.0.3"]}
FOREIGN = "example.com"


def query(name: str, number: int = 0x1234) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def code(reply: bytes) -> int:
    return reply[3] & 0xF


class Outside:
    """A name server outside that answers everything with ``reply``, and remembers what it was asked."""

    def __init__(self, reply: bytes | None = b"the answer") -> None:
        self.reply = reply
        self.asked: list[tuple[bytes, bool]] = []
        self.may_answer = anyio.Event()
        self.may_answer.set()

    async def __call__(self, packet: bytes, by_tcp: bool) -> bytes | None:
        self.asked.append((packet, by_tcp))
        await self.may_answer.wait()
        return self.reply


@asynccontextmanager
async def serving(outside: Outside, *, allowed: bool, tcp: bool = False) -> AsyncIterator[tuple[str, int]]:
    datagrams, listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    for mine in (datagrams, listener):
        mine.bind(("127.0.0.1", 0))
        mine.setblocking(False)
    listener.listen()
    server = NameServer(NAMES.get, lambda _: allowed, outside)
    async with anyio.create_task_group() as group:
        group.start_soon(server.run, datagrams, listener)
        yield listener.getsockname() if tcp else datagrams.getsockname()
        group.cancel_scope.cancel()


async def ask(address: tuple[str, int], packet: bytes) -> bytes:
    async with await anyio.create_connected_udp_socket(*address) as connection:
        await connection.send(packet)
        return await connection.receive()


async def test_a_name_of_the_stack_is_answered_and_never_asked_outside() -> None:
    outside = Outside()
    async with serving(outside, allowed=True) as address:
        known = await ask(address, query("db.shop.svc.cluster.local"))
        unknown = await ask(address, query("example.com.shop.svc.cluster.local"))
        short = await ask(address, query("secret"))
        reverse = await ask(address, query("3.0.88.10.in-addr.arpa"))

    assert (code(known), known[-4:]) == (0, socket.inet_aton("10.88.0.3"))
    assert [code(reply) for reply in (unknown, short, reverse)] == [3, 3, 3]
    assert outside.asked == []


async def test_a_foreign_name_is_asked_outside_for_those_who_may_and_does_not_exist_for_others() -> None:
    outside = Outside()
    async with serving(outside, allowed=True) as address:
        reply = await ask(address, query(FOREIGN))
    async with serving(outside, allowed=False) as address:
        refused = await ask(address, query(FOREIGN))

    assert reply == b"the answer"
    assert code(refused) == 3
    assert outside.asked == [(query(FOREIGN), False)]


async def test_where_no_server_answers_the_failure_is_told() -> None:
    async with serving(Outside(None), allowed=True) as address:
        reply = await ask(address, query(FOREIGN))

    assert (code(reply), reply[:2]) == (2, b"\x12\x34")


async def test_queries_by_tcp_are_asked_outside_by_tcp_one_after_another() -> None:
    outside = Outside()
    replies = []
    async with serving(outside, allowed=True, tcp=True) as address, await anyio.connect_tcp(*address) as stream:
        for name in (FOREIGN, "db.shop.svc.cluster.local"):
            packet = query(name)
            await stream.send(len(packet).to_bytes(2, "big") + packet)
            length = int.from_bytes(await stream.receive(2), "big")
            replies.append(await stream.receive(length))

    assert replies[0] == b"the answer"
    assert replies[1][-4:] == socket.inet_aton("10.88.0.3")
    assert outside.asked == [(query(FOREIGN), True)]


async def test_one_pod_cannot_have_more_than_its_share_under_way() -> None:
    outside = Outside()
    outside.may_answer = anyio.Event()
    async with (
        serving(outside, allowed=True) as address,
        await anyio.create_connected_udp_socket(*address) as connection,
    ):
        for number in range(40):
            await connection.send(query(FOREIGN, number))
        await connection.send(query("db.shop.svc.cluster.local"))
        first = await connection.receive()
        outside.may_answer.set()

    assert code(first) == 0
    assert len(outside.asked) == 16
