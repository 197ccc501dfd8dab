"""`agent-sandbox router`: the front door to the sandboxes of a cluster."""

import dataclasses
import functools
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import click
import structlog

from agent_sandbox.cli.connection import CLUSTER_DEFAULT, connection_options
from agent_sandbox.cli.eventloop import run_until_signalled
from agent_sandbox.cli.logs import LogFormat, configure_logging, log_format_option, log_level_option
from agent_sandbox.cli.namespaces import watch_namespaces_option
from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeError, connect
from agent_sandbox.router import AuthzMode, Directory, Router, RouterError, RouterOptions, serve
from agent_sandbox.router.workers import Supervisor, WorkerSockets, follow_supervisor
from agent_sandbox.runtime import Cache
from agent_sandbox_api.names import ROUTER_AUDIENCE

log = structlog.get_logger(__name__)

_OPTIONS = {field.name: field for field in dataclasses.fields(RouterOptions)}
_LIMITS: Final = (
    ("connect_timeout", float, "Seconds to reach a Pod, all attempts together."),
    ("response_timeout", float, "Seconds from the end of a request until the sandbox begins to answer."),
    ("idle_timeout", float, "Seconds without a byte in a body."),
    ("upgraded_idle_timeout", float, "Seconds without a byte in a WebSocket."),
    ("total_timeout", float, "Seconds for a whole exchange without X-Sandbox-Timeout. Default: no bound."),
    ("max_timeout", float, "Upper bound of X-Sandbox-Timeout, in seconds."),
    ("head_timeout", float, "Seconds that a client may take to send a request's head."),
    ("keepalive_timeout", float, "Seconds that a client's connection may rest."),
    ("wait_ready", float, "Seconds to hold a request for a sandbox that is not Ready."),
    ("wait_awake", float, "Seconds to hold a request that wakes a suspended sandbox."),
    ("max_body_bytes", int, "Largest request body. Default: no bound."),
    ("max_concurrent", int, "Requests of one sandbox at once."),
    ("max_rate", float, "Requests per second of one sandbox in the long run. Default: no bound."),
    ("burst", int, "Requests that may come at once after a rest, with --max-rate."),
)

F = TypeVar("F", bound=Callable[..., Any])


