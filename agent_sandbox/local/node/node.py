"""The node: finds the Pods that are its own and gives each one a worker.

Flow:
    ``run`` owns the state directory, finds out what this machine can isolate, starts the pod network, removes what an
    earlier run left, then follows Pods and PersistentVolumeClaims until cancelled. Pods that no node has are bound to
    this one: the embedded control plane has no scheduler.
Guarantees:
    One worker per Pod UID. When ``run`` has returned, no process, mount or interface of this node exists. After a crash
    the Pods live on in the helper for a while; the next run goes on with those that it finds there, removes what
    belongs to no Pod any more, and starts what has ended.
Errors:
    ``IsolationError`` if this machine cannot isolate and the user did not ask for less, ``StateInUseError``.
"""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import TaskGroup, TaskStatus

from agent_sandbox.clock import Clock
from agent_sandbox.kube import ConflictError, KubeClient, KubeError, MergePatch, NotFoundError
from agent_sandbox.local.node.access import PodAccess
from agent_sandbox.local.node.addresses import BARE_NETWORK, ISOLATED_NETWORK, AddressPool, host_uid
from agent_sandbox.local.node.admission import refusal
from agent_sandbox.local.node.bare_runtime import BareRuntime
from agent_sandbox.local.node.bubblewrap_runtime import BubblewrapRuntime
from agent_sandbox.local.node.capacity import read_capacity
from agent_sandbox.local.node.cgroups import Cgroups, find_cgroups
from agent_sandbox.local.node.claims import NODE_CLAIMS, ClaimProvisioner
from agent_sandbox.local.node.context import NodeContext, NodeOptions
from agent_sandbox.local.node.dns import ServiceNames
from agent_sandbox.local.node.egress import Egress
from agent_sandbox.local.node.errors import (
    ContainerError,
    HelperError,
    HelperGoneError,
    PodNotRunningError,
    RuntimeUnavailableError,
)
from agent_sandbox.local.node.eviction import DiskUse, DiskWatch
from agent_sandbox.local.node.firewall import Firewall
from agent_sandbox.local.node.gvisor_runtime import GVISOR
from agent_sandbox.local.node.gvisor_trial import GvisorFinder, TrialGround
from agent_sandbox.local.node.names import NameServer
from agent_sandbox.local.node.network import NetworkOptions, PodNetwork
from agent_sandbox.local.node.node_object import NodeObject, node_labels
from agent_sandbox.local.node.oci import ImageSource, ImageStore, find_engine
from agent_sandbox.local.node.pods import NODE_PODS, Pod, StoredPod
from agent_sandbox.local.node.policy import DNS_PORT, Endpoint
from agent_sandbox.local.node.records import NodeDirectory, PodRecord
from agent_sandbox.local.node.rootfs import RootFiles, build_root_files
from agent_sandbox.local.node.ruleset import BASE
from agent_sandbox.local.node.runtime import Runtimes
from agent_sandbox.local.node.takeover import Takeovers, find_living
from agent_sandbox.local.node.trial import Machine, network_binds, try_isolation
from agent_sandbox.local.node.volumes import claim_names
from agent_sandbox.local.node.worker import PodWorker
from agent_sandbox.runtime.events import EventRecorder, EventType
from agent_sandbox.runtime.informer import Informer
from agent_sandbox.runtime.store import Change
from agent_sandbox_api.core import NAMESPACES, NETWORK_POLICIES, SERVICES

log = structlog.get_logger(__name__)

_RETRY: Final = 1.0
_TAKEOVER_PATIENCE: Final = 5.0
_ENDED: Final = frozenset({"Succeeded", "Failed"})

NO_EGRESS_CONDITION: Final = "EgressUnavailable"
_NO_EGRESS_MESSAGE: Final = "a NetworkPolicy lets this Pod connect out of the stack, but this machine has no way"
UNISOLATED_CONDITION: Final = "Unisolated"
_UNISOLATED_MESSAGE: Final = (
    "this Pod runs WITHOUT isolation, as a plain process of the stack's own user, because the stack was started with"
    " --unisolated: it can read this user's files and use the network"
)


