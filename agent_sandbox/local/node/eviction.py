"""Ends Pods that use more disk than they may, and the largest one when the disk is nearly full, as a kubelet does.

In: the Pods of this node. Out: their eviction. Looks every ``period`` seconds, only at Pods that have a limit, and the
longer a look took the longer it rests, so that Pods with many files do not keep the machine busy.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.pods import Pod
from agent_sandbox.local.quantities import parse_quantity

log = structlog.get_logger(__name__)

EVICTED: Final = "Evicted"
_REST: Final = 20
"""A look may take one part in so many of the time."""

_BLOCK: Final = 512


@dataclass(frozen=True)
class DiskUse:
    """A Pod as far as its use of the disk goes.

    Attributes:
        pod: the Pod.
        directory: its directory on this machine: container layers, logs, emptyDir volumes.
        claims: data of its PersistentVolumeClaims whose size nothing else enforces, with that size in bytes.
        evict: ends it, with a message.
    """

    pod: Pod
    directory: Path
    claims: Mapping[str, tuple[Path, int]]
    evict: Callable[[str], None]

    @property
    def limited(self) -> bool:
        """Whether it has any limit."""
        return bool(self.claims) or storage_limit(self.pod) is not None or bool(volume_limits(self.pod))


def storage_limit(pod: Pod) -> Decimal | None:
    """The sum of its containers' limits of ``ephemeral-storage``; None unless all of them have one."""
    values = [container.resources.limits.get("ephemeral-storage") for container in pod.spec.containers]
    if not values or any(value is None for value in values):
        return None
    return sum((parse_quantity(value) for value in values if value is not None), Decimal(0))


def volume_limits(pod: Pod) -> dict[str, tuple[str, Decimal]]:
    """``sizeLimit`` of the emptyDir volumes that lie on disk, as written and in bytes, by name."""
    found = {}
    for volume in pod.spec.volumes:
        source = volume.get("emptyDir") or {}
        if source.get("sizeLimit") and source.get("medium") != "Memory":
            found[volume["name"]] = (str(source["sizeLimit"]), parse_quantity(source["sizeLimit"]))
    return found


def disk_usage(path: Path) -> int:
    """Bytes that a tree occupies, each file counted once; what vanishes meanwhile does not count."""
    total, seen, waiting = 0, set(), [path]
    while waiting:
        directory = waiting.pop()
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    if facts.st_nlink == 1 or facts.st_ino not in seen:
                        total += facts.st_blocks * _BLOCK
                    if facts.st_nlink > 1:
                        seen.add(facts.st_ino)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
    return total


def excess(use: DiskUse) -> str:
    """What a Pod uses too much of, in the kubelet's words; empty if nothing."""
    volumes = use.directory / "files" / "volumes"
    for name, (written, limit) in volume_limits(use.pod).items():
        if disk_usage(volumes / name) > limit:
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{written}". '
    for name, (path, size) in use.claims.items():
        if disk_usage(path) > size:
            return f'Usage of PersistentVolumeClaim "{name}" exceeds its size of {size} bytes. '
    total = storage_limit(use.pod)
    if total is not None and disk_usage(use.directory) > total:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {int(total)}. "
    return ""


class DiskWatch:
    """Looks at the disk until cancelled."""

    def __init__(
        self, state_dir: Path, clock: Clock, uses: Callable[[], Iterable[DiskUse]], *, period: float, reserve: int
    ) -> None:
        """
        Args:
            state_dir: on the disk that is watched.
            clock: for the pauses.
            uses: the Pods that run.
            period: seconds between looks.
            reserve: bytes that must stay free; below, the node is under pressure.
        """
        self._state_dir = state_dir
        self._clock = clock
        self._uses = uses
        self._period = period
        self._reserve = reserve
        self.pressure = False
        """Whether less than the reserve is free."""

    async def run(self, changed: Callable[[], None]) -> None:
        """Look now and then, and tell when the pressure changes."""
        while True:
            began = self._clock.monotonic()
            await self.look(changed)
            took = self._clock.monotonic() - began
            await self._clock.sleep(max(self._period, took * _REST))

    async def look(self, changed: Callable[[], None]) -> None:
        """Look once."""
        for use in [use for use in self._uses() if use.limited]:
            message = await anyio.to_thread.run_sync(excess, use)
            if message:
                use.evict(message)
        free = (await anyio.to_thread.run_sync(shutil.disk_usage, self._state_dir)).free
        pressure = free < self._reserve
        if pressure != self.pressure:
            self.pressure = pressure
            log.warning("disk pressure" if pressure else "disk pressure is over", free=free, reserve=self._reserve)
            changed()
        if pressure:
            await self._evict_largest()

    async def _evict_largest(self) -> None:
        """One at a time: it may free enough."""
        found = [(await anyio.to_thread.run_sync(disk_usage, use.directory), use) for use in self._uses()]
        if found:
            size, use = max(found, key=lambda pair: pair[0])
            use.evict(
                "The node was low on resource: ephemeral-storage. Threshold quantity:"
                f" {self._reserve}. The Pod was using {size // 1024}Ki, the most of all. "
            )
