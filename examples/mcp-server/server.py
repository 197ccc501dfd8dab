"""A sandbox for every MCP session: run, read, write, list. Over stdio, or over streamable HTTP with a token.

A session's sandbox is made when a tool first needs it, and deleted when the session ends: the client leaves, is silent
for too long, or the server is told to stop. If the server is killed, the cluster deletes it within two minutes.
"""

import argparse
import base64
import hashlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import anyio.abc
import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import UNSUPPORTED_PROTOCOL_VERSION, ToolAnnotations
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import AnyHttpUrl, BaseModel, Field

from agent_sandbox import AsyncSandbox, AsyncSandboxes, CommandTimeoutError, SandboxError, SandboxGoneError

SECONDS_AFTER_A_KILL = 120.0
"""How long a sandbox lives without the heartbeat of this server."""
MAX_OUTPUT = 100_000
"""Bytes of stdout and of stderr that a model gets to read."""
MAX_FILE = 1_000_000
"""Bytes of a file that a tool reads."""
LABELS = {"app.kubernetes.io/managed-by": "mcp-server"}

log = logging.getLogger("mcp-server")


@dataclass(frozen=True)
class Options:
    """Which sandboxes to make, and where."""

    template: str
    warmpool: str | None = None
    namespace: str = "default"


@dataclass
class SessionSandbox:
    """The sandbox of one session: made when it is first asked for, held by a task of the server until ``end``."""

    use: Callable[[], AbstractAsyncContextManager[AsyncSandbox]]
    owner: anyio.abc.TaskGroup
    _sandbox: AsyncSandbox | None = None
    _held: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _deleted: anyio.Event = field(default_factory=anyio.Event)
    _lock: anyio.Lock = field(default_factory=anyio.Lock)

    async def get(self) -> AsyncSandbox:
        """The session's sandbox; calls at the same time get the same one."""
        async with self._lock:
            if self._sandbox is None:
                self._held, self._deleted = anyio.CancelScope(), anyio.Event()
                self._sandbox = await self.owner.start(self._hold, self._held, self._deleted)
            return self._sandbox

    def end(self) -> anyio.Event:
        """Let go of the sandbox, even of one that is still being made; the event comes when it is deleted."""
        if self._sandbox is None and not self._lock.locked():
            self._deleted.set()
        self._sandbox = None
        self._held.cancel()
        return self._deleted

    async def _hold(
        self, held: anyio.CancelScope, deleted: anyio.Event, *, task_status: anyio.abc.TaskStatus[AsyncSandbox]
    ) -> None:
        started = False
        try:
            with held:
                async with self.use() as sandbox:
                    started = True
                    task_status.started(sandbox)
                    await anyio.sleep_forever()
        except SandboxError as error:
            if not started:
                raise
            log.error("%s", error)
        finally:
            deleted.set()


@dataclass
class Sessions:
    """All sessions of this server; what is still open when the server ends ends with it."""

    options: Options
    sandboxes: AsyncSandboxes
    owner: anyio.abc.TaskGroup
    shared: bool
    _open: dict[int, SessionSandbox] = field(default_factory=dict)

    def of(self, context: ServerRequestContext[Any, Any]) -> SessionSandbox:
        """The sandbox of the session that a request belongs to."""
        # What a handler gets has no public way to its connection; the connection's exit stack is made for this.
        connection = None if self.shared else context.session._connection  # noqa: SLF001
        key = id(connection)
        if key not in self._open:
            use = partial(
                self.sandboxes.use,
                self.options.template,
                warmpool=self.options.warmpool,
                labels=LABELS,
                ttl=SECONDS_AFTER_A_KILL,
                heartbeat=True,
            )
            self._open[key] = SessionSandbox(use, self.owner)
            if connection is not None:
                connection.exit_stack.callback(self._close, key)
        return self._open[key]

    async def end_all(self) -> None:
        """Delete every sandbox."""
        for deleted in [session.end() for session in self._open.values()]:
            await deleted.wait()

    def _close(self, key: int) -> None:
        self._open.pop(key).end()


