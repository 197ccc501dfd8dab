"""Limits per sandbox, metrics, the access log and the control endpoints."""

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import structlog.testing

GET = b"GET %b HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: %b\r\nX-Sandbox-Port: %d\r\n%bConnection: close\r\n\r\n"


async def greet(visit: Any) -> None:
    await visit.head()
    await visit.answer()


async def ask_control(place: Any, path: str) -> bytes:
    host, _, port = place.router.control_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    return answer


async def test_one_sandboxs_crowd_is_told_to_come_again_while_the_others_go_on(run_router: Any) -> None:
    go_on = anyio.Event()

    async def hold(visit: Any) -> None:
        await visit.head()
        await go_on.wait()
        await visit.answer()

    async with run_router(max_concurrent=1) as place:
        slow = await place.sandbox(hold, "slow")
        quick = await place.sandbox(greet, "quick")
        first = await place.client()
        await first.send(GET % (b"/", b"slow", slow.port, b""))
        while not slow.visits:
            await anyio.lowlevel.checkpoint()
        refused = await place.ask(GET % (b"/", b"slow", slow.port, b""))
        other = await place.ask(GET % (b"/", b"quick", quick.port, b""))
        go_on.set()
        _, body = await first.response()
        again = await place.ask(GET % (b"/", b"slow", slow.port, b""))

    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 1\r\n" in refused
    assert b"\r\nX-Sandbox-Error: rate-limited\r\n" in refused
    assert other.startswith(b"HTTP/1.1 200")
    assert body == b"ok"
    assert again.startswith(b"HTTP/1.1 200")


async def test_rate_beyond_the_burst_is_refused_with_when_to_come_again(run_router: Any) -> None:
    async with run_router(max_rate=0.01, burst=2) as place:
        box = await place.sandbox(greet)
        began = anyio.current_time()
        answers = [await place.ask(GET % (b"/", b"box", box.port, b"")) for _ in range(3)]
        took = anyio.current_time() - began

    assert [answer.split(b" ")[1] for answer in answers] == [b"200", b"200", b"429"]
    said = int(answers[2].partition(b"\r\nRetry-After: ")[2].partition(b"\r\n")[0])
    assert 100 - took <= said <= 100


async def test_metrics_have_the_go_routers_names_and_no_label_of_the_callers_choice(run_router: Any) -> None:
    async with run_router(control_port=0) as place:
        box = await place.sandbox(greet)
        await place.ask(GET % (b"/", b"box", box.port, b""))
        await place.ask(GET % (b"/", b"nobody", 80, b"X-Sandbox-Namespace: made-up\r\n"))
        await place.ask((GET % (b"/", b"box", box.port, b"")).replace(b"GET", b"INVENTED", 1))
        await place.ask(GET % (b"/", b"box", 1, b""))
        text = (await ask_control(place, "/metrics")).decode()

    assert 'sandbox_router_requests_total{code="200",method="GET",sandbox_namespace="default"} 1.0' in text
    assert 'sandbox_router_requests_total{code="404",method="GET",sandbox_namespace=""} 1.0' in text
    assert 'sandbox_router_requests_total{code="200",method="other",sandbox_namespace="default"} 1.0' in text
    assert 'sandbox_router_upstream_errors_total{reason="dial",sandbox_namespace="default"} 1.0' in text
    assert "sandbox_router_inflight_requests 0.0" in text
    assert "sandbox_router_request_duration_seconds_bucket" in text
    assert "made-up" not in text
    assert "INVENTED" not in text


async def test_control_endpoints_say_when_the_router_drains(run_router: Any) -> None:
    go_on = anyio.Event()

    async def hold(visit: Any) -> None:
        await visit.head()
        await go_on.wait()
        await visit.answer()

    async with run_router(control_port=0, drain_timeout=5) as place:
        box = await place.sandbox(hold)
        assert (await ask_control(place, "/readyz")).startswith(b"HTTP/1.1 200")
        assert (await ask_control(place, "/healthz")).startswith(b"HTTP/1.1 200")
        assert (await ask_control(place, "/elsewhere")).startswith(b"HTTP/1.1 404")
        client = await place.client()
        await client.send(GET % (b"/", b"box", box.port, b""))
        while not box.visits:
            await anyio.lowlevel.checkpoint()
        place.tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            while (await ask_control(place, "/readyz")).startswith(b"HTTP/1.1 200"):
                await anyio.lowlevel.checkpoint()
            alive = await ask_control(place, "/healthz")
            go_on.set()
            _, body = await client.response()

    assert alive.startswith(b"HTTP/1.1 200")
    assert body == b"ok"


async def test_access_log_names_the_sandbox_and_never_the_query(run_router: Any) -> None:
    trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nUser-Agent: me\r\n"
    with structlog.testing.capture_logs() as lines:
        async with run_router(access_log=True) as place:
            box = await place.sandbox(greet)
            await place.ask(GET % (b"/path?secret=1", b"box", box.port, trace))
            await place.ask(GET % (b"/", b"nobody", 80, b""))

    seen, refused = lines
    assert (seen["method"], seen["path"], seen["status"]) == ("GET", "/path", 200)
    assert (seen["namespace"], seen["sandbox"], seen["client_ip"]) == ("default", "box", "127.0.0.1")
    assert (seen["trace_id"], seen["user_agent"]) == ("0af7651916cd43dd8448eb211c80319c", "me")
    assert seen["bytes_out"] == 2
    assert (refused["status"], refused["reason"], refused["sandbox"]) == (404, "not-found", "")
