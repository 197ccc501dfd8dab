"""Serves what operators of the process look at: /metrics, /healthz, /readyz and, if asked for, /debug.

In: a metrics registry and named checks. Out: plain text over HTTP. One listener per address; addresses may be the same.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio
import anyio.abc
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Check: TypeAlias = Callable[[], str | None]
"""A health check: None if all is well, else a sentence that says what is not."""

Authorizer: TypeAlias = Callable[[web.Request], Awaitable[web.Response | None]]
"""None lets a request pass; else the answer that refuses it."""

SHUTDOWN_TIMEOUT: Final = 1.0
"""Seconds for requests under way when a listener closes; scrapes are short."""


@dataclass(frozen=True)
class Address:
    """``host:port``; an empty host means all interfaces, port 0 any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``host:port``, ``:port`` or ``[v6]:port``.

        Raises:
            ValueError: the text is none of these.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is no address: write host:port or :port")
        return cls(host.strip("[]"), int(port))


class HttpServer:
    """One listener. ``port`` is the real port once ``run`` has said that it is ready."""

    def __init__(self, address: str, app: web.Application, *, tls: ssl.SSLContext | None = None) -> None:
        self._address = Address.parse(address)
        self._app = app
        self._tls = tls
        self.port = self._address.port

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Raises:
            OSError: the address is in use or not ours; the message names it.
        """
        runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._address.host or None, self._address.port, ssl_context=self._tls)
            await site.start()
            self.port = runner.addresses[0][1]
            task_status.started()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()


def add_metrics(app: web.Application, registry: CollectorRegistry, authorizer: Authorizer | None = None) -> None:
    """Serve the registry under /metrics."""

    async def metrics(request: web.Request) -> web.Response:
        refusal = await authorizer(request) if authorizer is not None else None
        if refusal is not None:
            return refusal
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/metrics", metrics)


def add_health(app: web.Application, path: str, checks: Mapping[str, Check], facts: Mapping[str, Check]) -> None:
    """Serve checks under a path, each also under ``path/name``.

    Args:
        app: where.
        path: ``/healthz`` or ``/readyz``.
        checks: one that does not return None turns the answer into 500.
        facts: shown, without any effect on the answer.
    """

    async def everything(_: web.Request) -> web.Response:
        results = {name: check() for name, check in checks.items()}
        lines = [f"[{'+' if problem is None else '-'}]{name} {problem or 'ok'}" for name, problem in results.items()]
        lines += [f"[i]{name} {fact() or 'none'}" for name, fact in facts.items()]
        healthy = all(problem is None for problem in results.values())
        lines.append(f"{path.strip('/')} check {'passed' if healthy else 'failed'}")
        return web.Response(text="\n".join(lines) + "\n", status=200 if healthy else 500)

    async def one(request: web.Request) -> web.Response:
        check = checks.get(request.match_info["name"])
        if check is None:
            raise web.HTTPNotFound(text=f"no such check; there are {sorted(checks)}\n")
        problem = check()
        return web.Response(text=f"{problem or 'ok'}\n", status=200 if problem is None else 500)

    app.router.add_get(path, everything)
    app.router.add_get(path + "/{name}", one)
