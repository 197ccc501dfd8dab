"""A handle on one sandbox: what an agent holds while it works in it."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import anyio

from agent_sandbox.kube import ConflictError, KubeError, MergePatch, NotFoundError
from agent_sandbox.sdk import legacy
from agent_sandbox.sdk.background import background_tasks
from agent_sandbox.sdk.claims import HEARTBEAT_SECONDS, Binding, delete_claim, expiry, wait_until_bound
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.commands import AsyncCommands
from agent_sandbox.sdk.connection import Connection
from agent_sandbox.sdk.errors import SandboxError, SandboxGoneError
from agent_sandbox.sdk.files import AsyncFiles
from agent_sandbox.sdk.pod_log import read_pod_log
from agent_sandbox.sdk.ports import AsyncPorts, PodReference
from agent_sandbox.sdk.results import ExecutionResult, SandboxStatus
from agent_sandbox.sdk.status import status_of
from agent_sandbox.sdk.waiting import is_ready_now, is_suspended_now, wait_for_sandbox
from agent_sandbox.sdk.wire import Target, Wire
from agent_sandbox.tracing import TraceContext
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxClaimView
from agent_sandbox_api.meta import format_time
from agent_sandbox_api.names import ANNOTATION_POD_NAME

_log = logging.getLogger(__name__)

_PROBE_SECONDS: Final = 5.0


class AsyncSandbox:
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

    def __init__(
        self, connection: Connection, claim: SandboxClaimView, binding: Binding, *, trace: TraceContext | None = None
    ) -> None:
        """
        Args:
            connection: the way to it.
            claim: the claim that holds it.
            binding: what the claim holds.
            trace: the trace in which it was made; requests outside of any other trace join that one.
        """
        self.claim_name: str = claim.metadata.name
        self.sandbox_name: str = binding.sandbox_name
        self.namespace: str = claim.metadata.namespace
        self.pod_name: str = binding.sandbox_name
        self.annotations: dict[str, str] = {}
        self._connection = connection
        self._claim = claim
        self._target = self._target_at(binding.pod_ips)
        self._wire = Wire(
            connection.route, lambda: self._target, connection.server_port, exists=self._is_to_stay, trace=trace
        )
        self.commands: AsyncCommands = AsyncCommands(self._wire)
        self.files: AsyncFiles = AsyncFiles(self._wire)
        self.ports: AsyncPorts = AsyncPorts(connection, self._wire, lambda: self._target, self._pod, claim)

    @property
    def wire(self) -> Wire:
        """HTTP to the runtime in the sandbox, for what this package has no method for."""
        return self._wire

    async def run(self, command: str, timeout: float | None = 60) -> ExecutionResult:
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
        with self._wire.span("sandbox.run") as span:
            result = await legacy.execute(self._wire, command, timeout)
            span.note({"process.exit_code": result.exit_code})
            return result

    async def write(self, path: str, content: bytes | str, timeout: float | None = 60) -> None:
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
        # bytes(7) would be seven null bytes; a view of a number is a TypeError.
        data = content.encode() if isinstance(content, str) else bytes(memoryview(content))
        await legacy.upload(self._wire, path, data, timeout)

    async def read(self, path: str, timeout: float | None = 60) -> bytes:
        """Read a file.

        Args:
            path: as for ``write``.
            timeout: seconds.

        Raises:
            SandboxFileNotFoundError: there is no such file.
            SandboxPermissionError: the path is not allowed.
            SandboxError: the sandbox cannot be reached, is gone, or refused.
        """
        return await legacy.download(self._wire, path, timeout)

    async def is_ready(self) -> bool:
        """Ask the runtime in the sandbox whether it answers, for at most five seconds."""
        try:
            with anyio.fail_after(_PROBE_SECONDS):
                # Whatever the program there says of "/", it is there; only the way to it can fail.
                await self._wire.request("GET", "", timeout=_PROBE_SECONDS, accept=frozenset(range(400, 600)))
        except (SandboxError, TimeoutError):
            return False
        return True

    async def refresh(self) -> None:
        """Read ``pod_name``, ``annotations`` and the Pod's addresses from the cluster.

        Raises:
            SandboxGoneError: the Sandbox does not exist any more.
            SandboxError: the API server refuses.
        """
        sandbox = await self._read_sandbox()
        self.annotations = dict(sandbox.metadata.annotations)
        self.pod_name = self.annotations.get(ANNOTATION_POD_NAME) or self.sandbox_name
        self._target = self._target_at(sandbox.status.pod_ips)

    async def status(self) -> SandboxStatus:
        """What the cluster says of this sandbox now.

        Raises:
            SandboxGoneError: the claim does not exist any more.
        """
        return status_of(await self._read_claim())

    async def wait_until_ready(self, timeout: float = 180) -> None:
        """Wait until the claim says Ready.

        Raises:
            SandboxReadyTimeoutError: it did not within ``timeout`` seconds.
            SandboxError: it never will.
        """
        binding = await wait_until_bound(self._connection.kube, await self._read_claim(), timeout=timeout)
        self._bind(binding)

    async def suspend(self, timeout: float = 180) -> None:
        """Stop the Pod and keep the volumes; returns when the Pod is gone. A suspended sandbox stays as it is.

        Raises:
            SandboxTimeoutError: the Pod is not gone within ``timeout`` seconds.
            SandboxError: the sandbox is gone, or the API server refuses.
        """
        sandbox = await self._scale(0)
        await wait_for_sandbox(
            self._connection.kube,
            sandbox,
            is_suspended_now,
            timeout=timeout,
            goal="suspended",
        )

    async def resume(self, timeout: float = 180) -> None:
        """Start the Pod of a suspended sandbox again and wait until it is ready. A running one stays as it is.

        Raises:
            SandboxTimeoutError: it is not ready within ``timeout`` seconds.
            SandboxError: the sandbox is gone, or the API server refuses.
        """
        sandbox = await self._scale(1)
        ready = await wait_for_sandbox(self._connection.kube, sandbox, is_ready_now, timeout=timeout, goal="ready")
        self._target = self._target_at(ready.status.pod_ips)

    async def extend(self, seconds: float) -> datetime:
        """Let the sandbox live that many seconds from now, longer or shorter than it would have; returns its end.

        Raises:
            ValueError: that is no positive number of seconds.
            SandboxGoneError: it has ended already.
            SandboxError: the API server refuses.
        """
        end = expiry(await self._connection.now(), seconds)
        patch = {
            "metadata": {"uid": self._claim.metadata.uid},  # a claim that only has the same name is not touched
            "spec": {"lifecycle": {"shutdownTime": format_time(end), "shutdownPolicy": "Delete"}},
        }
        try:
            await self._connection.kube.patch(SANDBOX_CLAIMS, self.claim_name, MergePatch(patch), self.namespace)
        except (NotFoundError, ConflictError) as error:
            raise self._gone() from error
        except KubeError as error:
            raise explain(error, f"extending SandboxClaim {self.namespace}/{self.claim_name}") from error
        return end

    @asynccontextmanager
    async def heartbeat(self, ttl: float = HEARTBEAT_SECONDS) -> AsyncIterator[None]:
        """Keep the sandbox alive while the block lasts, and let it end ``ttl`` seconds after this program died.

        Three times in each ttl the end is put off. An API server that is away is tried again; a sandbox that is gone
        ends the heartbeat, and the next use of the sandbox says so.
        """
        await self.extend(ttl)
        async with background_tasks() as tasks:
            tasks.start_soon(self._beat, ttl, name=f"heartbeat of {self.claim_name}")
            yield

    async def _beat(self, ttl: float) -> None:
        while True:
            await anyio.sleep(ttl / 3)
            try:
                await self.extend(ttl)
            except SandboxGoneError:
                return
            except SandboxError as error:
                _log.warning("the heartbeat of sandbox %s failed and is tried again: %s", self.claim_name, error)

    async def _scale(self, replicas: int) -> SandboxView:
        """Through the scale subresource: who may only suspend and resume must not be able to change the Pod as well."""
        kube = self._connection.kube
        try:
            await kube.set_scale(SANDBOXES, self.sandbox_name, replicas, self.namespace)
            return await kube.get(SANDBOXES, self.sandbox_name, self.namespace)
        except NotFoundError as error:
            raise self._gone() from error
        except KubeError as error:
            raise explain(error, f"scaling Sandbox {self.namespace}/{self.sandbox_name}") from error

    async def logs(
        self,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> AsyncGenerator[bytes, None]:
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
        pod = await self._pod()
        moment = None if since is None else await self._connection.now() - timedelta(seconds=since)
        log = read_pod_log(
            self._connection.kube,
            pod.namespace,
            pod.name,
            container=container,
            follow=follow,
            tail=tail,
            since=moment,
            previous=previous,
            timestamps=timestamps,
        )
        async with aclosing(log) as pieces:
            async for piece in pieces:
                yield piece

    async def delete(self) -> None:
        """Delete the claim and with it the sandbox and its volumes; one that is gone already is fine.

        Raises:
            SandboxCleanupError: it still exists.
        """
        await delete_claim(self._connection.kube, self._claim)

    async def _pod(self) -> PodReference:
        await self.refresh()
        return PodReference(self.namespace, self.pod_name)

    async def _is_to_stay(self) -> bool:
        """Whether the claim exists and is not being deleted; True if that cannot be found out now."""
        try:
            return not (await self._read_claim()).metadata.deleting
        except SandboxGoneError:
            return False
        except SandboxError:
            return True

    def _bind(self, binding: Binding) -> None:
        self.sandbox_name = binding.sandbox_name
        self._target = self._target_at(binding.pod_ips)

    def _target_at(self, pod_ips: tuple[str, ...]) -> Target:
        return Target(self.namespace, self.sandbox_name, pod_ips, self.claim_name, self._claim.metadata.uid)

    async def _read_claim(self) -> SandboxClaimView:
        try:
            claim = await self._connection.kube.get(SANDBOX_CLAIMS, self.claim_name, self.namespace)
        except NotFoundError as error:
            raise self._gone() from error
        except KubeError as error:
            raise explain(error, f"reading SandboxClaim {self.namespace}/{self.claim_name}") from error
        if claim.metadata.uid != self._claim.metadata.uid:
            raise self._gone()
        return claim

    async def _read_sandbox(self) -> SandboxView:
        try:
            return await self._connection.kube.get(SANDBOXES, self.sandbox_name, self.namespace)
        except NotFoundError as error:
            raise self._gone() from error
        except KubeError as error:
            raise explain(error, f"reading Sandbox {self.namespace}/{self.sandbox_name}") from error

    def _gone(self) -> SandboxGoneError:
        return SandboxGoneError(
            f"sandbox {self.namespace}/{self.sandbox_name} of claim {self.claim_name} does not exist any more"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.namespace}/{self.claim_name})"


__all__ = ["AsyncSandbox"]
