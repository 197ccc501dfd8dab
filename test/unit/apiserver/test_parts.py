"""The small parts: JSON paths, ages, paths of URLs, expressions, quantities, SPDY frames."""

import struct
import zlib
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.kube import KubeClient
from agent_sandbox.local.apiserver.custom import CUSTOM_RESOURCE_DEFINITIONS
from agent_sandbox.local.apiserver.jsonpath import compile_path, first_at, set_at
from agent_sandbox.local.apiserver.paths import ResourcePath, parse_resource_path
from agent_sandbox.local.apiserver.schema.expressions import ExpressionError, compile_expression
from agent_sandbox.local.apiserver.schema.rules import escape_name
from agent_sandbox.local.apiserver.site.spdy import (
    DICTIONARY,
    MAX_FRAME,
    Data,
    FrameReader,
    FrameWriter,
    Opened,
    Ping,
    SpdyError,
)
from agent_sandbox.local.apiserver.storage import Key
from agent_sandbox.local.apiserver.table import age, human_duration
from agent_sandbox.testing import InMemoryApiServer
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.crds import load_crds

VALUE = {
    "spec": {"a.b": 1, "list": [{"name": "x", "n": 1}, {"name": "y", "n": 2}]},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.list[0].name", ["x"]),
        (".spec.list[*].n", [1, 2]),
        (".spec.list[-1].name", ["y"]),
        (".spec['a.b']", [1]),
        (r".spec.a\.b", [1]),
        (".status.conditions[?(@.type=='Ready')].status", ["True"]),
        (".status.conditions[?(@.type!='Ready')].status", []),
        ("{.spec.list[0].n}", [1]),
        (".nothing.here", []),
    ],
)
def test_json_paths_find_values(path: str, found: list[Any]) -> None:
    """The forms that columns use."""
    assert compile_path(path)(VALUE) == found


def test_a_json_path_that_cannot_be_read_says_where() -> None:
    """Rather than find nothing for ever."""
    with pytest.raises(ValueError, match=r"cannot read the JSON path"):
        compile_path(".spec[")


def test_a_value_is_set_at_a_path() -> None:
    """Making what is missing."""
    value: dict[str, Any] = {}
    set_at(value, ".spec.replicas", 3)

    assert first_at(value, ".spec.replicas") == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (10800, "3h"),
        (11100, "3h5m"),
        (28800, "8h"),
        (172800, "2d"),
        (176400, "2d1h"),
        (864000, "10d"),
        (63072000, "2y"),
        (259200000, "8y"),
    ],
)
def test_durations_are_short(seconds: int, text: str) -> None:
    """As kubectl prints them."""
    assert human_duration(seconds) == text


def test_an_age_that_makes_no_sense_says_so() -> None:
    """The future, and what is no time."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert age("2026-01-02T00:00:00Z", now) == "<invalid>"
    assert age("soon", now) == "<invalid>"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/pods", ResourcePath("", "v1", "pods")),
        ("/api/v1/namespaces/a", ResourcePath("", "v1", "namespaces", "", "a")),
        ("/api/v1/namespaces/a/status", ResourcePath("", "v1", "namespaces", "", "a", "status")),
        ("/api/v1/namespaces/a/pods/b/log", ResourcePath("", "v1", "pods", "a", "b", "log")),
        ("/apis/g/v1/namespaces/a/things", ResourcePath("g", "v1", "things", "a")),
        ("/apis/g/v1/things/b/status", ResourcePath("g", "v1", "things", "", "b", "status")),
        ("/api/v1/namespaces/a/pods/b/proxy/x/y", ResourcePath("", "v1", "pods", "a", "b", "proxy", "x/y")),
        ("/version", None),
        ("/api/v1/namespaces//pods", None),
    ],
)
def test_url_paths_name_resources(path: str, expected: ResourcePath | None) -> None:
    """Namespaces are both a resource and a place."""
    assert parse_resource_path(path) == expected


@pytest.mark.parametrize(
    ("source", "variables", "expected"),
    [
        ("self.all(x, x > 0)", {"self": [1, 2]}, True),
        ("self.split('-').join('_')", {"self": "a-b"}, "a_b"),
        ("self.lowerAscii().replace('b', 'c')", {"self": "AB"}, "ac"),
        ("quantity(self).isGreaterThan(quantity('100Mi'))", {"self": "1Gi"}, True),
        ("isIP(self)", {"self": "10.0.0.1"}, True),
        ("isCIDR(self)", {"self": "10.0.0.0/8"}, True),
        ("self.isSorted()", {"self": [1, 3, 2]}, False),
        ("self.sum()", {"self": [1, 3, 2]}, 6),
        ("self.find('[0-9]+')", {"self": "ab12c"}, "12"),
        ("self.indexOf('b')", {"self": "ab"}, 1),
    ],
)
def test_expressions_have_kubernetes_functions(source: str, variables: dict[str, Any], expected: Any) -> None:
    """Beside CEL's own."""
    assert compile_expression(source).run(variables) == expected


