"""PersistentVolumeClaims on this machine's disk: binds each one to a directory, and removes that with its claim.

In: claims from an informer. Out: their status ``Bound``, and ``path_of`` for those who mount them. The data lies in the
state directory under the claim's UID, so it survives suspend, restart and crash, and a new claim of an old name starts
empty. Sizes are recorded, not enforced. Every storage class is accepted: this is the only storage there is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import ConflictError, KubeClient, KubeError, MergePatch, NotFoundError
from agent_sandbox.local.node.records import NodeDirectory, remove_tree
from agent_sandbox.runtime.store import Change, Store
from agent_sandbox_api.core.kinds import PvcStatusView
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView

log = structlog.get_logger(__name__)

_RETRY: Final = 2.0


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
        self, client: KubeClient, clock: Clock, directory: NodeDirectory, store: Store[Claim], in_use: InUse
    ) -> None:
        self._client = client
        self._clock = clock
        self._directory = directory
        self._store = store
        self._in_use = in_use
        self._changed = anyio.Event()

    def seen(self, _: Change[Claim]) -> None:
        """Something changed."""
        self._changed.set()

    def path_of(self, namespace: str, name: str) -> Path | None:
        """The data of a bound claim, or None."""
        claim = self._store.get(namespace, name)
        if claim is None or claim.status.phase != "Bound":
            return None
        return self._data(claim.metadata.uid)

    def _data(self, uid: str) -> Path:
        return self._directory.volumes / uid / "data"

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
        data = self._data(metadata.uid)
        owner = f"{metadata.namespace}/{metadata.name}"
        await anyio.to_thread.run_sync(_make_volume, data, owner)
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
        return True

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
            await anyio.to_thread.run_sync(remove_tree, path)
        return done


def _make_volume(data: Path, owner: str) -> None:
    data.parent.mkdir(exist_ok=True)
    data.parent.chmod(0o711)
    (data.parent / "claim").write_text(owner, encoding="utf-8")
    data.mkdir(exist_ok=True)
    data.chmod(0o770)


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir())


def _owner_of(path: Path) -> str:
    try:
        return (path / "claim").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
