"""The life of one container: start, probes, end, back-off, start again.

In: a container of a Pod whose network and volumes exist. Out: its ``ContainerState``, and a call of ``changed``
whenever that is another one.
"""

import os
import signal
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from agent_sandbox.local.node.bubblewrap import Box, Mount, inside
from agent_sandbox.local.node.cgroups import ControlGroup, limits_of, sum_of_limits
from agent_sandbox.local.node.commands import run_command
from agent_sandbox.local.node.context import NodeContext
from agent_sandbox.local.node.environment import Facts, container_command, container_environment, expand
from agent_sandbox.local.node.errors import ContainerError, HelperError, ImageError, NodeError
from agent_sandbox.local.node.images import WORKSPACE, Image
from agent_sandbox.local.node.log_reader import remove_old_runs
from agent_sandbox.local.node.network import Survivor
from agent_sandbox.local.node.oci.rooted import path_in_image
from agent_sandbox.local.node.payload import current_files
from agent_sandbox.local.node.pods import Container, Handler, PodSecurity, PodSpec, Probe, TcpSocket
from agent_sandbox.local.node.probes import Outcome, Target, check, watch_probe
from agent_sandbox.local.node.records import PodRecord, owned_directory, remove_tree
from agent_sandbox.local.node.runtime import About, ContainerProcess, Launch, Runtime
from agent_sandbox.local.node.status import ContainerState, Running, Terminated, Waiting, will_restart
from agent_sandbox.local.node.volumes import Volume, VolumeUse, mounts_of
from agent_sandbox.local.quantities import parse_quantity
from agent_sandbox.runtime.events import EventType

log = structlog.get_logger(__name__)

LISTEN_VARIABLE: Final = "AGENT_SANDBOX_LISTEN"
KILLED: Final = 137
_MESSAGE_BYTES: Final = 4096
_SHOW_ERROR: Final = 1.0
_ENFORCEMENT_PATIENCE: Final = 2.0
_KEPT_RUNS: Final = 2
"""The present run and the one before, for ``logs --previous``; a kubelet keeps as many."""


@dataclass(frozen=True)
class Takeover:
    """A container that an earlier node started.

    Attributes:
        survivor: its process, living or ended.
        about: what the earlier node said of it.
        started_at: when it was started, as its status has it or the helper knows it.
        done: set once it is taken over, or cannot be.
    """

    survivor: Survivor
    about: About
    started_at: datetime
    done: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True)
class PodParts:
    """What the containers of one Pod share.

    Attributes:
        record: the Pod's record.
        facts: the Pod, its addresses, the objects it refers to.
        volumes: its volumes by name.
        files: its own files on the host: ``hosts``, ``hostname``, ``resolv.conf`` and a directory per container.
        runtime: what runs them.
        enforced: set once the network policies that hold for the Pod do.
    """

    record: PodRecord
    facts: Facts
    volumes: Mapping[str, Volume]
    files: Path
    runtime: Runtime
    enforced: anyio.Event


