"""PersistentVolumeClaims on this machine's disk: binds each one to a directory, and removes that with its claim.

In: claims from an informer. Out: their status ``Bound``, and ``path_of`` for those who mount them. The data lies in the
state directory under the claim's UID, so it survives suspend, restart and crash, and a new claim of an old name starts
empty. Where this machine lets us, a claim is a disk of its size (``disks``); elsewhere it is a directory whose size is
watched. Every storage class is accepted: this is the only storage there is.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import ConflictError, KubeClient, KubeError, MergePatch, NotFoundError
from agent_sandbox.local.node.disks import Disks, find_disks
from agent_sandbox.local.node.errors import HelperError, HelperGoneError
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.records import NodeDirectory, remove_tree
from agent_sandbox.local.quantities import parse_quantity
from agent_sandbox.runtime.events import EventRecorder, EventType
from agent_sandbox.runtime.store import Change, Store
from agent_sandbox_api.core.kinds import PvcStatusView
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView

log = structlog.get_logger(__name__)

_RETRY: Final = 2.0
_DISK: Final = "disk.img"


@dataclass(frozen=True)
class ClaimData:
    """The data of a claim.

    Attributes:
        path: where this process finds it.
        seen: where the helper's processes do; empty if that follows from ``path``.
        size: bytes that it may hold and that nothing else enforces; 0 for no bound, or one that a disk holds.
    """

    path: Path
    seen: str = ""
    size: int = 0


class ClaimSpec(msgspec.Struct, rename="camel", frozen=True):
    """What a claim asks for."""

    access_modes: tuple[str, ...] = ()
    resources: dict[str, Any] = {}


class Claim(msgspec.Struct, frozen=True):
    """A PersistentVolumeClaim as its provisioner reads it."""

    metadata: MetaView
    spec: ClaimSpec = ClaimSpec()
    status: PvcStatusView = PvcStatusView()


NODE_CLAIMS: Final[Resource[Claim]] = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", Claim)

InUse = Callable[[str, str], bool]
"""Namespace and name of a claim to whether a Pod on this node still mounts it."""


class ClaimProvisioner:
    """Binds claims and removes their data.

    Flow: give ``seen`` to the informer as a handler, and let ``run`` live.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        directory: NodeDirectory,
        store: Store[Claim],
        in_use: InUse,
        network: PodNetwork,
        events: EventRecorder,
    ) -> None:
        self._network = network
        self._events = events
        self._disks: Disks | None = None
        self._tried = False
        self._client = client
        self._clock = clock
        self._directory = directory
        self._store = store
        self._in_use = in_use
        self._changed = anyio.Event()

    def seen(self, _: Change[Claim]) -> None:
        """Something changed."""
        self._changed.set()

    async def open(self, namespace: str, name: str, owner: int) -> ClaimData | None:
        """The data of a bound claim, or None.

        Args:
            namespace: the claim's.
            name: the claim's.
            owner: to whom the data of a new one belongs; -1 for ourselves.

        Raises:
            HelperError: its disk cannot be mounted.
        """
        claim = self._store.get(namespace, name)
        if claim is None or claim.status.phase != "Bound":
            return None
        uid = claim.metadata.uid
        disk = self._directory.volumes / uid / _DISK
        if not await anyio.to_thread.run_sync(disk.exists):
            return ClaimData(self._directory.volumes / uid / "data", size=_size(claim))
        seen = await self._network.attach_disk(uid, f"volumes/{uid}/{_DISK}", owner)
        return ClaimData(self._network.on_host(seen), seen=seen)

    async def run(self) -> None:
        """Bind and remove until cancelled; start it when the store is filled, or claims would look deleted."""
        while True:
            self._changed = anyio.Event()
            settled = await self._settle()
            with anyio.move_on_after(None if settled else _RETRY):
                await self._changed.wait()

    async def _settle(self) -> bool:
        """Do what there is to do; False if something has to be tried again."""
        done = True
        for claim in self._store.list():
            if claim.status.phase != "Bound" and not claim.metadata.deleting:
                done = await self._bind(claim) and done
        return await self._remove_unclaimed() and done

    async def _bind(self, claim: Claim) -> bool:
        metadata = claim.metadata
        owner = f"{metadata.namespace}/{metadata.name}"
        disks = await self._find_disks()
        try:
            place = self._directory.volumes / metadata.uid
            await anyio.to_thread.run_sync(_make_volume, place, owner, disks, _size(claim))
        except OSError as error:
            self._report(claim, "Warning", "ProvisioningFailed", f"no room for the claim: {error}")
            return False
        except ValueError as error:
            self._report(claim, "Warning", "ProvisioningFailed", f"spec.resources.requests.storage: {error}")
            return True  # only another claim can help
        status = {
            "phase": "Bound",
            "accessModes": list(claim.spec.access_modes),
            "capacity": (claim.spec.resources.get("requests") or {}),
        }
        patch = MergePatch({"metadata": {"uid": metadata.uid}, "status": status})
        try:
            await self._client.patch(NODE_CLAIMS, metadata.name, patch, metadata.namespace, subresource="status")
        except (NotFoundError, ConflictError):
            return True
        except KubeError as error:
            log.warning("claim not bound yet", claim=owner, error=str(error))
            return False
        self._report(claim, "Normal", "ProvisioningSucceeded", "Successfully provisioned volume on this machine's disk")
        return True

    async def _find_disks(self) -> Disks | None:
        """What makes disks; tried with the first claim, because most stacks have none."""
        if not self._tried and self._network.isolated:
            self._disks = await anyio.to_thread.run_sync(find_disks, self._directory.root)
        self._tried = True
        return self._disks

    def _report(self, claim: Claim, kind: EventType, reason: str, note: str) -> None:
        self._events.event(claim, type=kind, reason=reason, action="Provisioning", note=note, resource=NODE_CLAIMS)

    async def _remove_unclaimed(self) -> bool:
        known = {claim.metadata.uid for claim in self._store.list()}
        done = True
        for path in await anyio.to_thread.run_sync(_entries, self._directory.volumes):
            if path.name in known:
                continue
            namespace, _, name = (await anyio.to_thread.run_sync(_owner_of, path)).partition("/")
            if self._in_use(namespace, name):
                done = False
                continue
            try:
                with suppress(HelperGoneError):  # then nothing is mounted
                    await self._network.detach_disk(path.name)
                await anyio.to_thread.run_sync(remove_tree, path)
            except (HelperError, OSError) as error:
                log.warning(
                    "data of a claim that is gone not removed yet", claim=f"{namespace}/{name}", error=str(error)
                )
                done = False
        return done


def _size(claim: Claim) -> int:
    asked = (claim.spec.resources.get("requests") or {}).get("storage")
    return int(parse_quantity(asked)) if asked else 0


def _make_volume(place: Path, owner: str, disks: Disks | None, size: int) -> None:
    place.mkdir(exist_ok=True)
    place.chmod(0o711)
    (place / "claim").write_text(owner, encoding="utf-8")
    data = place / "data"
    if disks is not None and size and not data.exists():
        if not (place / _DISK).exists():
            disks.make(place / _DISK, size)
        return
    data.mkdir(exist_ok=True)
    data.chmod(0o770)


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir())


def _owner_of(path: Path) -> str:
    try:
        return (path / "claim").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
