"""Commands in a sandbox: run to the end, or start and look after."""

import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import aiohttp
import anyio

from agent_sandbox.sdk import legacy
from agent_sandbox.sdk.background import background_tasks
from agent_sandbox.sdk.collecting import Collector
from agent_sandbox.sdk.errors import (
    SandboxError,
    SandboxFileNotFoundError,
    SandboxOutcomeUnknownError,
    SandboxProcessNotFoundError,
    SandboxProtocolError,
    UnsupportedByRuntimeError,
)
from agent_sandbox.sdk.process import SILENCE_SECONDS, AsyncProcess, read_process
from agent_sandbox.sdk.refusals import error_for_code
from agent_sandbox.sdk.results import OUTPUT_LIMIT, ExecutionResult, OutputCallback, ProcessInfo, Terminal
from agent_sandbox.sdk.wire import Wire, close_websocket
from agent_sandbox.shielding import unbroken

_REQUEST_SECONDS: Final = 30.0
_KILL_SECONDS: Final = 3.0
_START_SECONDS: Final = 3.0
"""How long a start whose caller was cancelled is waited for, so that the command can be killed."""


class AsyncCommands:
    """The commands of one sandbox.

    A command is a sequence of arguments, which no shell touches, or a string, which ``/bin/sh -c`` runs. Each is
    started at most once, whatever happens to the network.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = 60,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bytes | str | None = None,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        max_output: int = OUTPUT_LIMIT,
    ) -> ExecutionResult:
        """Run a command and wait for its end. If the caller is cancelled, the command is killed.

        Args:
            command: arguments, or a string for the shell.
            timeout: seconds until it is killed with everything that it started; None means never.
            env: environment variables to add.
            cwd: directory to run it in; the workspace by default.
            user: user to run it as; the daemon's by default.
            stdin: what it reads; nothing by default.
            on_stdout: gets standard output as it comes.
            on_stderr: gets standard error as it comes.
            max_output: bytes kept of each; the rest is dropped and the result says so. Callbacks get all of it.

        Raises:
            CommandTimeoutError: it was killed; carries its output until then.
            UnsupportedByRuntimeError: the image speaks only the legacy contract, which has neither stdin nor users.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        with self._wire.span("sandbox.run") as span:
            result = await self._run(command, timeout, env, cwd, user, stdin, on_stdout, on_stderr, max_output)
            span.note({"process.exit_code": result.exit_code})
            return result

    async def _run(
        self,
        command: str | Sequence[str],
        timeout: float | None,
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
        stdin: bytes | str | None,
        on_stdout: OutputCallback | None,
        on_stderr: OutputCallback | None,
        max_output: int,
    ) -> ExecutionResult:
        if not await self._wire.speaks_v1():
            if stdin is not None or user is not None:
                raise unsupported("standard input and users")
            return await self._run_legacy(command, timeout, env, cwd, on_stdout, on_stderr, max_output)
        process = await self.start(command, timeout=timeout, env=env, cwd=cwd, user=user, stdin=stdin is not None)
        failures: list[SandboxError] = []
        try:
            async with background_tasks() as tasks:
                if stdin is not None:
                    # Beside the reading: a command may answer its input before it has taken all of it.
                    tasks.start_soon(_feed, process, stdin, failures, name=f"input of {process.id}")
                result = await process.wait(on_stdout=on_stdout, on_stderr=on_stderr, max_output=max_output)
        except BaseException:
            await _kill_unbroken(process)
            raise
        finally:
            await process.detach()
        if failures:
            raise failures[0]
        return result

    async def start(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bool = False,
        terminal: Terminal | None = None,
        overflow: Literal["block", "drop"] = "block",
    ) -> AsyncProcess:
        """Start a command and return at once. It runs on if this program dies, until its timeout.

        Args:
            command: arguments, or a string for the shell.
            timeout: seconds until it is killed with everything that it started; None means never.
            env: environment variables to add.
            cwd: directory to run it in; the workspace by default.
            user: user to run it as; the daemon's by default.
            stdin: whether input will be sent to it; without, it reads an empty file.
            terminal: run it in a PTY of this size, which has input, and both outputs in one.
            overflow: what happens when nobody reads its output and the daemon's buffer (8 MiB) is full: ``block`` makes
                it wait, so that nothing is lost; ``drop`` forgets the oldest, so that it runs on.

        Raises:
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        if not await self._wire.speaks_v1():
            raise unsupported("background processes")
        request: dict[str, Any] = {
            "operation_id": secrets.token_hex(16),
            "timeout": timeout,
            "env": dict(env or {}),
            "cwd": cwd,
            "user": user,
            "stdin": stdin or terminal is not None,
            "pty": {"cols": terminal.columns, "rows": terminal.rows} if terminal is not None else None,
            "on_disconnect": "continue",
            "overflow": overflow,
        }
        request |= {"shell": command} if isinstance(command, str) else {"argv": list(command)}
        return await self._start({key: value for key, value in request.items() if value is not None})

    async def connect(self, process_id: str, *, after: int = 0) -> AsyncProcess:
        """A handle on a process that was started before, by this program or another.

        Args:
            process_id: its id.
            after: number of the last piece of output that is known already; 0 gives all that the daemon still has.

        Raises:
            SandboxProcessNotFoundError: the sandbox knows no such process.
        """
        try:
            answer = await self._wire.request("GET", f"v1/processes/{process_id}", timeout=_REQUEST_SECONDS)
        except SandboxFileNotFoundError as error:
            if not await self._wire.speaks_v1():
                raise unsupported("background processes") from error
            raise SandboxProcessNotFoundError(
                f"the sandbox knows no process {process_id}", status=404, detail="no such process"
            ) from error
        return AsyncProcess(self._wire, read_process(answer.json()), after=after)

    async def list(self) -> list[ProcessInfo]:
        """The processes that were started here, and not forgotten yet.

        Raises:
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        if not await self._wire.speaks_v1():
            raise unsupported("background processes")
        data = (await self._wire.request("GET", "v1/processes", timeout=_REQUEST_SECONDS)).json()
        items = data.get("processes", []) if isinstance(data, dict) else data
        return [read_process(item) for item in items]

    async def _start(self, request: dict[str, Any]) -> AsyncProcess:
        """Start and attach in one round trip. A caller that is cancelled meanwhile leaves no command behind."""
        socket = await self._wire.open_websocket("v1/exec")
        started: list[AsyncProcess] = []
        try:
            return await unbroken(
                lambda: self._start_over(socket, request), keep=started.append, patience=_START_SECONDS
            )
        except BaseException:
            try:
                for process in started:
                    await _kill_unbroken(process)
            finally:
                await close_websocket(socket)
            raise

    async def _start_over(self, socket: aiohttp.ClientWebSocketResponse, request: dict[str, Any]) -> AsyncProcess:
        """Send the request and wait for the process.

        If the connection breaks after the request was sent, the daemon is asked whether it knows the operation; the
        request is not sent again, because a daemon that was restarted meanwhile would run the command a second time.
        """
        reader = secrets.token_hex(8)
        try:
            await socket.send_str(json.dumps({**request, "reader": reader}))
            first = await socket.receive(timeout=SILENCE_SECONDS)
            if first.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionError(f"the stream ended with {first.type.name}")
            data = first.json()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            await close_websocket(socket)
            return await self._find_operation(request, error)
        if data.get("type") == "process":
            return AsyncProcess(self._wire, read_process(data["process"]), socket=socket, reader=reader)
        if data.get("type") == "error":
            raise error_for_code(data.get("code", ""), str(data.get("message", "")), "starting a command")
        raise SandboxProtocolError(f"the daemon began a stream with {data.get('type')!r} instead of the process")

    async def _find_operation(self, request: dict[str, Any], error: Exception) -> AsyncProcess:
        data = (await self._wire.request("GET", "v1/processes", timeout=_REQUEST_SECONDS)).json()
        for item in data.get("processes", []) if isinstance(data, dict) else data:
            if item.get("operation_id") == request["operation_id"]:
                return AsyncProcess(self._wire, read_process(item))
        raise SandboxOutcomeUnknownError(
            f"starting a command: the connection broke ({error}) and the daemon does not know the command: it did not "
            "start, or the daemon was started anew since. It was not started again"
        ) from error

    async def _run_legacy(
        self,
        command: str | Sequence[str],
        timeout: float | None,
        env: Mapping[str, str] | None,
        cwd: str | None,
        on_stdout: OutputCallback | None,
        on_stderr: OutputCallback | None,
        max_output: int,
    ) -> ExecutionResult:
        result = await legacy.execute(self._wire, shlex.join(legacy_argv(command, env, cwd)), timeout)
        stdout, stderr = Collector(max_output, on_stdout), Collector(max_output, on_stderr)
        await stdout.add(result.stdout_bytes)
        await stderr.add(result.stderr_bytes)
        await stdout.finish()
        await stderr.finish()
        result.stdout_truncated |= stdout.truncated
        result.stderr_truncated |= stderr.truncated
        result.stdout_bytes, result.stderr_bytes = stdout.kept, stderr.kept
        result.stdout, result.stderr = stdout.text, stderr.text
        return result


