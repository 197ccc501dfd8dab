"""The Node object of this machine: its capacity and conditions, as a kubelet registers and reports them.

It is written when something changes and every five minutes, not more: nobody waits for its heartbeat here.
"""

import platform
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import anyio
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import AlreadyExistsError, KubeClient, KubeError, MergePatch, NotFoundError
from agent_sandbox.local.node.capacity import to_quantities
from agent_sandbox_api.core import MetaOnlyView
from agent_sandbox_api.meta import format_time
from agent_sandbox_api.resource import Resource

log = structlog.get_logger(__name__)

NODES: Final[Resource[MetaOnlyView]] = Resource("", "v1", "nodes", "Node", MetaOnlyView, namespaced=False)
_PERIOD: Final = 300.0
_RETRY: Final = 5.0
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

_Json = dict[str, Any]


def node_labels(name: str) -> dict[str, str]:
    """The labels that every kubelet gives its node."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "node.kubernetes.io/instance-type": "local",
    }


class NodeObject:
    """Registers a node and keeps its status true."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        *,
        name: str,
        address: str,
        labels: Mapping[str, str],
        runtime: str,
        pressure: Callable[[], bool],
    ) -> None:
        """
        Args:
            client: the API server.
            clock: for times and pauses.
            name: the node's.
            address: its internal address.
            labels: of the object.
            runtime: what runs its containers, for ``nodeInfo``.
            pressure: whether its disk is nearly full.
        """
        self._client = client
        self._clock = clock
        self._name = name
        self._address = address
        self._labels = dict(labels)
        self._runtime = runtime
        self._pressure = pressure
        self._changed = anyio.Event()
        self._registered = False
        self._since: dict[str, tuple[str, datetime]] = {}

    def touch(self) -> None:
        """Something changed."""
        self._changed.set()

    async def run(self, capacity: Mapping[str, Decimal]) -> None:
        """Register, and report until cancelled; then say that the node is not ready any more."""
        try:
            while True:
                self._changed = anyio.Event()
                written = await self._report(capacity, ready=True)
                with anyio.move_on_after(_PERIOD if written else _RETRY):
                    await self._changed.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._report(capacity, ready=False)

    async def _report(self, capacity: Mapping[str, Decimal], *, ready: bool) -> bool:
        patch = MergePatch({"status": self._status(capacity, ready=ready)})
        try:
            if not self._registered:
                await self._register()
            await self._client.patch(NODES, self._name, patch, subresource="status")
        except NotFoundError:  # somebody deleted it
            self._registered = False
            return False
        except KubeError as error:
            log.warning("node status not written yet", node=self._name, error=str(error))
            return False
        return True

    async def _register(self) -> None:
        """Make the object, or give that of an earlier run our labels."""
        metadata = {"name": self._name, "labels": self._labels}
        try:
            await self._client.create(NODES, {"metadata": metadata, "spec": {}})
        except AlreadyExistsError:
            await self._client.patch(NODES, self._name, MergePatch({"metadata": {"labels": self._labels}}))
        self._registered = True

    def _status(self, capacity: Mapping[str, Decimal], *, ready: bool) -> _Json:
        quantities = to_quantities(capacity)
        pressure = self._pressure()
        conditions = [
            self._condition("MemoryPressure", False, "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
            self._condition(
                "DiskPressure",
                pressure,
                "KubeletHasDiskPressure" if pressure else "KubeletHasNoDiskPressure",
                "kubelet has disk pressure" if pressure else "kubelet has no disk pressure",
            ),
            self._condition("PIDPressure", False, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            self._condition(
                "Ready",
                ready,
                "KubeletReady" if ready else "KubeletNotReady",
                "the local node runs Pods" if ready else "the stack was stopped",
            ),
        ]
        return {
            "capacity": quantities,
            "allocatable": quantities,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self._name},
            ],
            "nodeInfo": self._info(),
        }

    def _condition(self, kind: str, holds: bool, reason: str, message: str) -> _Json:
        now, word = self._clock.now(), "True" if holds else "False"
        known, since = self._since.get(kind, ("", now))
        if known != word:
            self._since[kind] = (word, now)
            since = now
        return {
            "type": kind,
            "status": word,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": format_time(now),
            "lastTransitionTime": format_time(since),
        }

    def _info(self) -> _Json:
        return {
            "kernelVersion": platform.release(),
            "osImage": _os_image(),
            "operatingSystem": "linux",
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "containerRuntimeVersion": self._runtime,
            "kubeletVersion": f"agent-sandbox-{_own_version()}",
            "kubeProxyVersion": "",
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
        }


def _os_image() -> str:
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return "Linux"
    return facts.get("PRETTY_NAME", "Linux")


def _own_version() -> str:
    try:
        return version("agent-sandbox-k8s")
    except PackageNotFoundError:
        return "0"
