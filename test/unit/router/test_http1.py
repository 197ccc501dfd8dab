"""The codec: whatever comes in, it reads it one way only or refuses it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.router.errors import BadRequestError, RefusalError
from agent_sandbox.router.http1 import (
    CHUNKED,
    LAST_CHUNK,
    BodyDecoder,
    BodyKind,
    Framing,
    encode_chunk,
    encode_head,
    parse_request,
    parse_response,
    request_framing,
    response_framing,
)

token = st.text("abcdefghijklmnopqrstuvwxyzABCDEFXYZ0123456789-_!#", min_size=1, max_size=20).map(str.encode)
value = st.binary(max_size=50).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip(b" \t"))
target = st.binary(min_size=0, max_size=50).map(lambda raw: b"/" + bytes(b for b in raw if b > 0x20 and b != 0x7F))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        head = parse_request(data)
        request_framing(head)
    except RefusalError:
        return
    assert head.target == b"*" or head.target.startswith(b"/")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_response_or_refused(data: bytes) -> None:
    try:
        head = parse_response(data)
        response_framing(head, b"GET")
    except BadRequestError:
        return
    assert 100 <= head.status <= 999


@given(token, target, st.lists(st.tuples(token, value), max_size=10))
def test_written_head_reads_back_as_it_was(method: bytes, path: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(name, text) for name, text in headers if name.lower() != b"host"]
    raw = encode_head(method + b" " + path + b" HTTP/1.1", [(b"Host", b"h"), *headers])

    if method == b"CONNECT":
        return
    head = parse_request(raw.removesuffix(b"\r\n\r\n"))

    assert (head.method, head.target) == (method, path)
    assert list(head.headers) == [(b"Host", b"h"), *headers]


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=8), st.data())
def test_chunked_body_reads_the_same_however_it_is_cut(pieces: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(encode_chunk(piece) for piece in pieces) + LAST_CHUNK + b"next request"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    decoder = BodyDecoder(CHUNKED)

    body = b"".join(decoder.feed(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))

    assert body == b"".join(pieces)
    assert decoder.done
    assert decoder.rest == b"next request"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_chunked_body_or_refused(data: bytes) -> None:
    decoder = BodyDecoder(CHUNKED)
    try:
        body = decoder.feed(data)
    except BadRequestError:
        return
    assert len(body) <= len(data)


@given(st.integers(1, 50), st.binary(max_size=100))
def test_body_of_a_stated_length_ends_there(length: int, data: bytes) -> None:
    decoder = BodyDecoder(Framing(BodyKind.LENGTH, length))

    body = decoder.feed(data)

    assert body == data[:length]
    assert decoder.rest == data[length:]
    assert decoder.done == (len(data) >= length)
    assert decoder.end() == decoder.done


@pytest.mark.parametrize(
    ("method", "head", "kind"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5", BodyKind.NONE),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5", BodyKind.NONE),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5", BodyKind.NONE),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0", BodyKind.NONE),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5", BodyKind.LENGTH),
        (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", BodyKind.CHUNKED),
        (b"GET", b"HTTP/1.1 200", BodyKind.UNTIL_CLOSE),
    ],
)
def test_response_body_ends_as_rfc_9112_6_3_says(method: bytes, head: bytes, kind: BodyKind) -> None:
    assert response_framing(parse_response(head), method).kind is kind


def test_long_run_of_blanks_before_a_control_character_is_refused_at_once() -> None:
    """A pattern with two adjoining runs of blanks would take time squared here."""
    with pytest.raises(BadRequestError):
        parse_request(b"GET / HTTP/1.1\r\nHost: h\r\nX:" + b" " * 60000 + b"\x01")