class ContainerRunner:
    """Keeps one container as its restart policy wants it.

    Flow: ``run`` until it returns (the container ended for good) or is cancelled; then ``stop``.
    """

    def __init__(
        self,
        context: NodeContext,
        parts: PodParts,
        container: Container,
        state: ContainerState,
        policy: str,
        changed: Callable[[], None],
        takeover: Takeover | None = None,
    ) -> None:
        self._context = context
        self._parts = parts
        self._container = container
        self._policy = policy
        self._changed = changed
        self.state = state
        self.process: ContainerProcess | None = None
        self.did_start = anyio.Event()
        """Set once it runs and its startup probe succeeded."""
        self._runs = state.restart_count
        self._takeover = takeover
        self._last_key = ""
        self._startup_passed = True
        self._unhealthy = anyio.Event()
        self._unhealthy_grace = 0.0
        self._ending: anyio.CancelScope | None = None

    @property
    def stdin_once(self) -> bool:
        """Whether its input ends with the first who attached."""
        return self._container.stdin_once

    @property
    def name(self) -> str:
        """The container's name."""
        return self._container.name

    def _become(self, state: ContainerState) -> None:
        if state != self.state:
            self.state = state
            self._changed()

    def _report(self, kind: EventType, reason: str, message: str) -> None:
        self._context.report(self._parts.facts.pod, kind, reason, message)

    # The loop

    async def run(self) -> None:
        """Start the container, or take it over, and start it again as often as its restart policy says."""
        pause = 0.0
        while True:
            began = self._context.clock.monotonic()
            try:
                ended = await self._run_once()
            except (ContainerError, OSError, ValueError) as error:
                if self._did_fail_for_good(error):
                    return
                pause = self._next_pause(max(pause, self._context.options.restart_backoff / 2))
                await self._back_off(error, pause)
                continue
            if not will_restart(self.state, self._policy):
                return
            if self._context.clock.monotonic() - began >= self._context.options.restart_backoff_reset:
                pause = 0.0
            if pause:
                message = f"back-off {pause:.0f}s restarting failed container={self.name}: {_describe(ended)}"
                waiting = Waiting("CrashLoopBackOff", message)
                self._become(self.state.with_state(waiting, last=ended, ready=False, started=False))
                self._report("Warning", "BackOff", message)
                await self._context.clock.sleep(pause)
            pause = self._next_pause(pause)
            self._runs += 1
            self.state = self.state.with_state(
                Waiting("ContainerCreating"), last=ended, restart_count=self._runs, ready=False, started=False
            )

    def _next_pause(self, pause: float) -> float:
        options = self._context.options
        return min(max(pause * 2, options.restart_backoff), options.restart_backoff_max)

    async def _back_off(self, error: Exception, pause: float) -> None:
        """Wait before the next attempt; a missing image is soon shown as waited for, as a kubelet does."""
        clock = self._context.clock
        if isinstance(error, ImageError):
            await clock.sleep(min(pause, _SHOW_ERROR))
            message = f'Back-off pulling image "{self._container.image}": {error.reason}: {error}'
            self._become(self.state.with_state(Waiting("ImagePullBackOff", message)))
            pause -= min(pause, _SHOW_ERROR)
        await clock.sleep(pause)

    def _did_fail_for_good(self, error: Exception) -> bool:
        """Show why the container cannot be started; True if it will not be tried again."""
        reason = error.reason if isinstance(error, ContainerError) else "CreateContainerError"
        message = str(error)
        now = self._context.clock.now()
        self._report("Warning", "Failed", f"Error: {message}")
        if reason != "StartError":
            self._become(self.state.with_state(Waiting(reason, message), ready=False, started=False))
            return False
        ended = Terminated(128, reason, message, None, now)
        if self._policy == "Never":
            self._become(self.state.with_state(ended, ready=False, started=False))
            return True
        waiting = Waiting("RunContainerError", message)
        self._become(self.state.with_state(waiting, last=ended, ready=False, started=False))
        return False

    async def _run_once(self) -> Terminated:
        takeover, self._takeover = self._takeover, None
        if takeover is not None:
            process, started_at = await self._adopt(takeover)
        else:
            process, started_at = await self._start_and_report()
        identity = f"{self._parts.record.uid}/{self.name}/{self._runs}"
        try:
            startup = None if self._startup_passed else self._container.startup_probe
            readiness = self._readiness_probe(process.launch)
            running = self.state.with_state(
                Running(started_at),
                container_id=f"{self._parts.runtime.name}://{identity}",
                ready=self.state.ready or (startup is None and readiness is None),
                started=startup is None,
            )
            if process.alive or takeover is None:
                self._become(running)
            if startup is None:
                self.did_start.set()
            code = await self._watch(process, readiness, hook=takeover is None)
            reason = await self._end_reason(process, code)
            message = await anyio.to_thread.run_sync(self._read_last_words, process, code)
            ended = Terminated(code, reason, message, started_at, self._context.clock.now())
            self._become(running.with_state(ended, ready=False, started=False))
            return ended
        finally:
            if not process.alive:
                self.process = None

    async def _start_and_report(self) -> tuple[ContainerProcess, datetime]:
        process = await self._start(await self._find_image())
        self._report("Normal", "Created", f"Created container: {self.name}")
        await process.until_executed(self._context.clock)
        if not process.alive and (failure := process.start_failure()):
            self.process = None
            await self._end_reason(process, 1)
            raise ContainerError("StartError", failure)
        self._report("Normal", "Started", f"Started container {self.name}")
        self._startup_passed = self._container.startup_probe is None
        return process, self._context.clock.now()

    async def _adopt(self, takeover: Takeover) -> tuple[ContainerProcess, datetime]:
        """Go on with a container of an earlier node, as a kubelet that was restarted: no hook runs again.

        Raises:
            ContainerError: it cannot go on, and is killed.
        """
        self._last_key = takeover.survivor.key
        try:
            process = await self._parts.runtime.adopt(takeover.survivor, takeover.about)
        except ContainerError:
            takeover.survivor.close()
            await self._context.network.forget(takeover.survivor.key)
            raise
        finally:
            takeover.done.set()
        self.process = process
        self._startup_passed = self._container.startup_probe is None or self.state.started
        return process, takeover.started_at

    async def _find_image(self) -> Image:
        """The container's image, fetched if its policy wants that."""
        reference = self._container.image
        found = await self._context.images.find(reference, self._container.image_pull_policy)
        if found.image.root and not self._context.network.isolated:
            raise ImageError(f"image {reference!r} needs walls to run behind, and this stack runs --unisolated")
        told = f'Successfully pulled image "{reference}"' if found.fetched else ""
        self._report("Normal", "Pulled", told or f'Container image "{reference}" already present on machine')
        return found.image

    async def _end_reason(self, process: ContainerProcess, code: int) -> str:
        """Why a container ended, as one word; gives its control group back."""
        group = process.launch.group
        kills = 0
        if group is not None:
            kills = await anyio.to_thread.run_sync(group.oom_kills) - process.launch.earlier_oom_kills
            if self._parts.runtime.pod_overhead is None:
                await anyio.to_thread.run_sync(group.remove)
        if code != 0 and kills:
            return "OOMKilled"
        return "Completed" if code == 0 else "Error"

    async def _watch(self, process: ContainerProcess, readiness: Probe | None, *, hook: bool) -> int:
        """Probe the container, after its postStart hook if that is to run, until it ends; its exit code."""
        self._unhealthy = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(self._probe, process, readiness, hook, name=f"probes of {self.name}")
            group.start_soon(self._end_when_unhealthy, process, name=f"health of {self.name}")
            code = await process.wait()
            group.cancel_scope.cancel()
        return code

    # Starting

    async def _start(self, image: Image) -> ContainerProcess:
        directory = self._parts.files / "containers" / self.name
        try:
            mounts = await self._mounts()
        except HelperError as error:
            raise ContainerError("CreateContainerConfigError", str(error)) from error
        pod_ids = await self._pod_ids(image)
        launch = await anyio.to_thread.run_sync(self._launch, image, directory, mounts, pod_ids)
        if image.root:
            launch = await self._on_image(launch, image, directory)
        with anyio.move_on_after(_ENFORCEMENT_PATIENCE):  # without rules the Pod is closed, not open
            await self._parts.enforced.wait()
        with anyio.CancelScope(shield=True):  # a few milliseconds; a started process must not be forgotten
            process = self.process = await self._parts.runtime.start(launch)
        self._last_key = process.key
        return process

    async def _on_image(self, launch: Launch, image: Image, directory: Path) -> Launch:
        """The same run on a layer of its own over the image's files."""
        network, record = self._context.network, self._parts.record
        layer = directory.relative_to(self._context.directory.root)
        lower = f"images/{image.root}"
        try:
            root = await network.root_of_container(
                record.uid,
                f"{self.name}-root",
                lower,
                f"{layer}/upper",
                f"{layer}/work",
                read_only=launch.box.read_only_root,
            )
        except HelperError as error:
            message = f"the image's files cannot be mounted by overlayfs: {error}"
            raise ContainerError("CreateContainerError", message) from error
        return replace(launch, box=replace(launch.box, root=root))

    def _launch(
        self, image: Image, directory: Path, mounts: list[Mount], pod_ids: frozenset[tuple[int, int]]
    ) -> Launch:
        """Everything about this run, and the files it needs; runs in a worker thread."""
        owner, (uid, gid) = self._parts.record.owner, self._ids(image)
        remove_tree(directory)  # as in a cluster, a restarted container finds a fresh file system
        workspace = owned_directory(directory / "workspace", owner)
        if image.root:
            for name in ("upper", "work"):
                owned_directory(directory / name, owner)
        base = image.env if image.root else {**image.env, **self._context.base_environment}
        environment = container_environment(self._container, self._parts.facts, base)
        listen = "0.0.0.0" if self._context.network.isolated else self._parts.record.address  # noqa: S104 - the Pod's own network
        words = container_command(self._container, image.entrypoint, image.command)
        known = {**environment, LISTEN_VARIABLE: listen}
        if not image.root and WORKSPACE not in {mount.target for mount in mounts}:
            mounts = [*mounts, Mount(self._seen(workspace), WORKSPACE)]
        box = Box(
            hostname=self._parts.facts.pod.spec.hostname or self._parts.record.name,
            argv=[expand(word, known) for word in words],
            env=environment,
            workdir=self._placed(image, self._container.working_dir or image.workdir),
            mounts=[
                replace(mount, target=self._placed(image, mount.target))
                for mount in (*mounts, *self._own_files(), self._last_words(directory, owner))
            ],
            uid=uid,
            gid=gid,
            file_size=self._file_size(),
            stdin=self._container.stdin,
            tty=self._container.tty,
            read_only_root=not image.root or self._container.security_context.read_only_root_filesystem,
        )
        log_file = self.log_path(self._runs)
        log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log_file.touch()
        remove_old_runs(log_file.parent, keep=_KEPT_RUNS)
        record = self._parts.record
        group = self._group()
        kills = group.oom_kills() if group is not None else 0
        return Launch(
            record.uid,
            record.host_uid,
            box,
            log_file,
            workspace,
            group,
            kills,
            frozenset(uid for uid, _ in pod_ids),
            frozenset(gid for _, gid in pod_ids),
            container=self.name,
            run=self._runs,
            ready_port=image.ready_port,
            replaces=self._last_key,
        )

    def _placed(self, image: Image, path: str) -> str:
        """Where a path of the container lies for who mounts there, and follows no link of the image."""
        return path_in_image(self._context.directory.images / image.root, path) if image.root else inside(path)

    def _file_size(self) -> int | None:
        """What one file may grow to: the limit of ephemeral storage, unless the container has claims, which are no part
        of that.
        """
        limit = self._container.resources.limits.get("ephemeral-storage")
        claimed = {volume["name"] for volume in self._parts.facts.pod.spec.volumes if "persistentVolumeClaim" in volume}
        if limit is None or claimed & {mount.name for mount in self._container.volume_mounts}:
            return None
        return int(parse_quantity(limit))

    def _group(self) -> ControlGroup | None:
        """The control group of a new run: with the container's limits, or of its Pod where all share one."""
        limits, most = self._container.resources.limits, self._context.options.max_processes
        if self._context.cgroups is None:
            if {"memory", "cpu"} & limits.keys():
                self._report("Warning", "LimitsNotEnforced", "this machine lets the stack enforce no resource limits")
            return None
        overhead = self._parts.runtime.pod_overhead
        if overhead is None:
            return self._context.cgroups.create(f"{self._parts.record.uid}-{self.name}", limits_of(limits, most))
        containers = self._parts.facts.pod.spec.containers
        whole = sum_of_limits([limits_of(entry.resources.limits, most) for entry in containers], overhead)
        return self._context.cgroups.create(f"{self._parts.record.uid}-", whole)

    def log_path(self, run: int) -> Path:
        """The log file of one run."""
        return self._context.directory.pod(self._parts.record.uid) / "logs" / self.name / f"{run}.log"

    def _seen(self, path: Path) -> str:
        """A path of the state directory as the helper's processes see it."""
        return str(self._context.network.tree / path.relative_to(self._context.directory.root))

    async def _mounts(self) -> list[Mount]:
        """The container's volume mounts; none for a Pod without walls, which has no file system of its own."""
        if not self._context.network.isolated:
            return []
        found = mounts_of(self._container, self._parts.volumes)
        return [Mount(await self._source(mount), mount.target, mount.read_only) for mount in found]

    async def _source(self, mount: VolumeUse) -> str:
        network, record = self._context.network, self._parts.record
        if mount.volume.seen:
            source = mount.volume.seen
        elif mount.volume.path is None:
            source = await network.memory_volume(record.uid, mount.name, mount.volume.memory_bytes, record.owner)
        else:
            path = mount.volume.path
            source = self._seen(current_files(path) if mount.volume.payload and mount.sub_path else path)
        if not mount.sub_path:
            return source
        root = str(Path(source).relative_to(network.tree))
        part = f"{self.name}-{mount.name}-{zlib.crc32(mount.sub_path.encode()):08x}"
        return await network.part_of_volume(record.uid, part, root, mount.sub_path, record.owner)

    def _last_words(self, directory: Path, owner: int) -> Mount:
        """The file in which a container may say why it ends."""
        path = directory / "termination-log"
        path.touch()
        if owner != -1:
            os.chown(path, owner, owner)
        path.chmod(0o666)
        return Mount(self._seen(path), self._container.termination_message_path)

    def _read_last_words(self, process: ContainerProcess, code: int) -> str:
        path = process.launch.bare_directory.with_name("termination-log")
        message = ""
        with suppress(OSError), path.open("rb") as file:
            message = file.read(_MESSAGE_BYTES).decode(errors="replace")
        if not message and code and self._container.termination_message_policy == "FallbackToLogsOnError":
            message = process.said.decode(errors="replace")[-_MESSAGE_BYTES:]
        return message

    def _own_files(self) -> list[Mount]:
        names = ("hosts", "hostname", "resolv.conf")
        return [Mount(self._seen(self._parts.files / name), f"/etc/{name}", read_only=True) for name in names]

    def _ids(self, image: Image) -> tuple[int, int]:
        """The user and group that the container runs as."""
        pod = self._parts.facts.pod.spec.security_context
        uid, gid = _ids_of(self._container, pod, image)
        if uid == 0 and (self._container.security_context.run_as_non_root or pod.run_as_non_root):
            raise ContainerError(
                "CreateContainerConfigError", f"container {self.name!r} has runAsNonRoot and will run as root"
            )
        return uid, gid

    async def _pod_ids(self, image: Image) -> frozenset[tuple[int, int]]:
        """The users and groups of all containers of the Pod; of an image that cannot be had, what it would be."""
        found = {_ids_of(self._container, self._parts.facts.pod.spec.security_context, image)}
        spec = self._parts.facts.pod.spec
        for other in (*spec.init_containers, *spec.containers):
            if other.name != self.name:
                try:
                    its = (await self._context.images.find(other.image, other.image_pull_policy)).image
                except ContainerError:
                    its = image
                found.add(_ids_of(other, spec.security_context, its))
        return frozenset(found)

    # Probes and hooks

    def _readiness_probe(self, launch: Launch) -> Probe | None:
        container = self._container
        if container.readiness_probe is not None:
            return container.readiness_probe
        if launch.ready_port is None or container.command or container.args:
            return None
        return Probe(tcp_socket=TcpSocket(launch.ready_port), period_seconds=5)

    def _target(self, process: ContainerProcess) -> Target:
        run = partial(run_command, process)
        return Target(self._context.network, self._parts.record.address, self._container, run)

    async def _probe(self, process: ContainerProcess, readiness: Probe | None, hook: bool) -> None:
        container, target, clock = self._container, self._target(process), self._context.clock
        if hook and container.lifecycle is not None and container.lifecycle.post_start is not None:
            await self._post_start(container.lifecycle.post_start, target)
        if container.startup_probe is not None and not self._startup_passed:
            startup = partial(self._startup_changed, readiness)
            await watch_probe(container.startup_probe, target, clock, startup, once=True)
        async with anyio.create_task_group() as group:
            if readiness is not None:
                group.start_soon(watch_probe, readiness, target, clock, self._readiness_changed)
            if container.liveness_probe is not None:
                group.start_soon(watch_probe, container.liveness_probe, target, clock, self._liveness_changed)

    async def _run_hook(self, handler: Handler, target: Target) -> Outcome:
        if handler.sleep is not None:
            await self._context.clock.sleep(handler.sleep.seconds)
            return Outcome(True)
        probe = Probe(http_get=handler.http_get, tcp_socket=handler.tcp_socket, exec=handler.exec, timeout_seconds=3600)
        return await check(probe, target)

    async def _post_start(self, handler: Handler, target: Target) -> None:
        outcome = await self._run_hook(handler, target)
        if not outcome.healthy:
            self._report("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}")
            self._end_unhealthy("failed postStart hook", None)
            await anyio.sleep_forever()  # no probe asks a container that is being ended

    def _startup_changed(self, readiness: Probe | None, healthy: bool, message: str) -> None:
        if healthy:
            self._startup_passed = True
            self._become(self.state.with_state(self.state.state, started=True, ready=readiness is None))
            self.did_start.set()
            return
        self._failed_probe("startup", self._container.startup_probe, message)

    def _readiness_changed(self, healthy: bool, message: str) -> None:
        if not isinstance(self.state.state, Running):
            return
        if not healthy:
            self._report("Warning", "Unhealthy", f"Readiness probe failed: {message}")
        self._become(self.state.with_state(self.state.state, ready=healthy))

    def _liveness_changed(self, healthy: bool, message: str) -> None:
        if not healthy:
            self._failed_probe("liveness", self._container.liveness_probe, message)

    def _failed_probe(self, kind: str, probe: Probe | None, message: str) -> None:
        self._report("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {message}")
        self._end_unhealthy(f"failed {kind} probe", probe)

    def _end_unhealthy(self, why: str, probe: Probe | None) -> None:
        """Let the container be ended, with the probe's own grace or the Pod's; its restart policy decides what then."""
        restarts = ", will be restarted" if self._policy != "Never" else ""
        self._report("Normal", "Killing", f"Container {self.name} {why}{restarts}")
        grace = probe.termination_grace_period_seconds if probe is not None else None
        self._unhealthy_grace = float(
            self._parts.facts.pod.spec.termination_grace_period_seconds if grace is None else grace
        )
        self._unhealthy.set()

    async def _end_when_unhealthy(self, process: ContainerProcess) -> None:
        await self._unhealthy.wait()
        await self._end(process, self._unhealthy_grace)

    # Stopping

    async def stop(self, grace: float) -> None:
        """End the container: preStop hook, SIGTERM, and SIGKILL when the grace (in seconds) is over.

        A container whose first process has no handler for SIGTERM is killed at once: the signal would do nothing.
        """
        process = self.process
        if process is None or not process.alive:
            return
        code = await self._end(process, grace)
        self.process = None
        if isinstance(self.state.state, Running):
            started, now = self.state.state.started_at, self._context.clock.now()
            reason = await self._end_reason(process, code)
            self._become(self.state.with_state(Terminated(code, reason, "", started, now), ready=False, started=False))

    async def _end(self, process: ContainerProcess, grace: float) -> int:
        with anyio.move_on_after(max(0.0, grace)) as self._ending:
            lifecycle = self._container.lifecycle
            if grace > 0 and lifecycle is not None and lifecycle.pre_stop is not None:
                await self._pre_stop(lifecycle.pre_stop, process)
            if grace > 0 and await anyio.to_thread.run_sync(process.heeds, signal.SIGTERM):
                process.signal(signal.SIGTERM)
                await process.wait()
        process.signal(signal.SIGKILL)
        return await process.wait()

    def hurry(self, grace: float) -> None:
        """Leave a container that is being ended no more than ``grace`` seconds from now."""
        if self._ending is not None:
            self._ending.deadline = min(self._ending.deadline, anyio.current_time() + max(0.0, grace))

    async def _pre_stop(self, handler: Handler, process: ContainerProcess) -> None:
        try:
            outcome = await self._run_hook(handler, self._target(process))
        except NodeError as error:
            self._report("Warning", "FailedPreStopHook", str(error))
            return
        if not outcome.healthy:
            self._report("Warning", "FailedPreStopHook", f"PreStopHook failed: {outcome.message}")