class Ran(BaseModel):
    """How a command ended."""

    stdout: str
    stderr: str
    exit_code: int = Field(description="The exit status, or minus the number of the signal that ended it.")
    truncated: bool = Field(description="Whether output is missing at the end.")


class Content(BaseModel):
    """A file."""

    content: str
    encoding: Literal["utf-8", "base64"] = Field(description="base64 if the file is no text.")


class Entry(BaseModel):
    """A name in a directory."""

    name: str
    type: str
    size: int


def build_server(options: Options, *, one_session: bool, **settings: Any) -> MCPServer[Sessions]:
    """The server with its four tools.

    Args:
        options: which sandboxes to make.
        one_session: whether the whole process is one session (stdio).
        settings: further arguments of ``MCPServer``.
    """

    @asynccontextmanager
    async def lifespan(_: MCPServer[Sessions]) -> AsyncIterator[Sessions]:
        async with AsyncSandboxes(options.namespace) as sandboxes, anyio.create_task_group() as owner:
            sessions = Sessions(options, sandboxes, owner, shared=one_session)
            if one_session:
                await owner.start(_end_by_signal, sessions)
            yield sessions
            owner.cancel_scope.cancel()

    server: MCPServer[Sessions] = MCPServer(
        "agent-sandbox",
        instructions=(
            "A Linux computer of your own for this session, isolated and empty at first. Files stay for as long as the "
            "session lasts. Relative paths start in the workspace."
        ),
        lifespan=lifespan,
        middleware=[] if one_session else [_insist_on_sessions],
        log_level="WARNING",
        **settings,
    )

    @asynccontextmanager
    async def sandbox_of(context: Context[Sessions]) -> AsyncIterator[AsyncSandbox]:
        session = context.request_context.lifespan_context.of(context.request_context)
        try:
            yield await session.get()
        except SandboxGoneError as error:
            session.end()
            raise ToolError(f"{error} Its files are lost; the next call gets a new sandbox.") from error
        except SandboxError as error:
            raise ToolError(str(error)) from error

    @server.tool(annotations=ToolAnnotations(open_world_hint=False))
    async def run(
        command: Annotated[str, Field(description="What to run, for a POSIX shell.")],
        context: Context[Sessions],
        timeout: Annotated[float, Field(gt=0, le=3600, description="Seconds until it is killed.")] = 60,
    ) -> Ran:
        """Run a shell command in the workspace and wait for its end."""
        async with sandbox_of(context) as sandbox:
            try:
                result = await sandbox.commands.run(command, timeout=timeout, max_output=MAX_OUTPUT)
            except CommandTimeoutError as error:
                raise ToolError(f"{error}\nstdout until then:\n{error.stdout}\nstderr:\n{error.stderr}") from error
        cut = result.stdout_truncated or result.stderr_truncated
        return Ran(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code, truncated=cut)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    async def read_file(path: str, context: Context[Sessions]) -> Content:
        """Read a file of at most a million bytes."""
        async with sandbox_of(context) as sandbox:
            size = (await sandbox.files.stat(path)).size
            if size > MAX_FILE:
                raise ToolError(f"{path} has {size} bytes, more than {MAX_FILE}. Read a part of it with a command.")
            data = await sandbox.files.read(path)
        try:
            return Content(content=data.decode(), encoding="utf-8")
        except UnicodeDecodeError:
            return Content(content=base64.b64encode(data).decode(), encoding="base64")

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True, open_world_hint=False))
    async def write_file(
        path: str, content: str, context: Context[Sessions], encoding: Literal["utf-8", "base64"] = "utf-8"
    ) -> int:
        """Write a file, whole or not at all, and its directories; gives the number of bytes."""
        try:
            data = content.encode() if encoding == "utf-8" else base64.b64decode(content, validate=True)
        except ValueError as error:
            raise ToolError(f"the content is no {encoding}: {error}") from error
        async with sandbox_of(context) as sandbox:
            await sandbox.files.write(path, data)
        return len(data)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    async def list_files(context: Context[Sessions], path: str = ".") -> list[Entry]:
        """List a directory."""
        async with sandbox_of(context) as sandbox:
            return [Entry(name=each.name, type=each.type, size=each.size) for each in await sandbox.files.list(path)]

    return server


