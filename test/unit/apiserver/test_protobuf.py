"""Bodies in Kubernetes' protobuf encoding: what they mean, and that no bytes do harm."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.local.apiserver.http import ApiRequest
from agent_sandbox.local.apiserver.protobuf import UnknownMessageError, WireError, decode_body
from agent_sandbox.testing.apiserver import InMemoryApiServer

PROTOBUF = "application/vnd.kubernetes.protobuf"


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(number: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def envelope(version: str, kind: str, raw: bytes, *more: bytes) -> bytes:
    return b"k8s\x00" + text(1, text(1, version) + text(2, kind)) + text(2, raw) + b"".join(more)


def named(name: str) -> bytes:
    """Metadata as Go writes it, with its empty strings and its zero time."""
    return text(1, text(1, name) + text(2, "") + text(3, "") + whole(7, 0) + text(8, whole(1, 0) + whole(2, 0)))


NAMESPACE = envelope("v1", "Namespace", named("team") + text(2, b"") + text(3, text(1, "")), text(3, ""), text(4, ""))


def test_a_namespace_as_kubectl_sends_it() -> None:
    """Empty strings and zero times are left out, as in Go's JSON; empty structs stay."""
    assert decode_body(NAMESPACE) == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team", "generation": 0},
        "spec": {},
        "status": {},
    }


def test_maps_bytes_and_booleans() -> None:
    """Bytes are base64 in JSON; a map's missing key or value is empty."""
    entries = text(2, text(1, "a") + text(2, b"\x00\xff")) + text(2, text(1, "empty"))
    value = decode_body(envelope("v1", "Secret", named("s") + entries + text(3, "Opaque") + whole(5, 1)))

    assert value["data"] == {"a": "AP8=", "empty": ""}
    assert (value["type"], value["immutable"]) == ("Opaque", True)


def test_lists_times_and_managed_fields() -> None:
    """Repeated messages in their order; FieldsV1 is the JSON that it carries."""
    managed = text(17, text(1, "kubectl") + text(4, whole(1, 86_400)) + text(7, text(1, b'{"f:data":{}}')))
    owners = text(13, text(1, "Pod") + text(3, "a") + whole(6, 0)) + text(13, text(3, "b"))
    value = decode_body(envelope("v1", "ConfigMap", text(1, text(1, "c") + owners + managed)))

    assert value["metadata"]["ownerReferences"] == [{"kind": "Pod", "name": "a", "controller": False}, {"name": "b"}]
    assert value["metadata"]["managedFields"] == [
        {"manager": "kubectl", "time": "1970-01-02T00:00:00Z", "fieldsV1": {"f:data": {}}}
    ]


def test_delete_options_of_any_version() -> None:
    """Zero seconds is an answer, not the lack of one; the group of the options is that of the request."""
    options = whole(1, 0) + text(2, text(1, "uid-1")) + text(4, "Foreground") + text(5, "All")

    assert decode_body(envelope("apps/v1", "DeleteOptions", options)) == {
        "apiVersion": "apps/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "uid-1"},
        "propagationPolicy": "Foreground",
        "dryRun": ["All"],
    }


def test_negative_numbers_come_in_ten_bytes() -> None:
    """int64 on the wire is two's complement."""
    assert decode_body(envelope("v1", "DeleteOptions", whole(1, -5)))["gracePeriodSeconds"] == -5


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    """A newer kubectl may send more."""
    more = whole(90, 1) + text(91, "x") + varint(92 << 3 | 1) + bytes(8) + varint(93 << 3 | 5) + bytes(4)
    value = decode_body(envelope("v1", "Namespace", more + named("a")))

    assert value["metadata"]["name"] == "a"


