"""A process in a sandbox, watched and fed over a WebSocket that may break and be opened again.

Generated from ``agent_sandbox/sdk/process.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""

from collections.abc import Iterator

from agent_sandbox.sdk.facade import Facade
from agent_sandbox.sdk.process import AsyncProcess
from agent_sandbox.sdk.results import OUTPUT_LIMIT, ExecutionResult, Output, OutputCallback, ProcessInfo


class Process(Facade[AsyncProcess]):
    """A process that was started, or found again. Iterate over it to get its output as it comes.

    >>> def build(sandbox) -> None:
    ...     process = sandbox.commands.start(["make", "-j4"])
    ...     for output in process:
    ...         print(output.text, end="")
    ...     print(process.info.exit_code)

    It lives on in the sandbox when the handle, or its program, goes away; ``sandbox.commands.connect`` finds it again.

    Attributes:
        id: its name in this sandbox.
        info: what the daemon last said of it.
        missed: how many pieces of output were forgotten before this handle could read them.
    """

    @property
    def id(self) -> str:
        """Its name in this sandbox."""
        return self._inner.id

    @property
    def info(self) -> ProcessInfo:
        """What the daemon last said of it."""
        return self._inner.info

    @property
    def missed(self) -> int:
        """How many pieces of output were forgotten before this handle could read them."""
        return self._inner.missed

    def wait(
        self,
        *,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        max_output: int = OUTPUT_LIMIT,
    ) -> ExecutionResult:
        """Wait for the end, collecting what is still to come.

        Args:
            on_stdout: gets standard output as it comes.
            on_stderr: gets standard error as it comes.
            max_output: bytes kept of each; the rest is dropped and the result says so. Callbacks get all of it.

        Raises:
            CommandTimeoutError: it was killed because of its timeout; carries the output until then.
            SandboxGoneError: it was ended because the sandbox was deleted; carries the output until then.
            SandboxError: the sandbox died, or the network was away for too long.
        """
        return self._run(
            lambda job: self._inner.wait(
                on_stdout=None if on_stdout is None else job.callback(on_stdout),
                on_stderr=None if on_stderr is None else job.callback(on_stderr),
                max_output=max_output,
            )
        )

    def send_stdin(self, data: bytes | str) -> None:
        """Write to the process's standard input. It must have been started with ``stdin=True`` or a terminal.

        Waits while too much is under way, as with any pipe: what answers its input must also be read. Bytes arrive once
        and in order, reconnects included.

        Raises:
            SandboxProcessNotFoundError: it has ended.
            SandboxError: the sandbox died, or the network was away for too long.
        """
        return self._run(lambda job: self._inner.send_stdin(data))

    def close_stdin(self) -> None:
        """Tell the process that no more input comes."""
        return self._run(lambda job: self._inner.close_stdin())

    def resize(self, columns: int, rows: int) -> None:
        """Tell the process's terminal its new size."""
        return self._run(lambda job: self._inner.resize(columns, rows))

    def signal(self, signal: str | int, *, group: bool = True) -> None:
        """Send a signal, by default to the process and everything it started.

        Args:
            signal: name or number, for example ``SIGINT``.
            group: False sends it to the process alone.

        Raises:
            SandboxProcessNotFoundError: it has ended and is forgotten.
        """
        return self._run(lambda job: self._inner.signal(signal, group=group))

    def kill(self) -> None:
        """End the process and everything it started, at once. One that has ended already is fine."""
        return self._run(lambda job: self._inner.kill())

    def refresh(self) -> ProcessInfo:
        """Ask the daemon about the process.

        Raises:
            SandboxProcessNotFoundError: it does not know it any more.
        """
        return self._run(lambda job: self._inner.refresh())

    def detach(self) -> None:
        """Let go of the process without ending it; output until now is not lost for a later attachment."""
        return self._run(lambda job: self._inner.detach())

    def __iter__(self) -> Iterator[Output]:
        return self._iterate(aiter(self._inner))


__all__ = ["Process"]
