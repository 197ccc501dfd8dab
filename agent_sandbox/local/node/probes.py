"""Asks containers for their health: by HTTP, by TCP, by a command.

``check`` makes one attempt; ``watch_probe`` repeats it for as long as the container lives. It follows the kubelet's
rules for thresholds and periods, with one difference: until the first success it asks again after 10 ms, then a little
later each time, up to the period, because a sandbox that is ready after 200 ms shall not wait for the next full second.
Those early attempts never count as failures.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import anyio

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.errors import NodeError
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.pods import Container, ExecAction, HttpGet, Probe, TcpSocket

_FIRST_PAUSE: Final = 0.01
_GROWTH: Final = 1.3
_STATUS_LINE_LIMIT: Final = 4096

RunCommand = Callable[[tuple[str, ...]], Awaitable[tuple[int, str]]]
"""Runs a command in the container: exit code and what it printed."""


@dataclass(frozen=True)
class Target:
    """The container that is asked."""

    network: PodNetwork
    address: str
    container: Container
    run: RunCommand


@dataclass(frozen=True)
class Outcome:
    """One attempt's result; ``message`` says why it failed."""

    healthy: bool
    message: str = ""


def port_number(port: int | str, container: Container) -> int:
    """A port given by number or by the name of one of the container's ports.

    Raises:
        ValueError: the container has no port of that name.
    """
    if isinstance(port, int):
        return port
    for known in container.ports:
        if known.name == port:
            return known.container_port
    if port.isdigit():
        return int(port)
    raise ValueError(f"container {container.name!r} has no port called {port!r}")


async def check(probe: Probe, target: Target) -> Outcome:
    """Ask once, within the probe's timeout."""
    try:
        with anyio.fail_after(max(1, probe.timeout_seconds)):
            if probe.http_get is not None:
                return await _http(probe.http_get, target)
            if probe.tcp_socket is not None:
                return await _tcp(probe.tcp_socket, target)
            if probe.exec is not None:
                return await _exec(probe.exec, target)
    except TimeoutError:
        return Outcome(False, f"no answer within {probe.timeout_seconds} s")
    except (OSError, EOFError, ValueError, NodeError) as error:
        return Outcome(False, str(error))
    return Outcome(True)


async def _tcp(action: TcpSocket, target: Target) -> Outcome:
    connection = await target.network.connect(action.host or target.address, port_number(action.port, target.container))
    connection.close()
    return Outcome(True)


async def _http(action: HttpGet, target: Target) -> Outcome:
    host, port = action.host or target.address, port_number(action.port, target.container)
    connection = await target.network.connect(host, port)
    tls, name = (_unverified(), host) if action.scheme == "HTTPS" else (None, None)
    reader, writer = await asyncio.open_connection(
        sock=connection, limit=_STATUS_LINE_LIMIT, ssl=tls, server_hostname=name
    )
    try:
        headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/local", "Accept": "*/*", "Connection": "close"}
        headers |= {str(header.get("name")): str(header.get("value", "")) for header in action.http_headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {action.path or '/'} HTTP/1.1\r\n{head}\r\n".encode())
        status_line = (await reader.readline()).decode("latin-1")
    finally:
        writer.close()
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        return Outcome(False, f"no HTTP answer from {host}:{port}: {status_line.strip()!r}")
    status = int(parts[1])
    if 200 <= status < 400:
        return Outcome(True)
    return Outcome(False, f"HTTP probe failed with statuscode: {status}")


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    """TLS without a check of the certificate, as a kubelet's probes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _exec(action: ExecAction, target: Target) -> Outcome:
    code, output = await target.run(action.command)
    return Outcome(code == 0, output.strip() or f"command exited with code {code}")


async def watch_probe(
    probe: Probe, target: Target, clock: Clock, changed: Callable[[bool, str], None], *, once: bool = False
) -> None:
    """Ask again and again, and report when the health changes, until cancelled.

    Args:
        probe: how to ask.
        target: whom.
        clock: for the pauses.
        changed: called with True after ``successThreshold`` successes in a row, with False and the last message after
            ``failureThreshold`` failures in a row; only when it differs from the last report.
        once: return after the first report of success (startup probes).
    """
    await clock.sleep(probe.initial_delay_seconds)
    period = max(1, probe.period_seconds)
    reported: bool | None = None
    successes = failures = 0
    pause = _FIRST_PAUSE
    next_counted = clock.monotonic() + period
    while True:
        outcome = await check(probe, target)
        if outcome.healthy:
            successes, failures = successes + 1, 0
            pause = float(period)
            if successes >= probe.success_threshold and reported is not True:
                reported = True
                changed(True, "")
                if once:
                    return
            elif reported is not True:
                pause = min(_FIRST_PAUSE * 10, period)
        else:
            successes = 0
            if reported or clock.monotonic() >= next_counted:
                failures += 1
                next_counted = clock.monotonic() + period
            if failures >= probe.failure_threshold and reported is not False:
                reported = False
                changed(False, outcome.message)
            pause = float(period) if reported is not None else min(pause * _GROWTH, period)
        await clock.sleep(pause)