def _limit_options(function: F) -> F:
    for name, kind, text in reversed(_LIMITS):
        default = _OPTIONS[name].default
        flag = f"--{name.replace('_', '-')}"
        function = click.option(flag, type=kind, default=default, show_default=default is not None, help=text)(function)
    return function


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@connection_options(CLUSTER_DEFAULT)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8080, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--authz-mode",
    "authz",
    multiple=True,
    type=click.Choice([mode.value for mode in AuthzMode]),
    help="Which credentials X-Sandbox-Authorization may carry; give it several times. Default: claim-key, and what the "
    "two files below are for.",
)
@click.option(
    "--tokenreview-audience",
    "audiences",
    multiple=True,
    default=(ROUTER_AUDIENCE,),
    show_default=True,
    help="What Kubernetes tokens must be made for, in the mode tokenreview.",
)
@click.option("--token-file", type=_FILE, help="static-token: file with tokens that open every sandbox, one per line.")
@click.option(
    "--key-file",
    type=_FILE,
    help="scoped-token: file with keys of signed tokens, one per line, the newest first; a token opens one sandbox.",
)
@click.option("--domain", help="Serve <port>-<sandbox>-<namespace>.DOMAIN to browsers.")
@click.option(
    "--tls-certificate", type=click.Path(dir_okay=False, path_type=Path), help="PEM file; loaded again on change."
)
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="PEM file with its private key.")
@click.option(
    "--tls-client-ca", type=click.Path(dir_okay=False, path_type=Path), help="Ask clients for a certificate of these."
)
@click.option(
    "--proto",
    type=click.Choice(["http", "https"]),
    default="http",
    show_default=True,
    help="What X-Forwarded-Proto says: https where a load balancer before the router ends TLS.",
)
@click.option("--control-host", default="127.0.0.1", show_default=True, help="Address of /healthz, /readyz, /metrics.")
@click.option("--control-port", type=int, help="Port of /healthz, /readyz, /metrics. Default: not served.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="One line per request.")
@click.option(
    "--drain-delay",
    default=1.0,
    show_default=True,
    help="Seconds to go on accepting after a signal, while /readyz says no: until load balancers noticed.",
)
@click.option("--drain-timeout", default=30.0, show_default=True, help="Seconds for what has begun to end, after that.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes that share the port, each with its own view of the cluster. SIGHUP replaces them one by one.",
)
@click.option("--worker-sockets", hidden=True, help="What a worker inherits: set by the process that starts it.")
@click.option("--unsafe-allow-all", is_flag=True, help="Ask for no credential: whoever reaches the port may enter.")
@_limit_options
@watch_namespaces_option
@log_level_option
@log_format_option
def router(
    kubeconfig: Path | None,
    context: str | None,
    host: str,
    port: int,
    authz: tuple[str, ...],
    audiences: tuple[str, ...],
    token_file: Path | None,
    key_file: Path | None,
    domain: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    proto: str,
    control_host: str,
    control_port: int | None,
    access_log: bool,
    drain_delay: float,
    drain_timeout: float,
    workers: int,
    worker_sockets: str | None,
    unsafe_allow_all: bool,
    watch_namespaces: tuple[str, ...] | None,
    log_level: str,
    log_format: LogFormat,
    **limits: Any,
) -> None:
    """Carry requests to the sandbox that X-Sandbox-ID names, and to nothing else.

    A caller needs a credential for that sandbox. As shipped this is a token signed by a key that the claim itself
    names: the SDK makes and sends it, and nothing has to be set up.

    \b
    agent-sandbox router --host 0.0.0.0
    agent-sandbox router --host 0.0.0.0 --authz-mode claim-key --authz-mode tokenreview
    """
    configure_logging(log_level, log_format)
    try:
        options = RouterOptions(
            host=host,
            port=port,
            authz=tuple(AuthzMode(mode) for mode in authz) or None,
            token_audiences=audiences,
            token_file=token_file,
            key_file=key_file,
            domain=domain,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            proto=proto,
            control_host=control_host,
            control_port=control_port if worker_sockets is None else None,
            access_log=access_log,
            drain_delay=drain_delay,
            drain_timeout=drain_timeout,
            unsafe_allow_all=unsafe_allow_all,
            **limits,
        )
        if workers > 1:
            run_until_signalled(functools.partial(_supervise, workers, options, sys.argv[1:]), service="sandbox-router")
            return
        sockets = _sockets_from(worker_sockets) if worker_sockets is not None else None
        work = functools.partial(_run, kubeconfig, context, options, watch_namespaces, sockets)
        run_until_signalled(work, service="sandbox-router")
    except (RouterError, KubeError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _sockets_from(text: str) -> WorkerSockets:
    listener, _, supervisor = text.partition(",")
    return WorkerSockets(int(listener), int(supervisor))


async def _supervise(workers: int, options: RouterOptions, arguments: Sequence[str]) -> None:
    """Run workers with the command line that we got ourselves."""

    def command(sockets: WorkerSockets) -> list[str]:
        own = [f"--worker-sockets={sockets.listener},{sockets.supervisor}", "--workers=1"]
        return [sys.executable, "-m", "agent_sandbox", *arguments, *own]

    supervisor = Supervisor(command, workers, options)
    async with anyio.create_task_group() as group:
        url = await group.start(supervisor.serve)
        log.info("serving", url=url, workers=workers, control=supervisor.control_url)
        with anyio.open_signal_receiver(signal.SIGHUP) as hangups:
            async for _ in hangups:
                try:
                    await supervisor.restart()
                except RouterError as error:
                    log.error("the old workers go on", error=str(error))
                else:
                    log.info("all workers are new")


async def _run(
    kubeconfig: Path | None,
    context: str | None,
    options: RouterOptions,
    namespaces: tuple[str, ...] | None,
    sockets: WorkerSockets | None,
) -> None:
    clock = SystemClock()
    client = await connect(kubeconfig, context, clock=clock)
    try:
        cache = Cache(client, clock=clock, namespaces=namespaces)
        directory = Directory()
        directory.follow(cache)
        listener = socket.socket(fileno=sockets.listener) if sockets is not None else None
        router = Router(directory, options=options, kube=client, listener=listener)
        async with anyio.create_task_group() as group:
            url = await group.start(serve, router, cache)
            if sockets is not None:
                await follow_supervisor(socket.socket(fileno=sockets.supervisor))
                group.cancel_scope.cancel()
            else:
                log.info("serving", url=url, control=router.control_url)
    finally:
        await client.aclose()
