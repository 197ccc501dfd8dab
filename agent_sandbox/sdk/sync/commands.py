"""Commands in a sandbox: run to the end, or start and look after.

Generated from ``agent_sandbox/sdk/commands.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""


# ruff: noqa: SLF001 - a view and what it shows are one

from collections.abc import Mapping, Sequence
from typing import Literal

from agent_sandbox.sdk.commands import AsyncCommands
from agent_sandbox.sdk.facade import Facade
from agent_sandbox.sdk.results import OUTPUT_LIMIT, ExecutionResult, OutputCallback, ProcessInfo, Terminal
from agent_sandbox.sdk.sync.process import Process


class Commands(Facade[AsyncCommands]):
    """The commands of one sandbox.

    A command is a sequence of arguments, which no shell touches, or a string, which ``/bin/sh -c`` runs. Each is
    started at most once, whatever happens to the network.
    """

    def run(
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
        return self._run(
            lambda job: self._inner.run(
                command,
                timeout=timeout,
                env=env,
                cwd=cwd,
                user=user,
                stdin=stdin,
                on_stdout=None if on_stdout is None else job.callback(on_stdout),
                on_stderr=None if on_stderr is None else job.callback(on_stderr),
                max_output=max_output,
            )
        )

    def start(
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
    ) -> Process:
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
        return Process._around(
            self._run(
                lambda job: self._inner.start(
                    command,
                    timeout=timeout,
                    env=env,
                    cwd=cwd,
                    user=user,
                    stdin=stdin,
                    terminal=terminal,
                    overflow=overflow,
                )
            )
        )

    def connect(self, process_id: str, *, after: int = 0) -> Process:
        """A handle on a process that was started before, by this program or another.

        Args:
            process_id: its id.
            after: number of the last piece of output that is known already; 0 gives all that the daemon still has.

        Raises:
            SandboxProcessNotFoundError: the sandbox knows no such process.
        """
        return Process._around(self._run(lambda job: self._inner.connect(process_id, after=after)))

    def list(self) -> list[ProcessInfo]:
        """The processes that were started here, and not forgotten yet.

        Raises:
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(lambda job: self._inner.list())


__all__ = ["Commands"]
