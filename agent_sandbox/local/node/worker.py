"""The life of one Pod on this node, from its first sight to the removal of its last file.

One worker per Pod UID. In: the Pod as the API server has it, again whenever it changes. Out: running containers, the
Pod's status, its deletion. After a crash of the node a new worker goes on with the containers that still live, and
starts the others again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
import structlog

from agent_sandbox.kube import ConflictError, KubeError, MergePatch, NotFoundError
from agent_sandbox.local.node.admission import refusal
from agent_sandbox.local.node.claims import ClaimData
from agent_sandbox.local.node.container import KILLED, ContainerRunner, PodParts, Takeover, write_own_files
from agent_sandbox.local.node.context import NodeContext
from agent_sandbox.local.node.environment import Facts
from agent_sandbox.local.node.errors import ContainerError, HelperError, HelperGoneError
from agent_sandbox.local.node.eviction import EVICTED, DiskUse
from agent_sandbox.local.node.helper.namespaces import GATEWAY
from agent_sandbox.local.node.pods import NODE_PODS, Container, Pod, StatusOfContainer
from agent_sandbox.local.node.records import PodRecord, give_tree, owned_directory, remove_tree
from agent_sandbox.local.node.runtime import Runtime
from agent_sandbox.local.node.status import ContainerState, PodState, Running, Terminated, Waiting, pod_status
from agent_sandbox.local.node.volumes import ReferredObjects, VolumeMaker, claim_names, is_payload, read_referred

log = structlog.get_logger(__name__)

_RETRY: Final = 1.0
_COALESCE: Final = 0.01
_LEAST_SIDECAR_GRACE: Final = 2.0
_EVICTION_GRACE: Final = 1.0
_ENDED: Final = frozenset({"Succeeded", "Failed"})

OpenClaim = Callable[[str, str, int], Awaitable[ClaimData | None]]
"""Namespace, name and future owner of a PersistentVolumeClaim to its data; None until it is bound."""


class PodWorker:
    """One Pod."""

    def __init__(
        self,
        context: NodeContext,
        pod: Pod,
        record: PodRecord,
        open_claim: OpenClaim,
        warnings: Mapping[str, str],
        takeovers: Mapping[str, Takeover] | None = None,
    ) -> None:
        """
        Args:
            context: the node.
            pod: the Pod.
            record: what the node keeps of it.
            open_claim: finds the data of its claims.
            warnings: what this machine does not do for it: conditions and their messages.
            takeovers: containers of an earlier node by name, if the Pod's network still stands; None if it does not.
        """
        self._context = context
        self.pod = pod
        self.record = record
        self._open_claim = open_claim
        self._claims: dict[str, ClaimData] = {}
        self._warnings = warnings
        self._deleted = anyio.Event()
        self._gone = False
        self._dirty = anyio.Event()
        self._written: dict[str, Any] | None = None
        self._has_network = takeovers is not None
        self._takeovers = dict(takeovers or {})
        self._runtime: Runtime | None = None
        self._failure: tuple[str, str] | None = None
        self._life = anyio.CancelScope()
        known = pod.status.start_time if takeovers is not None else None
        self._started_at = context.clock.now() if known is None else known
        self.runners: dict[str, ContainerRunner] = {}
        self._states = {
            entry.name: _first_state(entry, pod, self._takeovers.get(entry.name)) for entry in self._all_containers()
        }
        self.update(pod)

    def _all_containers(self) -> Sequence[Container]:
        return (*self.pod.spec.init_containers, *self.pod.spec.containers)

    def update(self, pod: Pod | None) -> None:
        """The Pod changed; None: it is gone from the API server."""
        if pod is None:
            self._gone = True
        else:
            self.pod = pod
            self._touch()  # a readiness gate may have changed
        if pod is None or pod.metadata.deleting:
            self._deleted.set()
            for runner in self.runners.values():
                runner.hurry(self.grace())

    # Life

    async def run(self) -> None:
        """Live until the Pod is deleted and all of it is removed. Cancelled, it leaves containers to the node."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._publish_forever, name=f"status of {self.pod.key}")
            async with anyio.create_task_group() as life:
                life.start_soon(self._end_when_deleted, life.cancel_scope)
                if self.pod.status.phase not in _ENDED and not self._deleted.is_set():
                    life.start_soon(self._live, name=f"containers of {self.pod.key}")
            await self._terminate()
            group.cancel_scope.cancel()
        await self._remove()

    async def _end_when_deleted(self, scope: anyio.CancelScope) -> None:
        await self._deleted.wait()
        scope.cancel()

    async def _live(self) -> None:
        reason = refusal(self.pod, self._context.labels, self._context.capacity)
        if reason is not None:  # bound to us by name, so there was no way to keep it Pending
            self._fail("NodeAffinity", reason.message)
            return
        try:
            await self._run_pod()
        except Exception as error:
            causes = _causes(error)
            if any(isinstance(cause, HelperGoneError) for cause in causes):
                raise  # all Pods ended, and start again
            # Whatever one Pod's spec provokes is that Pod's end, never that of the node and all others on it.
            log.error("a pod cannot be run", pod=self.pod.key, exc_info=error)
            self._fail("UnexpectedError", f"the node cannot run this Pod: {causes[0]}")
            with anyio.CancelScope(shield=True):
                await self._stop_containers(0)
                await self._drop_network()

    async def _run_pod(self) -> None:
        try:
            with self._life, anyio.fail_after(self._time_left()):
                parts = await self._prepare()
                async with anyio.create_task_group() as upkeep:
                    upkeep.start_soon(self._refresh_forever, name=f"files of {self.pod.key}")
                    await self._run_containers(parts)
                    upkeep.cancel_scope.cancel()
        except TimeoutError:
            self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        with anyio.CancelScope(shield=True):
            await self._stop_containers(
                _EVICTION_GRACE
                if self._life.cancel_called
                else 0
                if self._failure is None
                else self.pod.spec.termination_grace_period_seconds
            )
            await self._drop_network()
            await anyio.to_thread.run_sync(self._free_disk)

    def _time_left(self) -> float | None:
        """Seconds until the Pod's active deadline, which a node that took it over goes on counting; None: for ever."""
        deadline = self.pod.spec.active_deadline_seconds
        if deadline is None:
            return None
        return max(0.0, deadline - (self._context.clock.now() - self._started_at).total_seconds())

    def _free_disk(self) -> None:
        """An ended Pod keeps its logs, and nothing that it wrote."""
        for name in ("volumes", "containers"):
            remove_tree(self._context.directory.pod(self.record.uid) / "files" / name)

    def evict(self, message: str) -> None:
        """End the Pod because of what it uses; it fails with the reason ``Evicted`` and frees its disk space."""
        if self._failure is None and not self._life.cancel_called:
            self._fail(EVICTED, message)
            self._life.cancel()

    def disk_use(self) -> DiskUse:
        """What it may use of the disk."""
        claims = {name: (claim.path, claim.size) for name, claim in self._claims.items() if claim.size}
        return DiskUse(self.pod, self._context.directory.pod(self.record.uid), claims, self.evict)

    def _fail(self, reason: str, message: str) -> None:
        self._failure = (reason, message)
        self._context.report(self.pod, "Warning", reason, message)
        self._touch()

    # Preparation

    async def _prepare(self) -> PodParts:
        """Network, files and volumes; tries again for as long as something it names does not exist."""
        directory = self._context.directory
        complained = ""
        while True:
            try:
                await anyio.to_thread.run_sync(directory.create_pod, self.record)
                await self._make_network()
                parts = await self._make_parts(directory.pod(self.record.uid) / "files", self._context.enforced())
            except (ContainerError, HelperError, KubeError, OSError, ValueError) as error:
                reason = getattr(error, "reason", "")
                if str(error) != complained:
                    complained = str(error)
                    self._context.report(self.pod, "Warning", "FailedMount", complained)
                    self._wait_all(reason if isinstance(error, ContainerError) else "ContainerCreating", complained)
            else:
                return parts
            await self._context.clock.sleep(_RETRY)

    async def _make_network(self) -> None:
        if not self._has_network:
            await self._context.network.create(self.record.uid, self.record.address)
            self._has_network = True

    def _wait_all(self, reason: str, message: str) -> None:
        for name, state in self._states.items():
            self._states[name] = state.with_state(Waiting(reason, message))
        self._touch()

    async def _make_parts(self, files: Path, enforced: anyio.Event) -> PodParts:
        runtime = self._runtime = await self._context.runtimes.find(self.pod.spec.runtime_class_name)
        objects = await read_referred(self._context.client, self.pod)
        claims = {name: await self._claim(name) for name in claim_names(self.pod)}
        self._claims = claims
        facts = self._facts(objects)
        maker = self._maker(facts, objects, claims)

        def make() -> PodParts:
            for claim in claims.values():
                give_tree(claim.path, self.record.owner)
            owned_directory(files / "volumes", self.record.owner)
            owned_directory(files / "containers", self.record.owner)
            write_own_files(files, self.record, self.pod.spec, GATEWAY if self._context.network.isolated else None)
            return PodParts(self.record, facts, maker.make(), files, runtime, enforced)

        return await anyio.to_thread.run_sync(make)

    def _maker(self, facts: Facts, objects: ReferredObjects, claims: Mapping[str, ClaimData]) -> VolumeMaker:
        volumes = self._context.directory.pod(self.record.uid) / "files" / "volumes"
        return VolumeMaker(self.record, volumes, facts, objects, claims)

    async def _refresh_forever(self) -> None:
        """Let files of ConfigMaps, Secrets and the Pod's own fields follow what they come from."""
        if not any(is_payload(volume) for volume in self.pod.spec.volumes):
            return
        while True:
            await self._context.clock.sleep(self._context.options.payload_period)
            try:
                objects = await read_referred(self._context.client, self.pod)
                await anyio.to_thread.run_sync(self._maker(self._facts(objects), objects, {}).refresh)
            except (ContainerError, KubeError, OSError, ValueError) as error:
                self._context.report(self.pod, "Warning", "FailedMount", str(error))

    def _facts(self, objects: ReferredObjects) -> Facts:
        options = self._context.options
        return Facts(
            self.pod,
            self.record.address,
            options.host_ip,
            options.name,
            objects.as_text("config_maps"),
            objects.as_text("secrets"),
            self._context.capacity,
        )

    async def _claim(self, name: str) -> ClaimData:
        found = await self._open_claim(self.record.namespace, name, self.record.owner)
        if found is None:
            raise ContainerError("ContainerCreating", f'persistentvolumeclaim "{name}" not found or not bound')
        return found

    # Containers

    def _runner(self, parts: PodParts, container: Container, policy: str) -> ContainerRunner:
        changed = partial(self._container_changed, container.name)
        state, takeover = self._states[container.name], self._takeovers.pop(container.name, None)
        runner = ContainerRunner(self._context, parts, container, state, policy, changed, takeover)
        self.runners[container.name] = runner
        return runner

    def _container_changed(self, name: str) -> None:
        self._states[name] = self.runners[name].state
        self._touch()

    async def _run_containers(self, parts: PodParts) -> None:
        spec = self.pod.spec
        async with anyio.create_task_group() as sidecars:
            for container in spec.init_containers:
                if container.restart_policy == "Always":
                    sidecar = self._runner(parts, container, "Always")
                    sidecars.start_soon(sidecar.run, name=f"sidecar {container.name}")
                    await sidecar.did_start.wait()
                elif not await self._initialize(parts, container):
                    break
            else:
                runners = [self._runner(parts, container, spec.restart_policy) for container in spec.containers]
                async with anyio.create_task_group() as group:
                    for runner in runners:
                        group.start_soon(runner.run, name=f"container {runner.name}")
            sidecars.cancel_scope.cancel()

    async def _initialize(self, parts: PodParts, container: Container) -> bool:
        """Run an init container to success; False if it failed and is not to be repeated."""
        policy = "Never" if self.pod.spec.restart_policy == "Never" else "OnFailure"
        runner = self._runner(parts, container, policy)
        await runner.run()
        state = runner.state.state
        return isinstance(state, Terminated) and state.exit_code == 0

    def grace(self) -> float:
        """Seconds that the containers get to end: the delete's own, else the Pod's; none if it is gone already."""
        if self._gone:
            return 0.0
        asked = self.pod.metadata.deletion_grace_period_seconds
        return float(self.pod.spec.termination_grace_period_seconds if asked is None else asked)

    async def _stop_containers(self, grace: float) -> None:
        """End the containers together, then the sidecars, the last one first, within what is left of the grace."""
        clock = self._context.clock
        deadline = clock.monotonic() + grace
        sidecars = self.pod.sidecars
        async with anyio.create_task_group() as group:
            for name, runner in self.runners.items():
                if name not in sidecars:
                    group.start_soon(runner.stop, grace)
        for container in reversed(self.pod.spec.init_containers):
            if container.name in sidecars and container.name in self.runners:
                await self.runners[container.name].stop(
                    max(deadline - clock.monotonic(), min(grace, _LEAST_SIDECAR_GRACE))
                )

    async def stop_for_node(self, grace: float) -> None:
        """Stop the containers because the node stops; the Pod lives on and starts again with the next node."""
        with suppress(HelperGoneError):
            await self._stop_containers(grace)

    async def _terminate(self) -> None:
        await self._deleted.wait()
        for name, runner in self.runners.items():
            if runner.process is not None:
                self._context.report(self.pod, "Normal", "Killing", f"Stopping container {name}")
        await self._stop_containers(self.grace())

    async def _drop_network(self) -> None:
        if self._runtime is not None:
            await self._runtime.release(self.record.uid)
            self._runtime = None
        if self._has_network:
            self._has_network = False
            try:
                await self._context.network.delete(self.record.uid)
            except HelperError as error:
                log.error("network of a pod not removed", pod=self.pod.key, error=str(error))

    async def _remove(self) -> None:
        """Remove what is left on this machine, then the object: who sees it gone may rely on that."""
        await self._drop_network()
        if self._context.cgroups is not None:
            await anyio.to_thread.run_sync(self._context.cgroups.remove_some, self.record.uid)
        await anyio.to_thread.run_sync(self._context.directory.remove_pod, self.record.uid)
        while not self._gone:
            try:
                await self._context.client.delete(
                    NODE_PODS,
                    self.record.name,
                    self.record.namespace,
                    uid=self.record.uid,
                    grace_period_seconds=0,
                )
            except (NotFoundError, ConflictError):
                return
            except KubeError as error:
                log.warning("pod not deleted yet", pod=self.pod.key, error=str(error))
                await self._context.clock.sleep(_RETRY)
            else:
                return

    # Status

    def _touch(self) -> None:
        self._dirty.set()

    def state(self) -> PodState:
        """What the status is computed from."""
        spec = self.pod.spec
        return PodState(
            restart_policy=spec.restart_policy,
            host_ip=self._context.options.host_ip,
            containers=tuple(self._states[entry.name] for entry in spec.containers),
            init_containers=tuple(self._states[entry.name] for entry in spec.init_containers),
            sidecars=self.pod.sidecars,
            readiness_gates=tuple(gate.condition_type for gate in spec.readiness_gates),
            address=self.record.address if self._has_network else "",
            started_at=self._started_at,
            failure=self._failure,
            warnings=self._warnings,
        )

    async def _publish_forever(self) -> None:
        """Write the status whenever it changed, several changes at once in one write."""
        while True:
            await self._dirty.wait()
            await self._settle()
            self._dirty = anyio.Event()
            status = pod_status(self.state(), self.pod.status.conditions, self._context.clock.now())
            if status == self._written:
                continue
            if not await self._write(status):
                self._dirty.set()
                await self._context.clock.sleep(_RETRY)

    async def _settle(self) -> None:
        """Wait a moment for more changes; before the first write, for readiness, but not for ever."""
        clock, options = self._context.clock, self._context.options
        if self._written is not None:
            await clock.sleep(_COALESCE)
            return
        deadline = clock.monotonic() + options.status_settle
        while clock.monotonic() < deadline and not self._is_settled():
            self._dirty = anyio.Event()
            with anyio.move_on_after(deadline - clock.monotonic()):
                await self._dirty.wait()

    def _is_settled(self) -> bool:
        states = [self._states[entry.name] for entry in self.pod.spec.containers]
        troubled = any(isinstance(entry.state, Waiting) and entry.state.message for entry in self._states.values())
        ended = any(isinstance(entry.state, Terminated) for entry in states)
        return troubled or ended or self._failure is not None or all(entry.ready for entry in states)

    async def _write(self, status: dict[str, Any]) -> bool:
        patch = MergePatch({"metadata": {"uid": self.record.uid}, "status": status})
        name, namespace = self.record.name, self.record.namespace
        try:
            written = await self._context.client.patch(NODE_PODS, name, patch, namespace, subresource="status")
        except (NotFoundError, ConflictError):
            self.update(None)  # another Pod has the name now, or none
            return True
        except KubeError as error:
            log.warning("status not written yet", pod=self.pod.key, error=str(error))
            return False
        self._written = status
        self.update(msgspec.structs.replace(self.pod, metadata=written.metadata, status=written.status))
        return True


