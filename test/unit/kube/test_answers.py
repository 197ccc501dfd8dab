"""Answers of an API server, cut anywhere, and bytes that are none."""

import pytest

from agent_sandbox.kube import RawResponse
from agent_sandbox.kube.answers import AnswerReader, MalformedAnswerError

WITH_LENGTH = b"HTTP/1.1 200 OK\r\nRetry-After: 3\r\nContent-Length: 5\r\n\r\nhello"
IN_CHUNKS = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nAudit-ID: x\r\n\r\n"
    b"3\r\nhel\r\n002;name=value\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
)
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\n" + WITH_LENGTH
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


def read(data: bytes, *, step: int = 1 << 20, method: str = "GET") -> tuple[RawResponse | None, AnswerReader]:
    reader = AnswerReader(method)
    answer = None
    for at in range(0, len(data), step):
        assert answer is None, "it was complete before its last byte"
        answer = reader.feed(data[at : at + step])
    return answer, reader


@pytest.mark.parametrize("data", [WITH_LENGTH, IN_CHUNKS, ANNOUNCED, EMPTY], ids=["length", "chunks", "100", "204"])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_an_answer_is_whole_wherever_its_bytes_are_cut(data: bytes, step: int) -> None:
    answer, reader = read(data, step=step)
    assert answer is not None
    assert answer.body == (b"" if data is EMPTY else b"hello")
    assert reader.may_stay
    if data is IN_CHUNKS:
        assert (answer.status, answer.headers["audit-id"]) == (201, "x")


@pytest.mark.parametrize("data", [WITH_LENGTH, IN_CHUNKS], ids=["length", "chunks"])
def test_an_answer_that_is_cut_is_none(data: bytes) -> None:
    for length in range(len(data)):
        answer, reader = read(data[:length])
        assert answer is None
        assert reader.end() is None


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    answer, reader = read(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert answer is None
    assert reader.feed(b"lo") is None
    answer = reader.end()
    assert answer is not None
    assert (answer.body, reader.may_stay) == (b"hello", False)


def test_the_answer_to_head_has_no_body_whatever_length_it_tells() -> None:
    answer, reader = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", method="HEAD")
    assert answer is not None
    assert (answer.body, reader.may_stay) == (b"", True)


@pytest.mark.parametrize(
    ("data", "stays"),
    [
        (WITH_LENGTH.replace(b"Retry-After: 3", b"Connection: Close"), False),
        (WITH_LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (WITH_LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Retry-After: 3", b"Connection: keep-alive"), True),
        (WITH_LENGTH + b"HTTP/1.1", False),
    ],
    ids=["close", "1.0", "1.0 kept", "more than was asked for"],
)
def test_a_connection_stays_only_where_both_know_that_it_does(data: bytes, stays: bool) -> None:
    answer, reader = read(data)
    assert answer is not None
    assert answer.body == b"hello"
    assert reader.may_stay is stays


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300_000,
    ],
)
def test_nothing_is_guessed(data: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        read(data)
