"""The daemon as an aiohttp application: composes the parts, guards every request, serves until it is told to stop."""

import hmac
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
from aiohttp import web

from agent_sandbox import tracing
from agent_sandbox.sandboxd.confine import Confinement
from agent_sandbox.sandboxd.environment import command_environment, inherited_environment
from agent_sandbox.sandboxd.errors import SandboxdError, UnauthenticatedError
from agent_sandbox.sandboxd.execution import Executor
from agent_sandbox.sandboxd.legacy import LegacyApi
from agent_sandbox.sandboxd.options import SandboxdOptions
from agent_sandbox.sandboxd.pages import is_loopback_address, refuse_foreign_page
from agent_sandbox.sandboxd.process_table import ProcessTable
from agent_sandbox.sandboxd.reaper import Reaper
from agent_sandbox.sandboxd.uploads import Uploads
from agent_sandbox.sandboxd.v1_files import FileApi
from agent_sandbox.sandboxd.v1_processes import ProcessApi
from agent_sandbox.sandboxd.v1_system import SystemApi
from agent_sandbox.signals import arriving_signals

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SERVER_NAME: Final = "agent-sandbox-sandboxd"
WIRE_VERSION: Final = "1"
OPEN_PATHS: Final = frozenset({"/", "/healthz"})
"""What a probe may ask without a token."""


class Daemon:
    """Everything behind the application, alive between start and clean-up.

    Attributes:
        stopping: True once the daemon was told to stop.
    """

    def __init__(self, options: SandboxdOptions) -> None:
        self.options = options
        self.stopping = False
        self._token = _read_token(options.token_file)
        options.root.mkdir(parents=True, exist_ok=True)
        roots = (options.root, *(root for root in options.allowed_roots if root.is_dir()))
        self.confinement = Confinement(roots)
        self.environment = command_environment(
            inherited_environment(), own_variables=options.own_variables, home=str(options.root)
        )
        self.executor = Executor(
            max_output=options.max_output_bytes, max_running=options.max_processes, ttl=options.operation_ttl
        )
        self.uploads = Uploads(self.confinement, limit=options.max_upload_bytes)
        self.processes = ProcessTable(max_running=options.max_processes, ttl=options.operation_ttl)

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin to accept commands; must run on the event loop."""
        self.reaper = Reaper(init=os.getpid() == 1 if self.options.init is None else self.options.init)
        self.executor.start(tasks, self.reaper)
        self.processes.begin(tasks, self.reaper)
        self.system = SystemApi(self.executor, self.processes)

    async def stop(self) -> None:
        """Refuse new commands, end the running ones."""
        self.stopping = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.processes.stop, self.options.shutdown_grace)
            await self.executor.stop(self.options.shutdown_grace)
        await self.uploads.close()

    def close(self) -> None:
        """Let go of the processes that still run."""
        self.reaper.close()

    def authorise(self, request: web.Request) -> None:
        """Let a request in.

        Raises:
            UnauthenticatedError: a token is configured and the request does not carry it.
            ForeignPageError: none is configured, and a stranger's web page made the request.
        """
        if request.path in OPEN_PATHS:
            return
        if self._token is None:
            refuse_foreign_page(request.headers, on_loopback=is_loopback_address(self.options.host))
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        offered = given.strip().encode("utf-8", "surrogateescape")  # a header may hold any bytes
        if scheme.lower() != "bearer" or not hmac.compare_digest(offered, self._token):
            raise UnauthenticatedError("this sandbox wants 'Authorization: Bearer <token>' with its own token")


DAEMON: Final = web.AppKey("daemon", Daemon)


def create_app(options: SandboxdOptions, tasks: anyio.abc.TaskGroup) -> web.Application:
    """Build the application; must run on the event loop.

    Args:
        tasks: where commands are waited for. It must outlive the application's last request.

    Raises:
        OSError: the root cannot be made, or the token file cannot be read.
        ValueError: the token file is empty.
    """
    daemon = Daemon(options)
    daemon.start(tasks)
    app = web.Application(middlewares=[_guard], client_max_size=options.max_body_bytes)
    app[DAEMON] = daemon
    legacy = LegacyApi(options, daemon.confinement, daemon.executor, daemon.environment)
    processes = ProcessApi(options, daemon.processes, daemon.environment)
    tree = FileApi(options, daemon.confinement, daemon.uploads, daemon.reaper)
    routes = [*legacy.routes(), *processes.routes(), *tree.routes(), *daemon.system.routes()]
    app.router.add_routes([web.get("/healthz", _healthz), *routes])
    app.on_response_prepare.append(_sign)
    return app


async def serve(
    options: SandboxdOptions, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; reports the bound port once requests are accepted.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        try:
            task_status.started(await tasks.start(_serve_until, options, stop, name="sandboxd"))
            await anyio.sleep_forever()
        finally:
            stop.set()


async def _serve_until(options: SandboxdOptions, stop: anyio.Event, *, task_status: anyio.abc.TaskStatus[int]) -> None:
    """Serve until `stop`. Shielded: commands get their grace although whoever runs the daemon was cancelled."""
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as tasks:
            app = create_app(options, tasks)
            runner = web.AppRunner(
                app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0, keepalive_timeout=75
            )
            await runner.setup()
            try:
                await web.TCPSite(runner, options.host, options.port, backlog=1024).start()
                port: int = runner.addresses[0][1]
                task_status.started(port)
                await stop.wait()
                await app[DAEMON].stop()
            finally:
                await runner.cleanup()
                tasks.cancel_scope.cancel()
                app[DAEMON].close()


async def serve_until_signalled(options: SandboxdOptions) -> None:
    """Serve until SIGTERM or SIGINT; commands get the signal too and then a grace."""
    with arriving_signals(signal.SIGTERM, signal.SIGINT) as arrivals:
        async with anyio.create_task_group() as tasks, aclosing(arrivals.each()) as signals:
            port = await tasks.start(serve, options)
            logger.info("sandboxd on %s:%s serves %s", options.host, port, options.root)
            async for number in signals:
                arrivals.end()
                logger.info("sandboxd stops: %s", number.name)
                tasks.cancel_scope.cancel()
                break


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        request.app[DAEMON].authorise(request)
        with _span(request) as span:
            response = await handler(request)
            span.note({"http.response.status_code": response.status})
            return response
    except SandboxdError as error:
        return web.json_response({"code": error.code, "message": str(error)}, status=error.status)


def _span(request: web.Request) -> AbstractContextManager[tracing.Span]:
    """A span for what is part of a trace; probes and strangers are not."""
    parent = {name: value for name in tracing.HEADERS if (value := request.headers.get(name)) is not None}
    if "traceparent" not in parent:
        return nullcontext(tracing.Span())
    resource = request.match_info.route.resource
    where = resource.canonical if resource is not None else "(unknown path)"
    return tracing.span(f"{request.method} {where}", parent=parent, kind="server")


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    request.app[DAEMON].system.count(request.method, response.status)
    response.headers["Server"] = SERVER_NAME
    response.headers["X-Sandboxd-Version"] = WIRE_VERSION


async def _healthz(request: web.Request) -> web.Response:
    if request.app[DAEMON].stopping:
        return web.json_response({"status": "stopping"}, status=503)
    return web.json_response({"status": "ok"})


def _read_token(path: Path | None) -> bytes | None:
    if path is None:
        return None
    token = path.read_bytes().strip()
    if not token:
        raise ValueError(f"the token file {path} is empty")
    return token