def _causes(error: Exception) -> list[Exception]:
    """What really happened, out of the groups of tasks."""
    if isinstance(error, ExceptionGroup):
        return [cause for part in error.exceptions for cause in _causes(part)]
    return [error]


def _first_state(container: Container, pod: Pod, takeover: Takeover | None) -> ContainerState:
    """The state to begin with: that of a container of an earlier node, if there was one."""
    state = ContainerState(container.name, container.image)
    statuses = (*pod.status.container_statuses, *pod.status.init_container_statuses)
    previous = next((entry for entry in statuses if entry.name == container.name), None)
    if takeover is not None:
        return _taken_over(state, previous, takeover)
    if previous is None or pod.status.phase in _ENDED:
        return state
    return _after_crash(state, previous, pod)


def _taken_over(state: ContainerState, previous: StatusOfContainer | None, takeover: Takeover) -> ContainerState:
    """As its status says, which may have been written before or after its last start."""
    run = takeover.about.launch.run
    if previous is None or previous.restart_count != run or previous.state.running is None:
        return state.with_state(state.state, restart_count=run)
    running = Running(takeover.started_at)
    return state.with_state(
        running,
        last=_last(previous),
        restart_count=run,
        ready=previous.ready,
        started=bool(previous.started),
        container_id=previous.container_id,
    )


def _last(previous: StatusOfContainer) -> Terminated | None:
    ended = previous.last_state.terminated
    if ended is None or ended.exit_code is None or ended.finished_at is None:
        return None
    return Terminated(ended.exit_code, ended.reason, ended.message, ended.started_at, ended.finished_at)


def _after_crash(state: ContainerState, previous: StatusOfContainer, pod: Pod) -> ContainerState:
    if previous.state.waiting is not None:
        return state.with_state(state.state, restart_count=previous.restart_count)
    moment = pod.metadata.creation_timestamp
    assert moment is not None, "an object that an API server returned has a creation time"
    last = Terminated(KILLED, "ContainerStatusUnknown", "the node was stopped while the container ran", None, moment)
    return state.with_state(state.state, last=last, restart_count=previous.restart_count + 1)
