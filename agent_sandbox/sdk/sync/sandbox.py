"""A handle on one sandbox: what an agent holds while it works in it.

Generated from ``agent_sandbox/sdk/sandbox.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""


# ruff: noqa: SLF001 - a view and what it shows are one

from collections.abc import Generator
from contextlib import AbstractContextManager
from datetime import datetime

from agent_sandbox.sdk.claims import HEARTBEAT_SECONDS
from agent_sandbox.sdk.facade import Facade
from agent_sandbox.sdk.results import ExecutionResult, SandboxStatus
from agent_sandbox.sdk.sandbox import AsyncSandbox
from agent_sandbox.sdk.sync.commands import Commands
from agent_sandbox.sdk.sync.files import Files
from agent_sandbox.sdk.sync.ports import Ports
from agent_sandbox.sdk.wire import Wire


class Sandbox(Facade[AsyncSandbox]):
    """One sandbox and everything that can be done with it.

    Attributes:
        claim_name: name of the SandboxClaim that holds it.
        sandbox_name: name of the Sandbox; another one than the claim's if it came from a warm pool.
        namespace: namespace of both.
        pod_name: name of its Pod, as far as it was read from the cluster.
        annotations: annotations of the Sandbox, as far as they were read from the cluster.
        commands: runs commands and looks after processes.
        files: reads and writes files of any size.
        ports: reaches what listens in the sandbox.
    """

    @property
    def claim_name(self) -> str:
        """Name of the SandboxClaim that holds it."""
        return self._inner.claim_name

    @property
    def sandbox_name(self) -> str:
        """Name of the Sandbox; another one than the claim's if it came from a warm pool."""
        return self._inner.sandbox_name

    @property
    def namespace(self) -> str:
        """Namespace of both."""
        return self._inner.namespace

    @property
    def pod_name(self) -> str:
        """Name of its Pod, as far as it was read from the cluster."""
        return self._inner.pod_name

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations of the Sandbox, as far as they were read from the cluster."""
        return self._inner.annotations

    @property
    def commands(self) -> Commands:
        """Runs commands and looks after processes."""
        return Commands._around(self._inner.commands)

    @property
    def files(self) -> Files:
        """Reads and writes files of any size."""
        return Files._around(self._inner.files)

    @property
    def ports(self) -> Ports:
        """Reaches what listens in the sandbox."""
        return Ports._around(self._inner.ports)

    @property
    def wire(self) -> Wire:
        """HTTP to the runtime in the sandbox, for what this package has no method for."""
        return self._inner.wire

    def run(self, command: str, timeout: float | None = 60) -> ExecutionResult:
        """Run a command and wait for its end. It is split as a shell would, but there is no shell: for pipes and
        variables say ``sh -c '...'``.

        Args:
            command: the command line.
            timeout: seconds until the command and all it started are killed; None means never.

        Returns:
            Output and exit code. A command that cannot be started has exit code 1 and says why on stderr.

        Raises:
            CommandTimeoutError: it was killed; carries the output until then.
            SandboxError: the sandbox cannot be reached, is gone, or refused. The command was not repeated.
        """
        return self._run(lambda job: self._inner.run(command, timeout))

    def write(self, path: str, content: bytes | str, timeout: float | None = 60) -> None:
        """Write a file, making missing directories; an existing file is replaced.

        Args:
            path: relative to the workspace, or absolute within what the runtime allows (the workspace and ``/tmp``).
            content: bytes, or text to be written as UTF-8.
            timeout: seconds.

        Raises:
            SandboxPermissionError: the path is not allowed.
            SandboxDiskFullError: no space is left.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        return self._run(lambda job: self._inner.write(path, content, timeout))

    def read(self, path: str, timeout: float | None = 60) -> bytes:
        """Read a file.

        Args:
            path: as for ``write``.
            timeout: seconds.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxPermissionError: the path is not allowed.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        return self._run(lambda job: self._inner.read(path, timeout))

    def is_ready(self) -> bool:
        """Ask the runtime in the sandbox whether it answers, for at most five seconds."""
        return self._run(lambda job: self._inner.is_ready())

    def refresh(self) -> None:
        """Read ``pod_name``, ``annotations`` and the Pod's addresses from the cluster.

        Raises:
            SandboxGoneError: the Sandbox does not exist any more.
            SandboxError: the API server refuses.
        """
        return self._run(lambda job: self._inner.refresh())

    def status(self) -> SandboxStatus:
        """What the cluster says of this sandbox now.

        Raises:
            SandboxGoneError: the claim does not exist any more.
        """
        return self._run(lambda job: self._inner.status())

    def wait_until_ready(self, timeout: float = 180) -> None:
        """Wait until the claim says Ready.

        Raises:
            SandboxReadyTimeoutError: it did not within ``timeout`` seconds.
            SandboxError: it never will.
        """
        return self._run(lambda job: self._inner.wait_until_ready(timeout))

    def suspend(self, timeout: float = 180) -> None:
        """Stop the Pod and keep the volumes; returns when the Pod is gone. A suspended sandbox stays as it is.

        Raises:
            SandboxTimeoutError: the Pod is not gone within ``timeout`` seconds.
            SandboxError: the sandbox is gone, or the API server refuses.
        """
        return self._run(lambda job: self._inner.suspend(timeout))

    def resume(self, timeout: float = 180) -> None:
        """Start the Pod of a suspended sandbox again and wait until it is ready. A running one stays as it is.

        Raises:
            SandboxTimeoutError: it is not ready within ``timeout`` seconds.
            SandboxError: the sandbox is gone, or the API server refuses.
        """
        return self._run(lambda job: self._inner.resume(timeout))

    def extend(self, seconds: float) -> datetime:
        """Let the sandbox live that many seconds from now, longer or shorter than it would have; returns its end.

        Raises:
            ValueError: that is no positive number of seconds.
            SandboxGoneError: it has ended already.
            SandboxError: the API server refuses.
        """
        return self._run(lambda job: self._inner.extend(seconds))

    def heartbeat(self, ttl: float = HEARTBEAT_SECONDS) -> AbstractContextManager[None]:
        """Keep the sandbox alive while the block lasts, and let it end ``ttl`` seconds after this program died.

        Three times in each ttl the end is put off. An API server that is away is tried again; a sandbox that is gone
        ends the heartbeat, and the next use of the sandbox says so.
        """
        return self._enter_manager(self._inner.heartbeat(ttl))

    def logs(
        self,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> Generator[bytes, None, None]:
        """What the program of the sandbox's container wrote to its output: pieces, cut anywhere.

        Args:
            container: which one; needed only if the Pod has several.
            follow: go on with what it writes from now on, until the Pod ends.
            tail: only so many of the last lines.
            since: only what was written in the last so many seconds.
            previous: of the container before its last restart.
            timestamps: put the time before each line.

        Raises:
            SandboxNotReadyError: there is no Pod, as in a suspended sandbox, or it has not started yet.
            SandboxGoneError: the sandbox does not exist any more.
            SandboxError: the API server refuses or cannot be reached.
        """
        return self._iterate(
            self._inner.logs(
                container=container, follow=follow, tail=tail, since=since, previous=previous, timestamps=timestamps
            )
        )

    def delete(self) -> None:
        """Delete the claim and with it the sandbox and its volumes; one that is gone already is fine.

        Raises:
            SandboxCleanupError: it still exists.
        """
        return self._run(lambda job: self._inner.delete())


__all__ = ["Sandbox"]