def _ids_of(container: Container, pod: PodSecurity, image: Image) -> tuple[int, int]:
    """uid and gid of a container: its own, else the Pod's, else the image's."""
    security = container.security_context
    uid = pod.run_as_user if security.run_as_user is None else security.run_as_user
    gid = pod.run_as_group if security.run_as_group is None else security.run_as_group
    if gid is None:
        # Who names another user of an image leaves its group too, as container runtimes have it.
        gid = image.gid if uid is None or not image.root else 0
    return image.uid if uid is None else uid, gid


def _describe(ended: Terminated) -> str:
    return f"exit code {ended.exit_code}{f', {ended.message}' if ended.message else ''}"


def write_own_files(files: Path, record: PodRecord, spec: PodSpec, cluster_dns: str | None) -> None:
    """Write the ``hosts``, ``hostname`` and ``resolv.conf`` of a Pod; runs in a worker thread.

    Args:
        files: where.
        record: the Pod.
        spec: its spec, for its host name and host aliases.
        cluster_dns: address of the stack's name server, or None if there is none: then names do not resolve.
    """
    hostname = spec.hostname or record.name
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{record.address}\t{hostname}\n"
    hosts += "".join(f"{alias.ip}\t{' '.join(alias.hostnames)}\n" for alias in spec.host_aliases)
    resolv = ""
    if cluster_dns is not None:
        domain = "svc.cluster.local"
        resolv = (
            f"search {record.namespace}.{domain} {domain} cluster.local\nnameserver {cluster_dns}\noptions ndots:5\n"
        )
    for name, text in (("hosts", hosts), ("hostname", f"{hostname}\n"), ("resolv.conf", resolv)):
        path = files / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue  # a living container may be reading it
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        if record.host_uid is not None:
            os.chown(path, 0, record.host_uid)
