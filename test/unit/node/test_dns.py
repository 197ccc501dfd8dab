"""The name server's packets."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.local.node.dns import answer

A, AAAA = 1, 28
NAMES = {"db.shop.svc.cluster.local": ["10.88.0.3", "10.88.0.2"], "empty.shop.svc.cluster.local": []}


def query(name: str, kind: int = A, *, questions: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 0x1234, 0x0100, questions, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def parse(reply: bytes | None) -> tuple[int, list[str]]:
    assert reply is not None
    number, flags, _, answers, _, _ = struct.unpack_from("!6H", reply)
    assert (number, flags >> 15) == (0x1234, 1)
    addresses = [".".join(str(byte) for byte in reply[len(reply) - 16 * i - 4 :][:4]) for i in range(answers)]
    return flags & 0xF, addresses[::-1]


def test_a_known_name_has_its_addresses() -> None:
    assert parse(answer(query("DB.shop.svc.Cluster.local"), NAMES.get)) == (0, ["10.88.0.3", "10.88.0.2"])


def test_a_known_name_has_no_address_of_the_other_family_and_is_not_denied() -> None:
    assert parse(answer(query("db.shop.svc.cluster.local", AAAA), NAMES.get)) == (0, [])
    assert parse(answer(query("empty.shop.svc.cluster.local"), NAMES.get)) == (0, [])


@pytest.mark.parametrize("name", ["example.com", "db.shop.svc", "secret-data.evil.example"])
def test_every_other_name_does_not_exist(name: str) -> None:
    assert parse(answer(query(name), NAMES.get)) == (3, [])


def test_an_answer_fits_into_a_plain_packet() -> None:
    reply = answer(query("many.shop.svc.cluster.local"), lambda _: ["10.88.0.2"] * 1000)

    assert reply is not None
    assert len(reply) <= 512
    assert len(parse(reply)[1]) > 20


def test_what_cannot_be_read_is_answered_as_such() -> None:
    assert parse(answer(query("a.b", questions=2), NAMES.get))[0] == 1
    assert parse(answer(query("a.b")[:-6] + b"\xc0\x0c", NAMES.get))[0] == 1


@given(st.binary(max_size=80))
def test_no_packet_makes_the_server_fail_and_no_reply_is_answered(packet: bytes) -> None:
    reply = answer(packet, NAMES.get)

    if reply is not None:
        assert answer(reply, NAMES.get) is None