def legacy_argv(command: str | Sequence[str], env: Mapping[str, str] | None, cwd: str | None) -> list[str]:
    """The command for a runtime that splits a line and knows neither shell, nor environment, nor directory.

    >>> legacy_argv("echo $A | wc -c", {"A": "b"}, None)
    ['env', 'A=b', '/bin/sh', '-c', 'echo $A | wc -c']
    """
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    if cwd is not None:
        argv = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', cwd, *argv]
    return ["env", *(f"{key}={value}" for key, value in env.items()), *argv] if env else argv


def unsupported(what: str) -> UnsupportedByRuntimeError:
    """The error for what the legacy contract has no word for."""
    return UnsupportedByRuntimeError(
        f"the runtime in this sandbox speaks only the legacy contract, which has no {what}: use an image with "
        "agent-sandbox sandboxd",
        status=501,
        detail=f"no {what}",
    )


async def _kill_unbroken(process: AsyncProcess) -> None:
    """Kill it although the caller is being cancelled; a sandbox that cannot be reached has no say."""

    async def kill() -> None:
        with anyio.move_on_after(_KILL_SECONDS):
            try:
                await process.kill()
            except SandboxError:
                return

    await unbroken(kill)


async def _feed(process: AsyncProcess, data: bytes | str, failures: list[SandboxError]) -> None:
    """Send all input; a process that ends without reading it is no error. Any other error ends the process."""
    try:
        await process.send_stdin(data)
        await process.close_stdin()
    except SandboxProcessNotFoundError:
        return
    except SandboxError as error:
        failures.append(error)
        await _kill_unbroken(process)


__all__ = ["AsyncCommands"]