async def _insist_on_sessions(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Refuse the protocol without sessions (2026-07-28): a request of it could not find its sandbox again.

    Clients that speak it take the older one then, by themselves.
    """
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(
            UNSUPPORTED_PROTOCOL_VERSION,
            "This server keeps a sandbox per session and needs a protocol version that has sessions.",
            {"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": ctx.protocol_version},
        )
    return await call_next(ctx)


async def _end_by_signal(sessions: Sessions, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """Delete the sandbox first, then end as the signal would: the thread that waits for input cannot be interrupted."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for received in signals:
            await sessions.end_all()
            signal.signal(received, signal.SIG_DFL)
            signal.raise_signal(received)


class TokenFile:
    """Tokens and the names of those who hold them: one ``name token`` a line."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ValueError: a line is something else, a token is too short, or there is none.
        """
        self._names: dict[bytes, str] = {}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, token = line.strip().partition(" ")
            if len(token.strip()) < 20:
                raise ValueError(f"{path}:{number}: expected a name and a token of at least 20 characters")
            self._names[_digest(token.strip())] = name
        if not self._names:
            raise ValueError(f"{path} holds no token")

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose token it is; found by its digest, so that the time taken tells nothing of the tokens."""
        name = self._names.get(_digest(token))
        return None if name is None else AccessToken(token=token, client_id=name, scopes=[])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def serve_http(options: Options, host: str, port: int, tokens: TokenFile, *, idle: float, most: int) -> None:
    """Serve until SIGTERM or SIGINT; then every session's sandbox is deleted."""
    # The issuer is named in metadata only, and without a resource URL there is none: nobody issues these tokens.
    auth = AuthSettings(issuer_url=AnyHttpUrl("https://tokens.invalid"), resource_server_url=None)
    server = build_server(options, one_session=False, token_verifier=tokens, auth=auth)
    app = server.streamable_http_app(host=host, session_idle_timeout=idle, max_sessions=most)
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listener.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="A sandbox for every MCP session: run, read, write, list.")
    parser.add_argument(
        "--template", default="mcp-template", help="SandboxTemplate to make sandboxes from (%(default)s)"
    )
    parser.add_argument("--warmpool", help="SandboxWarmPool to take them from (any pool of the template)")
    parser.add_argument("--namespace", default="default", help="where the sandboxes live (%(default)s)")
    parser.add_argument(
        "--http", type=int, metavar="PORT", help="serve streamable HTTP instead of stdio; 0 takes a free port"
    )
    parser.add_argument("--host", default="127.0.0.1", help="with --http: the address to listen on (%(default)s)")
    parser.add_argument(
        "--tokens", type=Path, metavar="FILE", help="with --http: who may come in, one 'name token' a line"
    )
    parser.add_argument(
        "--idle", type=float, default=1800, help="with --http: seconds of silence that end a session (%(default)s)"
    )
    parser.add_argument(
        "--sessions", type=int, default=100, help="with --http: how many sessions at a time (%(default)s)"
    )
    given = parser.parse_args()
    options = Options(given.template, given.warmpool, given.namespace)
    if given.http is None:
        build_server(options, one_session=True).run("stdio")
        return
    if given.tokens is None:
        parser.error("--http needs --tokens: whoever reaches the port could run commands otherwise")
    try:
        tokens = TokenFile(given.tokens)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    serve_http(options, given.host, given.http, tokens, idle=given.idle, most=given.sessions)


if __name__ == "__main__":
    main()