def test_an_expression_that_does_not_parse_is_an_error() -> None:
    """And one that fails while it runs."""
    with pytest.raises(ExpressionError):
        compile_expression("self.a ==")
    with pytest.raises(ExpressionError, match="no such key"):
        compile_expression("self.a == 1").run({"self": {}})


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("2Gi", 2 * 1024**3), ("1e3", 1000), ("-1.5k", -1500)]
)
def test_cel_compares_quantities_as_numbers(text: str, number: float) -> None:
    assert compile_expression("quantity(self)").run({"self": text}) == number


@pytest.mark.parametrize("text", ["", "x", "1Q", "1 Gi", "1.2.3"])
def test_cel_tells_what_is_no_quantity(text: str) -> None:
    assert compile_expression("isQuantity(self)").run({"self": text}) is False
    with pytest.raises(ExpressionError, match="is not a quantity"):
        compile_expression("quantity(self)").run({"self": text})


def test_names_that_cel_cannot_say_are_escaped() -> None:
    """Keywords, dashes, dots and slashes."""
    assert [escape_name(name) for name in ("if", "a-b", "a.b", "a/b", "plain")] == [
        "__if__", "a__dash__b", "a__dot__b", "a__slash__b", "plain",
    ]  # fmt: skip


def test_the_spdy_dictionary_is_the_drafts() -> None:
    """Peers name it by its checksum."""
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def _open_frame(compressor: "zlib._Compress", stream: int, headers: dict[str, str]) -> bytes:
    block = struct.pack(">I", len(headers))
    for name, value in headers.items():
        block += struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(value)) + value.encode()
    body = struct.pack(">IIH", stream, 0, 0) + compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return struct.pack(">HHI", 0x8003, 1, len(body)) + body


@given(st.integers(min_value=1, max_value=60))
def test_frames_are_read_however_they_are_cut(size: int) -> None:
    """Two streams share one compression context."""
    compressor = zlib.compressobj(zdict=DICTIONARY)
    wire = _open_frame(compressor, 1, {"streamtype": "error", "port": "80"})
    wire += _open_frame(compressor, 3, {"streamtype": "data", "port": "80"})
    wire += FrameWriter().data(3, b"hello", finish=True) + FrameWriter().ping(7)
    reader = FrameReader()
    frames = [frame for at in range(0, len(wire), size) for frame in reader.feed(wire[at : at + size])]

    assert frames == [
        Opened(1, {"streamtype": "error", "port": "80"}, finished=False),
        Opened(3, {"streamtype": "data", "port": "80"}, finished=False),
        Data(3, b"hello", finished=True),
        Ping(7),
    ]


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack(">HHI", 0x8002, 1, 0),
        struct.pack(">II", 1, MAX_FRAME + 1),
        struct.pack(">HHI", 0x8003, 1, 12) + b"\0" * 12,
    ],
)
def test_what_is_no_spdy_is_refused(wire: bytes) -> None:
    """Another version, a frame without end, headers that do not decompress."""
    with pytest.raises(SpdyError):
        FrameReader().feed(wire)


async def test_a_stored_definition_that_cannot_be_served_is_in_nobodys_way() -> None:
    """It ended the server's background work, and every request after it was a 500, those after a restart, too."""
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "versions": [{"name": "v1", "served": True, "storage": True}]},
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }
    async with InMemoryApiServer(crds=load_crds()) as server:
        bucket = CUSTOM_RESOURCE_DEFINITIONS.bucket
        await server.server.objects._store.write(Key(bucket, "", "things.example.com"), definition)
        client = KubeClient(server.transport())

        assert (await client.list(SANDBOXES, "default")).items == []


async def test_a_watch_from_a_revision_that_is_yet_to_come_begins_behind_it() -> None:
    seen: list[int] = []
    body = {"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    async with InMemoryApiServer() as server, anyio.create_task_group() as tasks:
        client = KubeClient(server.transport())
        ahead = int((await client.list(PODS, "default")).resource_version) + 20

        async def follow() -> None:
            async with client.watch(PODS, "default", resource_version=str(ahead), timeout_seconds=60) as events:
                async for event in events:
                    seen.append(int(event.resource_version or 0))  # noqa: PERF401 - looked at while it grows

        tasks.start_soon(follow)
        made = 0
        while not seen or made <= ahead:
            made = int((await client.create(PODS, body, "default")).metadata.resource_version)
        tasks.cancel_scope.cancel()

    assert min(seen) > ahead
