"""What a node gives to the API server: the logs of its Pods, commands in them, and connections to their ports.

The server finds the Pod, checks the request and speaks the wire protocols; a provider sees neither HTTP nor WebSocket.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from anyio.abc import ByteStream

from agent_sandbox.local.apiserver.errors import BadRequestError
from agent_sandbox.local.apiserver.http import ApiRequest
from agent_sandbox.local.apiserver.resource_type import JsonObject


@dataclass(frozen=True)
class LogCall:
    """A request for a container's output, as ``v1.PodLogOptions``.

    Attributes:
        pod: the whole Pod; never change it.
        container: its name; always set.
        follow: go on until the container ends or the client goes.
        previous: the run before the last restart.
        tail_lines: only so many lines from the end; None for all.
        since: only what was written at or after this moment.
        timestamps: prefix each line with its RFC 3339 time and a space.
        limit_bytes: at most so many bytes; None for no limit.
    """

    pod: JsonObject
    container: str
    follow: bool = False
    previous: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


@dataclass(frozen=True)
class ExecCall:
    """A request to run a command in a container, or to attach to its main process.

    Attributes:
        pod: the whole Pod; never change it.
        container: its name; always set.
        command: the command and its arguments; empty for attach.
        stdin: whether the client sends input.
        stdout: whether the client wants standard output.
        stderr: whether the client wants standard error; with a terminal it comes on stdout.
        tty: whether the command gets a terminal.
    """

    pod: JsonObject
    container: str
    command: tuple[str, ...]
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


@dataclass(frozen=True)
class StdinData:
    """Input for the command."""

    data: bytes


@dataclass(frozen=True)
class StdinClosed:
    """The client will send no more input."""


@dataclass(frozen=True)
class Resize:
    """The client's terminal has a new size."""

    columns: int
    rows: int


ExecInput = StdinData | StdinClosed | Resize


class ExecSession(Protocol):
    """The client's end of a command. All methods may raise ``anyio.BrokenResourceError`` when the client is gone."""

    async def receive(self) -> ExecInput | None:
        """The next thing from the client; None when it has gone."""

    async def send_stdout(self, data: bytes) -> None:
        """Send output; waits while the client is slow."""

    async def send_stderr(self, data: bytes) -> None:
        """Send error output; waits while the client is slow."""

    async def finish(self, exit_code: int) -> None:
        """Report how the command ended. Call it once, last."""


LogProvider = Callable[[LogCall], AsyncIterator[bytes]]
"""Gives chunks of log bytes. Raise ``StatusError`` before the first chunk to refuse."""
ExecProvider = Callable[[ExecCall, ExecSession], Awaitable[None]]
"""Runs the command and returns when it ended. Raise ``StatusError`` before anything was sent to refuse."""
PortProvider = Callable[[JsonObject, int], Awaitable[ByteStream]]
"""Connects to a port of a Pod. Raise ``OSError`` if nothing listens there."""


@dataclass
class PodProviders:
    """The providers that are there; a node sets them when it starts."""

    log: LogProvider | None = None
    exec: ExecProvider | None = None
    attach: ExecProvider | None = None
    port_forward: PortProvider | None = None


def chosen_container(pod: JsonObject, wanted: str) -> str:
    """The container that a request means: the named one, or the default or only one.

    Raises:
        BadRequestError: there is no such container, or the choice is not clear.
    """
    spec = pod["spec"]
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    regular = [entry["name"] for entry in spec.get("containers") or []]
    others = [entry["name"] for field in ("initContainers", "ephemeralContainers") for entry in spec.get(field) or []]
    if wanted:
        if wanted not in regular and wanted not in others:
            raise BadRequestError(f"container {wanted} is not valid for pod {name}")
        return wanted
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in regular:
        return str(default)
    if len(regular) == 1:
        return str(regular[0])
    raise BadRequestError(
        f"a container name must be specified for pod {name} in namespace {namespace}, "
        f"choose one of: [{' '.join(regular)}]"
    )


def log_call(pod: JsonObject, request: ApiRequest, now: datetime) -> LogCall:
    """Read a log request.

    Raises:
        BadRequestError: an option has no such value.
    """
    from datetime import timedelta

    since = None
    if request.parameter("sinceTime"):
        try:
            since = datetime.fromisoformat(request.parameter("sinceTime"))
        except ValueError as error:
            raise BadRequestError(f"sinceTime: {error}") from error
    seconds = _number(request, "sinceSeconds")
    if seconds is not None:
        since = now - timedelta(seconds=seconds)
    return LogCall(
        pod,
        chosen_container(pod, request.parameter("container")),
        follow=request.flag("follow"),
        previous=request.flag("previous"),
        tail_lines=_number(request, "tailLines"),
        since=since,
        timestamps=request.flag("timestamps"),
        limit_bytes=_number(request, "limitBytes"),
    )


def exec_call(pod: JsonObject, request: ApiRequest) -> ExecCall:
    """Read an exec or attach request.

    Raises:
        BadRequestError: an option has no such value.
    """
    tty = request.flag("tty")
    return ExecCall(
        pod,
        chosen_container(pod, request.parameter("container")),
        tuple(request.parameters("command")),
        stdin=request.flag("stdin"),
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr") and not tty,
        tty=tty,
    )


def _number(request: ApiRequest, name: str) -> int | None:
    text = request.parameter(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        raise BadRequestError(f'{name}: strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if number < 0:
        raise BadRequestError(f"{name}: must be greater than or equal to 0")
    return number
