"""The little that stands between us and OpenTelemetry: nothing without it, the usual variables with it."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from agent_sandbox import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROGRAM = """
import sys
if "{without}":
    sys.modules["opentelemetry"] = None
from agent_sandbox import tracing
with tracing.export_spans("test-service"), tracing.span("work", parent={{"traceparent": "{parent}"}}) as span:
    span.note({{"answer": 42}})
    print(tracing.current())
"""


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", '"x"', "{}", '{"traceparent": 1}', '{"other": "x"}', '{"traceparent": "' + "0" * 2000]
)
def test_what_is_no_trace_context_is_none(text: str) -> None:
    assert tracing.from_annotation(text) == {}


def test_a_trace_context_survives_its_annotation() -> None:
    context = {"traceparent": PARENT, "tracestate": "a=b"}
    assert tracing.from_annotation(tracing.to_annotation(context)) == context
    assert tracing.to_annotation({}) == ""


def run(*, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(without=without, parent=PARENT)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env={**clean, **environment}, check=True, capture_output=True, text=True)


def test_without_an_endpoint_a_process_never_loads_opentelemetry() -> None:
    program = "import sys; from agent_sandbox import tracing\nwith tracing.export_spans('x'), tracing.span('y'): pass\n"
    program += "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_an_endpoint_without_the_extra_is_a_warning_that_names_it() -> None:
    done = run(without="yes", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert "agent-sandbox-k8s[otel]" in done.stderr
    assert done.stdout == "{}\n"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OTLP endpoint: its URL, and the paths and bodies that it got."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_with_an_endpoint_spans_are_sent_there_before_the_process_ends(collector: Any) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install '.[otel]'")
    url, got = collector
    done = run(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_COMPRESSION="none")

    assert "0af7651916cd43dd8448eb211c80319c" in done.stdout
    ((path, body),) = got
    assert path == "/v1/traces"
    assert b"test-service" in body
    assert b"work" in body
    assert bytes.fromhex("0af7651916cd43dd8448eb211c80319c") in body
