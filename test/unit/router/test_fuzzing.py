"""The parsers under arbitrary bytes: they refuse with an error of their own, or what they give means one thing only."""

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_sandbox.clock import SystemClock
from agent_sandbox.router import TokenKeys
from agent_sandbox.router.browser import cookie_token, invitation, is_foreign, without_token
from agent_sandbox.router.errors import RefusalError
from agent_sandbox.router.http1 import (
    CHUNKED,
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
from agent_sandbox.router.rewrite import request_to_sandbox, response_to_client
from agent_sandbox.router.routing import read_route
from agent_sandbox_api.access import AccessKey, AccessToken, AccessTokenError

QUICK = settings(max_examples=100, deadline=None)
KEY = AccessKey.generate()

TOKEN = st.text(alphabet=string.ascii_letters + string.digits + "-_", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=24).map(lambda data: bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F).strip())
NAMES = b"Host X-Sandbox-ID X-Sandbox-Port Content-Length Transfer-Encoding Connection Cookie".split()
VALUES = [b"5", b"chunked", b"box"]
HEADER = st.tuples(st.one_of(TOKEN, st.sampled_from(NAMES)), st.one_of(VALUE, st.sampled_from(VALUES)))
PIECES = [b"GET / HTTP/1.1", b"\r\n", b"Host: a", b":", b" ", b"\n", b"\0", b"a"]
PATHS = [b"/sandboxes/default/box/80/", b"/prefixed/default/box/80/", b"/"]
TARGET = st.one_of(
    st.binary(max_size=40).map(lambda data: b"/" + bytes(byte for byte in data if byte > 0x20 and byte != 0x7F)),
    st.sampled_from([b"/sandboxes/default/box/80/x", b"/prefixed/default/box/80", b"*", b"http://h/x", b"//h/x"]),
)
SOUP = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))


@given(SOUP)
@QUICK
def test_arbitrary_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        head = parse_request(data)
        request_framing(head)
        read_route(head, domain="box.example", known=lambda *_: True)
        invitation(head), cookie_token(head), is_foreign(head)
    except RefusalError:
        return
    assert b"\r" not in head.target
    assert b"\n" not in head.target


@given(SOUP)
@QUICK
def test_arbitrary_bytes_are_a_response_or_refused(data: bytes) -> None:
    try:
        response_framing(parse_response(data), b"GET")
    except RefusalError:
        return


@given(TARGET, st.lists(HEADER, max_size=8))
@QUICK
def test_what_the_router_passes_on_is_read_by_another_reader_as_the_same_request(target: bytes, headers: Any) -> None:
    """No smuggling: what goes to the sandbox is one head, with one length, and none of the router's own headers."""
    raw = b"\r\n".join([b"POST %b HTTP/1.1" % target, *(name + b": " + value for name, value in headers)])
    try:
        head = parse_request(raw)
        framing = request_framing(head)
        route = read_route(head)
        sent = request_to_sandbox(head, framing, route, peer="127.0.0.1", proto="http", trace={})
    except RefusalError:
        return
    assert sent.count(b"\r\n\r\n") == 1
    assert sent.endswith(b"\r\n\r\n")
    again = parse_request(sent[:-4])
    assert (again.method, again.target) == (b"POST", route.target)
    assert request_framing(again) == framing
    assert not [name for name, _ in again.headers if name.lower().startswith(b"x-sandbox-")]
    assert len(again.all(b"x-forwarded-for")) == 1


@given(st.lists(HEADER, max_size=8), st.sampled_from(PATHS))
@QUICK
def test_what_the_router_answers_is_read_as_the_same_response(headers: Any, target: bytes) -> None:
    request = parse_request(b"GET %b HTTP/1.1\r\nHost: h\r\nX-Sandbox-ID: box" % target)
    raw = b"\r\n".join([b"HTTP/1.1 200 OK", *(name + b": " + value for name, value in headers)])
    try:
        head = parse_response(raw)
        framing = response_framing(head, b"GET")
        sent = response_to_client(head, framing, request, read_route(request), close=False)
    except RefusalError:
        return
    again = response_framing(parse_response(sent[:-4]), b"GET")
    chunked = framing.kind is BodyKind.UNTIL_CLOSE
    assert again == (CHUNKED if chunked else framing)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.binary(max_size=20), st.data())
@QUICK
def test_chunks_come_out_as_they_went_in_however_they_are_cut(bodies: list[bytes], after: bytes, data: Any) -> None:
    wire = b"".join(map(encode_chunk, bodies)) + b"0\r\n\r\n" + after
    decoder, out, at = BodyDecoder(CHUNKED), b"", 0
    while at < len(wire):
        step = data.draw(st.integers(1, 30))
        out += decoder.feed(wire[at : at + step])
        at += step
    assert decoder.done
    assert (out, decoder.rest) == (b"".join(bodies), after)


@given(st.binary(max_size=200), st.sampled_from([CHUNKED, Framing(BodyKind.LENGTH, 20), Framing(BodyKind.UNTIL_CLOSE)]))
@QUICK
def test_arbitrary_body_is_bounded_or_refused(data: bytes, framing: Framing) -> None:
    decoder = BodyDecoder(framing)
    try:
        assert len(decoder.feed(data)) <= len(data)
    except RefusalError:
        return


@given(st.one_of(st.text(max_size=200), st.text(alphabet=string.printable, max_size=60).map(lambda text: f"v2.{text}")))
@QUICK
def test_arbitrary_text_is_no_token(text: str) -> None:
    with pytest.raises(AccessTokenError):
        AccessToken.parse(text)
    with pytest.raises(RefusalError):
        TokenKeys([b"k" * 32], clock=SystemClock()).read(text)


@given(st.integers(0, 10_000), st.integers(0, 255))
@QUICK
def test_token_with_a_changed_byte_was_not_signed(place: int, byte: int) -> None:
    good = KEY.sign(namespace="n", name="c", uid="u", expires=1, ports=(80,))
    (key,) = KEY.annotations.values()
    at = place % len(good)
    changed = good[:at] + chr(byte) + good[at + 1 :]
    try:
        parsed = AccessToken.parse(changed)
    except AccessTokenError:
        return
    # The last character of base64 has bits that mean nothing: the same token in another spelling is the same token.
    assert not parsed.is_signed_by(key) or parsed == AccessToken.parse(good)


@given(st.binary(max_size=60))
@QUICK
def test_our_cookie_is_taken_out_and_nothing_else(value: bytes) -> None:
    left = without_token(b"a=1; agent-sandbox-token=x;" + value)
    assert b"agent-sandbox-token=x" not in left
    assert left.startswith(b"a=1")


def test_encoded_head_is_what_is_parsed() -> None:
    head = encode_head(b"GET / HTTP/1.1", [(b"Host", b"a"), (b"X", b"b")])
    assert parse_request(head[:-4]).headers == ((b"Host", b"a"), (b"X", b"b"))
