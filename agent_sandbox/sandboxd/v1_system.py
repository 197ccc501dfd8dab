"""The rest of the versioned API: health, ports, metrics, and the document that describes it all."""

from typing import Any, Final

import anyio
from aiohttp import web

from agent_sandbox.sandboxd.errors import InvalidRequestError
from agent_sandbox.sandboxd.execution import Executor
from agent_sandbox.sandboxd.openapi import document
from agent_sandbox.sandboxd.ports import listening_blocking, wait_until_listening
from agent_sandbox.sandboxd.process_table import ProcessTable
from agent_sandbox.sandboxd.threads import in_thread

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
LONGEST_WAIT: Final = 3600.0


class SystemApi:
    """Handlers for the daemon itself and the sandbox's ports."""

    def __init__(self, executor: Executor, processes: ProcessTable) -> None:
        self._executor = executor
        self._processes = processes
        self._began = anyio.current_time()
        self._requests: dict[tuple[str, int], int] = {}

    def routes(self) -> list[web.RouteDef]:
        """The routes of this API."""
        return [
            web.get("/v1/health", self.health),
            web.get("/v1/openapi.json", self.openapi),
            web.get("/v1/ports", self.list_ports),
            web.get("/v1/ports/{number:[0-9]{1,5}}/wait", self.wait_for_port),
            web.get("/metrics", self.metrics),
        ]

    def count(self, method: str, status: int) -> None:
        """Take note of an answered request."""
        method = method if method in _METHODS else "other"
        self._requests[method, status] = self._requests.get((method, status), 0) + 1

    async def health(self, request: web.Request) -> web.Response:
        """That the daemon serves, and for how long."""
        uptime = anyio.current_time() - self._began
        return web.json_response({"status": "ok", "uptime_seconds": round(uptime, 3)})

    async def openapi(self, request: web.Request) -> web.Response:
        """The OpenAPI document."""
        return web.json_response(document())

    async def list_ports(self, request: web.Request) -> web.Response:
        """TCP ports that listen now."""
        ports = await in_thread(listening_blocking)
        return web.json_response({"ports": [{"port": port.number, "loopback": port.loopback} for port in ports]})

    async def wait_for_port(self, request: web.Request) -> web.Response:
        """Wait until a port listens."""
        number = int(request.match_info["number"])
        listening = await wait_until_listening(number, _timeout(request))
        return web.json_response({"port": number, "listening": listening})

    async def metrics(self, request: web.Request) -> web.Response:
        """Counters and gauges in Prometheus' text format."""
        return web.Response(text="\n".join(self._lines()) + "\n", content_type="text/plain")

    def _lines(self) -> list[str]:
        lines = [
            "# HELP sandboxd_requests_total Requests answered.",
            "# TYPE sandboxd_requests_total counter",
            *(
                f'sandboxd_requests_total{{method="{method}",code="{status}"}} {count}'
                for (method, status), count in sorted(self._requests.items())
            ),
        ]
        values: dict[str, tuple[str, str, Any]] = {
            "sandboxd_commands_running": ("gauge", "Commands of the legacy API running.", self._executor.running),
            "sandboxd_processes_running": ("gauge", "Processes running.", self._processes.running),
            "sandboxd_processes_started_total": ("counter", "Processes started.", self._processes.started),
            "sandboxd_uptime_seconds": ("gauge", "Since the start.", round(anyio.current_time() - self._began, 3)),
        }
        for name, (kind, text, value) in values.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
        return lines


def _timeout(request: web.Request) -> float:
    try:
        timeout = float(request.query.get("timeout", 30))
    except ValueError:
        timeout = -1.0
    if not 0 <= timeout <= LONGEST_WAIT:
        raise InvalidRequestError(f"timeout must be a number of seconds from 0 to {LONGEST_WAIT:g}")
    return timeout