class Node:
    """One Linux machine as a node of the embedded control plane."""

    def __init__(
        self, client: KubeClient, *, clock: Clock, state_dir: Path, options: NodeOptions | None = None
    ) -> None:
        """
        Args:
            client: the API server.
            clock: where time comes from.
            state_dir: what the node keeps on disk (``records``); one node at a time works in it.
            options: how the node behaves.
        """
        self._client = client
        self._clock = clock
        self.options = options or NodeOptions()
        self._directory = NodeDirectory(state_dir)
        self.network = PodNetwork()
        """The way to Pods: its ``socket_factory`` for aiohttp, and ``connect``. Usable while ``run`` runs."""
        self.machine: Machine | None = None
        """What this machine can isolate; None before the trial and where Pods run unisolated."""
        self._informer: Informer[StoredPod] = Informer(client, NODE_PODS, clock=clock)
        self._claims = Informer(client, NODE_CLAIMS, clock=clock)
        self._policies = Informer(client, NETWORK_POLICIES, clock=clock)
        self._namespaces = Informer(client, NAMESPACES, clock=clock)
        self._firewall = Firewall(self.network, clock, self._endpoints, self._policies.store, self._namespaces.store)
        self._egress = Egress(self.network, clock, self.options.reconsider_period)
        self._services = Informer(client, SERVICES, clock=clock)
        self._names = ServiceNames(self._services.store, self._informer.store)
        self._events = EventRecorder(
            client, component="kubelet", instance=self.options.name, clock=clock, random=random.SystemRandom()
        )
        self._provisioner = ClaimProvisioner(
            client, clock, self._directory, self._claims.store, self._is_claim_used, self.network, self._events
        )
        self._addresses = AddressPool(ISOLATED_NETWORK)
        self._labels = {**node_labels(self.options.name), **self.options.labels}
        # Workers by Pod UID; a UID is here from the moment its Pod is bound until its worker has ended.
        self._workers: dict[str, PodWorker | None] = {}
        self._refused: dict[str, str] = {}
        self._context: NodeContext | None = None
        self._cgroups: Cgroups | None = None
        self._image_store = ImageStore(self._directory.images)
        self._images = ImageSource(self._image_store, find_engine)
        self._capacity: Mapping[str, Decimal] = {}
        self._disk: DiskWatch | None = None
        self._tasks: TaskGroup | None = None
        self._network_scope = anyio.CancelScope()
        self._records: dict[str, PodRecord] = {}
        self._access = PodAccess(self._directory, clock, self._workers.get, self._current_context)
        self.providers = self._access.providers()
        """Logs, exec and port-forward, for the API server."""

    def _current_context(self) -> NodeContext:
        if self._context is None:
            raise HelperGoneError("the node is not running")
        return self._context

    # Running

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; ``task_status`` is told when Pods can run.

        Raises:
            IsolationError: this machine cannot isolate Pods as it is.
            StateInUseError: another node works in the state directory.
        """
        await anyio.to_thread.run_sync(self._directory.create)
        with ExitStack() as stack:
            stack.callback(os.close, await anyio.to_thread.run_sync(self._directory.lock))
            root = await anyio.to_thread.run_sync(build_root_files, self._directory.runtime)
            self._cgroups = await anyio.to_thread.run_sync(find_cgroups, self._directory.root)
            await anyio.to_thread.run_sync(self._image_store.create)
            self._capacity = await anyio.to_thread.run_sync(read_capacity, self._directory.root)
            self._disk = self._watch_disk()
            try:
                await self._run_on(root, task_status)
            finally:
                if self._cgroups is not None:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(self._cgroups.remove)

    async def _run_on(self, root: RootFiles, task_status: TaskStatus[None]) -> None:
        if not self.options.unisolated:
            self.machine = await try_isolation(root, self._directory.root)
        else:
            self._addresses = AddressPool(BARE_NETWORK)
            log.warning("PODS RUN WITHOUT ISOLATION", reason="started with --unisolated")
        async with anyio.create_task_group() as group:
            group.start_soon(self._informer.run, name="node: pods")
            group.start_soon(self._claims.run, name="node: claims")
            group.start_soon(self._policies.run, name="node: network policies")
            group.start_soon(self._namespaces.run, name="node: namespaces")
            group.start_soon(self._services.run, name="node: services")
            group.start_soon(self._events.run, name="node: events")
            self._informer.add_handler(self._seen)
            self._informer.add_handler(self._firewall.touch)
            self._claims.add_handler(self._provisioner.seen)
            self._policies.add_handler(self._firewall.touch)
            self._namespaces.add_handler(self._firewall.touch)
            for informer in (self._informer, self._claims, self._policies, self._namespaces, self._services):
                await informer.wait_until_synced()
            group.start_soon(self._provisioner.run, name="node: volumes")
            node = self._node_object()
            group.start_soon(node.run, self._capacity, name="node: its object")
            assert self._disk is not None, "the caller made it"
            group.start_soon(self._disk.run, partial(self._pressure_changed, node), name="node: disk")
            await self._generations(root, task_status)

    def _watch_disk(self) -> DiskWatch:
        options = self.options
        reserve = options.disk_reserve
        if reserve is None:
            reserve = min(int(self._capacity["ephemeral-storage"]) // 20, 1 << 30)
        return DiskWatch(
            self._directory.root, self._clock, self._disk_uses, period=options.disk_period, reserve=reserve
        )

    def _disk_uses(self) -> list[DiskUse]:
        return [worker.disk_use() for worker in self._workers.values() if worker is not None and worker.runners]

    def _under_pressure(self) -> bool:
        return self._disk is not None and self._disk.pressure

    def _pressure_changed(self, node: NodeObject) -> None:
        node.touch()
        if not self._under_pressure():
            for pod in self._informer.store.list():
                self._consider(pod)

    def _node_object(self) -> NodeObject:
        return NodeObject(
            self._client,
            self._clock,
            name=self.options.name,
            address=self.options.host_ip,
            labels=self._labels,
            runtime="bubblewrap://" if self.machine is not None else "none://",
            pressure=self._under_pressure,
        )

    async def _generations(self, root: RootFiles, task_status: TaskStatus[None]) -> None:
        """One pod network after another: when a helper dies, all Pods died with it and start again."""
        first = True
        while True:
            try:
                await self._generation(root, task_status if first else anyio.TASK_STATUS_IGNORED)
            except* HelperGoneError as group:
                if self._context is None:
                    raise
                log.error("the pod network died; its Pods start again", error=str(group.exceptions[0]))
            first = False
            self._context = None
            await self._clock.sleep(_RETRY)

    async def _generation(self, root: RootFiles, task_status: TaskStatus[None]) -> None:
        binds = network_binds(root, self._directory.root)
        nft = self.machine.nft if self.machine is not None else ""
        options = NetworkOptions(
            binds,
            nft,
            BASE,
            isolated=not self.options.unisolated,
            state=self._directory.root,
            patience=self.options.survival,
        )
        async with anyio.create_task_group() as group:
            try:
                await group.start(self._run_network, options, name="node: pod network")
                with self._runtimes(root, group) as runtimes:
                    self._context = self._make_context(runtimes, root)
                    async with anyio.create_task_group() as tasks:
                        await self._follow(tasks, task_status)
            finally:
                self._network_scope.cancel()

    async def _run_network(self, options: NetworkOptions, *, task_status: TaskStatus[None]) -> None:
        """Run the pod network until ``_generation`` ends it: when the node stops, containers get their grace first."""
        with anyio.CancelScope(shield=True) as self._network_scope:
            await self.network.run(options, task_status=task_status)

    @contextmanager
    def _runtimes(self, root: RootFiles, tasks: TaskGroup) -> Iterator[Runtimes]:
        if self.machine is None:
            yield Runtimes(BareRuntime(self.network, root))
            return
        with closing(BubblewrapRuntime(self.network, self.machine.walls, root)) as bubblewrap:
            ground = TrialGround(self.network, root, self._directory, self._addresses, self._clock, tasks)
            yield Runtimes(bubblewrap, {GVISOR: GvisorFinder(ground).find})

    def _make_context(self, runtimes: Runtimes, root: RootFiles) -> NodeContext:
        return NodeContext(
            client=self._client,
            clock=self._clock,
            options=self.options,
            directory=self._directory,
            network=self.network,
            runtimes=runtimes,
            addresses=self._addresses,
            base_environment=root.environment,
            cgroups=self._cgroups,
            images=self._images,
            capacity=self._capacity,
            enforced=self._enforced,
            report=self._report,
            labels=self._labels,
            root=os.geteuid() == 0 and not self.options.unisolated,
        )

    def _enforced(self) -> anyio.Event:
        if self.network.isolated:
            return self._firewall.enforced()
        nothing = anyio.Event()
        nothing.set()
        return nothing

    async def _follow(self, tasks: TaskGroup, task_status: TaskStatus[None]) -> None:
        """Give every Pod its worker, until cancelled; then stop the containers."""
        self._workers.clear()
        living = await self._find_leftovers()
        if self.network.isolated:
            tried = anyio.Event()
            tasks.start_soon(self._egress.run, tried.set, name="node: way out")
            await tried.wait()
        for pod, takeovers in living:
            # Before the first pass of the firewall: the rules under which they live hold until that one.
            tasks.start_soon(self._run_worker, self._make_worker(pod, takeovers), name=f"pod {pod.key}")
        if self.network.isolated:
            tasks.start_soon(self._firewall.run, name="node: network policy")
            names = NameServer(self._names.resolve, self._firewall.may_ask_outside)
            tasks.start_soon(names.run, *await self.network.listen(DNS_PORT), name="node: names")
        tasks.start_soon(self._reconsider_forever, name="node: refused pods")
        self._tasks = tasks
        try:
            for stored in self._informer.store.list():
                self._consider(stored)
            with anyio.move_on_after(_TAKEOVER_PATIENCE):  # who asks for a command in them must not find them absent
                for takeover in (entry for _, takeovers in living for entry in takeovers.values()):
                    await takeover.done.wait()
            task_status.started()
            await anyio.sleep_forever()
        finally:
            self._tasks = None
            with anyio.CancelScope(shield=True):
                await self._stop_containers()

    async def _find_leftovers(self) -> list[tuple[Pod, Takeovers]]:
        """Remove what belongs to no Pod, remember the addresses of those that exist; those that live on."""
        records = await anyio.to_thread.run_sync(self._directory.records)
        known = {pod.metadata.uid: pod for pod in self._informer.store.list()}
        living = await find_living(self.network, known, records, self.options.name)
        if self._cgroups is not None:
            await anyio.to_thread.run_sync(self._cgroups.keep_only, [pod.metadata.uid for pod, _ in living])
        for uid in records.keys() - known.keys():
            await anyio.to_thread.run_sync(self._directory.remove_pod, uid)
            self._addresses.give_back(records[uid].address)
        self._records = {uid: record for uid, record in records.items() if uid in known}
        for record in self._records.values():
            self._addresses.take(record.address)
        return living

    async def _stop_containers(self) -> None:
        async with anyio.create_task_group() as group:
            for worker in self._workers.values():
                if worker is not None:
                    group.start_soon(worker.stop_for_node, self.options.stop_grace)

    # Pods

    def _seen(self, change: Change[StoredPod]) -> None:
        pod = change.new
        if pod is not None:
            self._consider(pod)
            return
        assert change.old is not None, "a change has an old or a new view"
        self._refused.pop(change.old.metadata.uid, None)
        worker = self._workers.get(change.old.metadata.uid)
        if worker is not None:
            worker.update(None)

    def _consider(self, stored: StoredPod) -> None:
        """Take a Pod that is ours, bind one that is nobody's; never waits."""
        uid = stored.metadata.uid
        try:
            pod = stored.decode()
        except msgspec.ValidationError as error:
            self._complain(stored, f"the Pod's spec cannot be read: {error}")
            return
        if uid in self._workers:
            worker = self._workers[uid]
            if worker is not None:
                worker.update(pod)
            return
        if self._tasks is None:
            return  # between two pod networks; the next one begins with the whole store
        if pod.spec.node_name == self.options.name:
            self._workers[uid] = None
            self._tasks.start_soon(self._live, pod, name=f"pod {pod.key}")
        elif self._wants_a_node(pod):
            self._workers[uid] = None
            self._tasks.start_soon(self._bind, pod, name=f"bind {pod.key}")

    @staticmethod
    def _wants_a_node(pod: Pod) -> bool:
        # A gate is looked at here, not by the task that binds: what changes until that begins would pass unseen.
        is_open = not pod.spec.node_name and not pod.spec.scheduling_gates
        return is_open and not pod.metadata.deleting and pod.status.phase not in _ENDED

    async def _reconsider_forever(self) -> None:
        """Look at refused Pods again now and then: a runtime that they ask for may have been installed."""
        while True:
            await self._clock.sleep(self.options.reconsider_period)
            for pod in self._informer.store.list() if self._refused else ():
                if pod.metadata.uid in self._refused:
                    self._consider(pod)

    def _complain(self, stored: StoredPod, message: str) -> None:
        if self._refused.get(stored.metadata.uid) != message:
            self._refused[stored.metadata.uid] = message
            self._report(Pod(stored.metadata), "Warning", "FailedScheduling", message)

    def _report(self, pod: Pod, kind: EventType, reason: str, message: str) -> None:
        self._events.event(pod, type=kind, reason=reason, action=reason, note=message, resource=NODE_PODS)

    async def _bind(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        message = await self._why_not(pod)
        try:
            if message:
                await self._refuse(pod, message)
                del self._workers[uid]
                return
            await self._request_binding(pod)
        except (NotFoundError, ConflictError):
            del self._workers[uid]
            return
        except KubeError as error:
            log.warning("pod not bound yet", pod=pod.key, error=str(error))
            await self._clock.sleep(_RETRY)
            del self._workers[uid]
            latest = self._informer.store.get(pod.metadata.namespace, pod.metadata.name)
            if latest is not None:
                self._consider(latest)
            return
        self._report(pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {self.options.name}")
        # No need to wait until the watch shows our own write.
        bound = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=self.options.name))
        await self._live(bound)

    async def _why_not(self, pod: Pod) -> str:
        """Why this node cannot run the Pod, or nothing if it can."""
        reason = refusal(pod, self._labels, self._capacity, pressure=self._under_pressure())
        if reason is not None:
            return reason.message
        try:
            await self._current_context().runtimes.find(pod.spec.runtime_class_name)
        except RuntimeUnavailableError as error:
            return str(error)
        return ""

    async def _request_binding(self, pod: Pod) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.options.name},
        }
        path = NODE_PODS.path(pod.metadata.namespace, pod.metadata.name, "binding")
        await self._client.request("POST", path, body=msgspec.json.encode(body))

    async def _refuse(self, pod: Pod, message: str) -> None:
        """Leave a Pod Pending and say why, once."""
        if self._refused.get(pod.metadata.uid) == message:
            return
        text = f"0/1 nodes are available: {message}."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
        patch = MergePatch({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}})
        metadata = pod.metadata
        await self._client.patch(NODE_PODS, metadata.name, patch, metadata.namespace, subresource="status")
        self._refused[pod.metadata.uid] = message  # after the write: one that fails is tried again
        self._report(pod, "Warning", "FailedScheduling", text)

    async def _live(self, pod: Pod) -> None:
        await self._run_worker(self._make_worker(pod))

    def _make_worker(self, pod: Pod, takeovers: Takeovers | None = None) -> PodWorker:
        record = self._record(pod)
        warnings = self._warnings(pod, record)
        worker = PodWorker(self._current_context(), pod, record, self._provisioner.open, warnings, takeovers)
        self._workers[record.uid] = worker
        self._firewall.touch()
        return worker

    async def _run_worker(self, worker: PodWorker) -> None:
        record = worker.record
        latest = self._informer.store.get(record.namespace, record.name)
        if latest is None or latest.metadata.uid != record.uid:
            worker.update(None)
        elif latest.metadata.deleting:
            worker.update(latest.decode())
        try:
            await worker.run()
        except* (ContainerError, HelperError, PodNotRunningError, OSError) as group:
            log.error("a pod's worker failed; the pod is left as it is", pod=worker.pod.key, exc_info=group)
        self._addresses.give_back(record.address)
        self._records.pop(record.uid, None)
        del self._workers[record.uid]
        self._firewall.touch()

    def _record(self, pod: Pod) -> PodRecord:
        metadata = pod.metadata
        known = self._records.get(metadata.uid)
        if known is not None:
            return known
        address = self._addresses.take()
        uid = self._uid_sharing_claims(pod)
        if uid is None and self._current_context().root:
            uid = host_uid(address, self._directory.root)
        record = PodRecord(metadata.uid, metadata.namespace, metadata.name, address, uid)
        self._records[metadata.uid] = record
        return record

    def _uid_sharing_claims(self, pod: Pod) -> int | None:
        """The host uid of a living Pod that mounts one of the same claims: both must be able to use its files."""
        claims = set(claim_names(pod))
        neighbours = [
            worker
            for worker in self._workers.values()
            if worker is not None and worker.record.namespace == pod.metadata.namespace
        ]
        sharing = (worker.record.host_uid for worker in neighbours if claims & set(claim_names(worker.pod)))
        return next(sharing, None)

    def _warnings(self, pod: Pod, record: PodRecord) -> Mapping[str, str]:
        """What this machine does not do for a Pod, as conditions."""
        if self.options.unisolated:
            return {UNISOLATED_CONDITION: _UNISOLATED_MESSAGE}
        if self._egress.problem and self._firewall.leads_out(_endpoint(pod, record)):
            return {NO_EGRESS_CONDITION: f"{_NO_EGRESS_MESSAGE}: {self._egress.problem}"}
        return {}

    def _endpoints(self) -> list[Endpoint]:
        """Pods that have an address now, as network policies see them."""
        return [_endpoint(worker.pod, worker.record) for worker in self._workers.values() if worker is not None]

    def _is_claim_used(self, namespace: str, name: str) -> bool:
        workers = [worker for worker in self._workers.values() if worker is not None]
        return any(worker.record.namespace == namespace and name in claim_names(worker.pod) for worker in workers)


def _endpoint(pod: Pod, record: PodRecord) -> Endpoint:
    ports = {
        (port.name, port.protocol.lower()): port.container_port
        for container in pod.spec.containers
        for port in container.ports
        if port.name
    }
    return Endpoint(pod.metadata.namespace, record.address, pod.metadata.labels, ports)