def test_a_message_may_come_in_pieces() -> None:
    """Parts of a singular message add up, and the last of a scalar counts."""
    pieces = text(1, text(1, "first")) + text(1, text(3, "space")) + text(1, text(1, "last"))

    assert decode_body(envelope("v1", "ConfigMap", pieces))["metadata"] == {"name": "last", "namespace": "space"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not appear to be a protobuf message"),
        (b'{"kind":"Namespace"}', "does not appear to be a protobuf message"),
        (b"k8s\x00", "'Kind' is missing"),
        (envelope("", "Namespace", b""), "'apiVersion' is missing"),
        (NAMESPACE[:-3], "unexpected EOF"),
        (envelope("v1", "Namespace", whole(1, 7)), "wrong wireType = 0 for field metadata"),
        (envelope("v1", "Namespace", text(1, text(1, b"\xff"))), "invalid UTF-8"),
        (envelope("v1", "Namespace", b"\x00"), "illegal tag 0"),
        (envelope("v1", "Namespace", varint(90 << 3 | 3)), "illegal wireType 3"),
        (envelope("v1", "DeleteOptions", b"\x08" + b"\xff" * 10), "integer overflow"),
        (envelope("v1", "DeleteOptions", b"\x08" + b"\xff" * 9 + b"\x7f"), "integer overflow"),
        (envelope("v1", "DeleteOptions", b"\x08\xff"), "unexpected EOF"),
        (envelope("v1", "Namespace", text(1, text(8, whole(1, 1 << 62)))), "outside of the years"),
        (envelope("v1", "Namespace", text(1, text(17, text(7, text(1, "{"))))), "holds no JSON"),
    ],
)
def test_bytes_that_are_no_object_are_refused_with_the_reason(body: bytes, message: str) -> None:
    """And with nothing else."""
    with pytest.raises(WireError, match=message):
        decode_body(body)


@pytest.mark.parametrize(
    "body",
    [envelope("apps/v1", "Deployment", named("a")), envelope("v1", "Namespace", named("a"), text(3, "gzip"))],
    ids=["kind", "encoding"],
)
def test_other_kinds_and_encodings_are_not_read(body: bytes) -> None:
    """The server answers 415 to them."""
    with pytest.raises(UnknownMessageError):
        decode_body(body)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(raw: bytes) -> None:
    """Whatever comes is an object or a refusal."""
    for body in (b"k8s\x00" + raw, envelope("v1", "Secret", raw), envelope("v1", "DeleteOptions", raw)):
        with contextlib.suppress(WireError, UnknownMessageError):
            decode_body(body)


@given(st.integers(0, len(NAMESPACE) - 1), st.integers(0, 255))
def test_no_changed_byte_does_harm(position: int, byte: int) -> None:
    """Near misses go deeper than noise."""
    with contextlib.suppress(WireError, UnknownMessageError):
        decode_body(NAMESPACE[:position] + bytes([byte]) + NAMESPACE[position + 1 :])


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_what_is_written_is_read(data: dict[str, str]) -> None:
    """Any text, in any order."""
    raw = named("c") + b"".join(text(2, text(1, key) + text(2, value)) for key, value in data.items())

    assert decode_body(envelope("v1", "ConfigMap", raw)).get("data", {}) == data


async def _post(server: InMemoryApiServer, path: str, body: bytes) -> tuple[int, Any]:
    headers = {"content-type": PROTOBUF, "accept": f"{PROTOBUF},application/json"}
    answer = await server.server.handle(ApiRequest("POST", path, headers=headers, body=body))
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status, msgspec.json.decode(answer.body)


async def test_a_namespace_is_created_and_the_answer_is_json() -> None:
    """The Accept header names JSON after protobuf; that is allowed."""
    async with InMemoryApiServer() as server:
        status, created = await _post(server, "/api/v1/namespaces", NAMESPACE)

    assert status == 201
    assert created["metadata"]["name"] == "team"
    assert created["status"] == {"phase": "Active"}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/v1/namespaces", NAMESPACE[:-3], 400, "the object provided is unrecognized: unexpected EOF"),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            envelope("apps/v1", "Deployment", named("a")),
            415,
            "unknown format - accepted media types include: application/json, application/yaml",
        ),
        ("/api/v1/namespaces/default/configmaps", NAMESPACE, 400, "Namespace"),
    ],
    ids=["malformed", "unknown kind", "another kind than the path's"],
)
async def test_refusals_of_the_server(path: str, body: bytes, status: int, message: str) -> None:
    """400 for what cannot be read, 415 for kinds that are not read in protobuf."""
    async with InMemoryApiServer() as server:
        found, answer = await _post(server, path, body)

    assert found == status
    assert message in answer["message"]
