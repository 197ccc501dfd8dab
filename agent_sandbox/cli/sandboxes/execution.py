"""Runs one command in a sandbox with this process's own input and output; its exit status becomes ours."""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import anyio

from agent_sandbox.cli.sandboxes.descriptors import STDERR, STDIN, STDOUT, read_pieces, write_all
from agent_sandbox.cli.sandboxes.failures import (
    COMMAND_TIMED_OUT,
    NOT_FOUND,
    NOT_STARTABLE,
    SIGNALLED,
    Failure,
    note,
)
from agent_sandbox.cli.sandboxes.running import Interruptions, first_leaf
from agent_sandbox.cli.sandboxes.terminal import Keyboard, RawTerminal, ScreenModes

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncProcess, AsyncSandbox, ProcessInfo, Terminal

GRACE: Final = 5.0
"""Seconds that a command has to end after SIGTERM or SIGHUP, before it is killed."""

KILL_SECONDS: Final = 3.0
LAST_INTERRUPT: Final = 3
"""Which Ctrl-C kills instead of asking."""


@dataclass(frozen=True)
class Command:
    """What to run.

    Attributes:
        argv: program and arguments; no shell touches them.
        env: variables to add.
        cwd: directory; the workspace if None.
        user: whom to run it as; the daemon's user if None.
        timeout: seconds until it is killed; None means never.
        stdin: whether our standard input is sent to it.
        terminal: whether it gets a terminal, which is then ours.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str | None = None
    timeout: float | None = None
    stdin: bool = False
    terminal: bool = False


async def execute(sandbox: AsyncSandbox, command: Command, interruptions: Interruptions) -> int:
    """Run it and give the exit status for this process. However this ends, the command does not live on.

    Raises:
        Failure: it was killed at its timeout, or could not be started.
        SandboxError: the sandbox cannot be reached, or is gone.
    """
    from agent_sandbox.sdk import CommandTimeoutError

    try:
        return await (_on_terminal if command.terminal else _on_pipes)(sandbox, command, interruptions)
    except BrokenPipeError:
        return SIGNALLED + signal.SIGPIPE
    except CommandTimeoutError as error:
        raise Failure(
            f"{command.argv[0]} was killed after {command.timeout:g} s. Give it longer: --timeout", COMMAND_TIMED_OUT
        ) from error


async def start(sandbox: AsyncSandbox, command: Command) -> str:
    """Start it without waiting; gives its id. What it writes while nobody reads is kept up to 8 MiB, the newest."""
    process = await _started(sandbox, command, overflow="drop")
    await process.detach()
    return process.id


async def _started(
    sandbox: AsyncSandbox,
    command: Command,
    *,
    stdin: bool = False,
    terminal: Terminal | None = None,
    overflow: Literal["block", "drop"] = "block",
) -> AsyncProcess:
    return await sandbox.commands.start(
        list(command.argv),
        timeout=command.timeout,
        env=command.env,
        cwd=command.cwd,
        user=command.user,
        stdin=stdin,
        terminal=terminal,
        overflow=overflow,
    )


async def _on_pipes(sandbox: AsyncSandbox, command: Command, interruptions: Interruptions) -> int:
    from agent_sandbox.sdk import UnsupportedByRuntimeError

    try:
        process = await _started(sandbox, command, stdin=command.stdin)
    except UnsupportedByRuntimeError:
        return await _on_legacy_runtime(sandbox, command)

    async def deliver() -> None:
        async for output in process:
            await write_all(STDOUT if output.channel == "stdout" else STDERR, output.data)

    async def feed() -> None:
        await _feed(process)

    with interruptions.passed_to(_Forwarder(process, interruptions).forward):
        return await _attend(process, deliver, [feed] if command.stdin else [])


async def _on_terminal(sandbox: AsyncSandbox, command: Command, interruptions: Interruptions) -> int:
    from agent_sandbox.sdk import Terminal

    own, modes = RawTerminal(STDIN), ScreenModes()
    size = own.size()
    process = await _started(sandbox, command, terminal=Terminal(*size))

    async def deliver() -> None:
        async for output in process:
            modes.note(output.data)
            await write_all(STDOUT, output.data)

    async def type_in() -> None:
        keyboard = Keyboard()
        async for data in read_pieces(STDIN):
            passed, leave = keyboard.typed(data)
            if passed:
                await process.send_stdin(passed)
            if leave:
                interruptions.cancel(signal.SIGHUP)

    async def follow_size() -> None:
        with anyio.open_signal_receiver(signal.SIGWINCH, signal.SIGCONT) as signals:
            if own.size() != size:
                await process.resize(*own.size())
            async for number in signals:
                if number is signal.SIGCONT:
                    own.make_raw()
                await process.resize(*own.size())

    with own.raw():
        try:
            return await _attend(process, deliver, [type_in, follow_size])
        finally:
            if undoing := modes.undoing():
                with anyio.move_on_after(KILL_SECONDS, shield=True), suppress(OSError):
                    await write_all(STDOUT, undoing)


async def _attend(
    process: AsyncProcess, deliver: Callable[[], Awaitable[None]], helpers: Sequence[Callable[[], Awaitable[None]]]
) -> int:
    """Deliver output until the end while the helpers do the rest; whatever goes wrong, the process goes too."""
    from agent_sandbox.sdk import SandboxProcessNotFoundError, SandboxRequestError

    async def assist(helper: Callable[[], Awaitable[None]]) -> None:
        # A process that has just ended takes neither input nor sizes; its end itself is seen by `deliver`.
        with suppress(SandboxProcessNotFoundError, SandboxRequestError):
            await helper()

    try:
        async with anyio.create_task_group() as tasks:
            for helper in helpers:
                tasks.start_soon(assist, helper)
            await deliver()
            tasks.cancel_scope.cancel()
        result = await process.wait()
    except BaseException as error:
        await _hang_up(process)
        raise first_leaf(error) from None
    finally:
        with anyio.CancelScope(shield=True):
            await process.detach()
    return _status_of(process.info, result.exit_code)


async def _hang_up(process: AsyncProcess) -> None:
    """End it although we are being cancelled ourselves; a sandbox that cannot be reached has no say."""
    from agent_sandbox.sdk import SandboxError

    with anyio.move_on_after(KILL_SECONDS, shield=True), suppress(SandboxError):
        await process.kill()


def _status_of(info: ProcessInfo, exit_code: int) -> int:
    if info.state == "failed":
        said = re.sub(r"^Failed to execute command: (\[Errno \d+\] )?", "", info.error)
        # A directory that is missing is told in the same words, but it is no command.
        missing = said == f"No such file or directory: {info.argv[0]!r}"
        hint = ". Options stand before the name of the sandbox" if missing and info.argv[0].startswith("-") else ""
        raise Failure(f"{info.argv[0]} cannot be started: {said}{hint}", NOT_FOUND if missing else NOT_STARTABLE)
    return SIGNALLED - exit_code if exit_code < 0 else exit_code


async def _feed(process: AsyncProcess) -> None:
    async for piece in read_pieces(STDIN):
        await process.send_stdin(piece)
    await process.close_stdin()


async def _on_legacy_runtime(sandbox: AsyncSandbox, command: Command) -> int:
    """An image without our daemon: output comes at the end, and there is neither input nor user."""
    if command.user is not None:
        raise Failure("the image of this sandbox knows no --user: use one with agent-sandbox sandboxd", NOT_STARTABLE)
    result = await sandbox.commands.run(list(command.argv), timeout=command.timeout, env=command.env, cwd=command.cwd)
    await write_all(STDOUT, result.stdout_bytes)
    await write_all(STDERR, result.stderr_bytes)
    return SIGNALLED - result.exit_code if result.exit_code < 0 else result.exit_code


class _Forwarder:
    """Hands signals on to the command, and loses patience."""

    def __init__(self, process: AsyncProcess, interruptions: Interruptions) -> None:
        self._process = process
        self._interruptions = interruptions
        self._interrupts = 0

    async def forward(self, number: signal.Signals) -> None:
        """Hand on one signal."""
        from agent_sandbox.sdk import SandboxError

        self._interrupts += number is signal.SIGINT
        try:
            with anyio.fail_after(KILL_SECONDS):
                if self._interrupts >= LAST_INTERRUPT:
                    note("killed after the third Ctrl-C")
                    await self._process.kill()
                else:
                    await self._process.signal(number.name)
        except (SandboxError, TimeoutError):
            self._interruptions.cancel(number)
            return
        if number is not signal.SIGINT:
            await anyio.sleep(GRACE)
            self._interruptions.cancel(number)


__all__ = ["Command", "execute", "start"]
