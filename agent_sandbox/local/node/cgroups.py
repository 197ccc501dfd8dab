"""Limits of containers: memory, CPU and number of processes, by the machine's control groups.

In: ``resources.limits`` of a container. Out: a ``ControlGroup`` whose files its processes join before they start. Three
layouts are understood, found out by trying: version 2 (as root, or in a subtree that systemd delegated to the user),
version 1, and both side by side. Where none is usable, ``find_cgroups`` returns None and limits are not enforced.

All groups lie below one parent, named in the state directory, so that a later run finds and removes what a killed one
left. Everything is written with plain calls; call from a worker thread.
"""

import json
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeVar

import structlog

from agent_sandbox.local.quantities import parse_quantity

log = structlog.get_logger(__name__)

_RECORD: Final = "cgroups.json"
_CPU_PERIOD: Final = 100_000
_CONTROLLERS: Final = ("memory", "pids", "cpu")
_MOUNT: Final = Path("/sys/fs/cgroup")
_REMOVE_ATTEMPTS: Final = 50
_REMOVE_PAUSE: Final = 0.01

_Number = TypeVar("_Number", int, Decimal)


@dataclass(frozen=True)
class Limits:
    """What a container may use; None is no limit.

    Attributes:
        memory: bytes.
        cpu: cores.
        processes: processes and threads.
    """

    memory: int | None = None
    cpu: Decimal | None = None
    processes: int | None = None


def limits_of(limits: Mapping[str, str | int | float], processes: int) -> Limits:
    """``resources.limits`` of a container, and the node's limit of processes, for which Kubernetes has no field.

    Raises:
        ValueError: a value is no quantity.
    """
    memory, cpu = limits.get("memory"), limits.get("cpu")
    return Limits(
        int(parse_quantity(memory)) if memory is not None else None,
        parse_quantity(cpu) if cpu is not None else None,
        processes,
    )


def sum_of_limits(each: Sequence[Limits], overhead: Limits) -> Limits:
    """The limits of a Pod whose containers are limited together; none of a kind that some container has not."""

    def total(values: Sequence[_Number | None], more: _Number | None) -> _Number | None:
        known = [value for value in values if value is not None]
        return sum(known, more) if more is not None and len(known) == len(values) else None

    return Limits(
        total([limits.memory for limits in each], overhead.memory),
        total([limits.cpu for limits in each], overhead.cpu),
        total([limits.processes for limits in each], overhead.processes),
    )


def _write(path: Path, value: object) -> None:
    path.write_text(str(value), encoding="ascii")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _counter(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


@dataclass(frozen=True)
class ControlGroup:
    """One container's group.

    Attributes:
        directories: its directory in each controller's hierarchy.
        unified: whether that is version 2.
    """

    directories: Mapping[str, Path]
    unified: bool

    @property
    def procs(self) -> list[str]:
        """Files in which a process of one thread that writes ``0`` joins the group.

        In version 1 that is the file for threads: the one for processes lets the kernel wait until every processor has
        passed a quiet moment, 10 ms on an idle machine.
        """
        name = "cgroup.procs" if self.unified else "tasks"
        return [str(path / name) for path in dict.fromkeys(self.directories.values())]

    def limit(self, limits: Limits) -> None:
        """Set the limits.

        Raises:
            OSError: the kernel refused one, for example a memory limit below its minimum.
        """
        memory, pids, cpu = (self.directories[name] for name in _CONTROLLERS)
        if limits.processes is not None:
            _write(pids / "pids.max", limits.processes)
        if limits.memory is not None and self.unified:
            _write(memory / "memory.max", limits.memory)
            with suppress(OSError):  # a kernel without swap accounting has no such file
                _write(memory / "memory.swap.max", 0)
        elif limits.memory is not None:
            _write(memory / "memory.limit_in_bytes", limits.memory)
            with suppress(OSError):
                _write(memory / "memory.memsw.limit_in_bytes", limits.memory)
        if limits.cpu is not None:
            quota = max(1000, int(limits.cpu * _CPU_PERIOD))
            if self.unified:
                _write(cpu / "cpu.max", f"{quota} {_CPU_PERIOD}")
            else:
                _write(cpu / "cpu.cfs_period_us", _CPU_PERIOD)
                _write(cpu / "cpu.cfs_quota_us", quota)

    def oom_kills(self) -> int:
        """How many processes the kernel killed here because the memory limit was reached."""
        name = "memory.events" if self.unified else "memory.oom_control"
        return _counter(_read(self.directories["memory"] / name), "oom_kill")

    def remove(self) -> None:
        """Remove the group; its processes have ended, but the kernel may need a moment to notice."""
        for path in dict.fromkeys(self.directories.values()):
            _remove(path)


def _remove(path: Path) -> None:
    for _ in range(_REMOVE_ATTEMPTS):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(_REMOVE_PAUSE)  # in a worker thread
        else:
            return
    log.warning("control group not removed", path=str(path))


class Cgroups:
    """The place below which this node makes its groups."""

    def __init__(self, parents: Mapping[str, Path], record: Path, *, unified: bool) -> None:
        self._parents = parents
        self._record = record
        self._unified = unified

    @property
    def layout(self) -> str:
        """``v2`` or ``v1``."""
        return "v2" if self._unified else "v1"

    @property
    def parents(self) -> list[Path]:
        """Our directories, one per hierarchy."""
        return list(dict.fromkeys(self._parents.values()))

    def create(self, name: str, limits: Limits) -> ControlGroup:
        """Make a group with these limits.

        Raises:
            OSError: the kernel refused.
        """
        group = ControlGroup({key: path / name for key, path in self._parents.items()}, unified=self._unified)
        for path in self.parents:
            (path / name).mkdir(exist_ok=True)
        try:
            group.limit(limits)
        except OSError:
            group.remove()
            raise
        return group

    def keep_only(self, prefixes: Iterable[str]) -> None:
        """Remove the groups of an earlier run but those whose names begin like one of these."""
        kept = tuple(prefixes)
        for parent in self.parents:
            for path in [entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(kept)]:
                _remove(path)

    def remove_some(self, prefix: str) -> None:
        """Remove the groups whose names begin like this."""
        for parent in self.parents:
            for path in parent.glob(f"{prefix}*"):
                _remove(path)

    def remove(self) -> None:
        """Remove everything of ours."""
        remove_groups(self.parents)
        self._record.unlink(missing_ok=True)


def remove_groups(parents: Iterable[Path]) -> None:
    """Remove these groups and those below them; processes in them have ended."""
    for parent in parents:
        if parent.is_dir():
            for child in [entry for entry in parent.iterdir() if entry.is_dir()]:
                _remove(child)
            _remove(parent)


def find_cgroups(state_dir: Path) -> Cgroups | None:
    """Take a place for our groups; those of an earlier run stay if they are there, and are removed elsewhere.

    Args:
        state_dir: the node's state directory; the place is recorded in it.
    """
    record, earlier = state_dir / _RECORD, list[Path]()
    with suppress(OSError, ValueError):
        earlier = _recorded(record)
    for attempt in (_unified, _split):
        with suppress(OSError, ValueError):
            found = attempt(f"agent-sandbox-{zlib.crc32(str(state_dir).encode()):08x}", record)
            probe = found.create("trial", Limits(memory=64 << 20, cpu=Decimal(1), processes=10))
            probe.remove()
            remove_groups(path for path in earlier if path not in found.parents)
            return found
    with suppress(OSError):
        remove_groups(earlier)
        record.unlink(missing_ok=True)
    return None


def remove_recorded_groups(state_dir: Path) -> None:
    """Remove what a killed node left; its processes have ended."""
    with suppress(OSError, ValueError):
        _remove_recorded(state_dir / _RECORD)


def _recorded(record: Path) -> list[Path]:
    return [Path(path) for path in json.loads(record.read_text())] if record.exists() else []


def _remove_recorded(record: Path) -> None:
    remove_groups(_recorded(record))
    record.unlink(missing_ok=True)


def _remember(record: Path, parents: Sequence[Path]) -> None:
    record.write_text(json.dumps([str(path) for path in parents]))


def _own_group() -> str:
    """Our own group in the version 2 hierarchy, relative to its mount."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise OSError("no version 2 hierarchy")


def _unified(name: str, record: Path) -> Cgroups:
    """Version 2: below the root as root, below our own delegated group otherwise."""
    if not (_MOUNT / "cgroup.controllers").exists():
        raise OSError("version 2 is not mounted alone")
    base = _MOUNT if os.geteuid() == 0 else _MOUNT / _own_group().lstrip("/")
    parent = base / name
    _remember(record, [parent])
    if os.geteuid() != 0:
        # Processes live in leaves only: step aside before controllers are handed down.
        leaf = base / "agent"
        leaf.mkdir(exist_ok=True)
        for pid in _read(base / "cgroup.procs").split():
            _write(leaf / "cgroup.procs", pid)
    wanted = " ".join(f"+{controller}" for controller in _CONTROLLERS)
    _write(base / "cgroup.subtree_control", wanted)
    parent.mkdir(exist_ok=True)
    _write(parent / "cgroup.subtree_control", wanted)
    return Cgroups(dict.fromkeys(_CONTROLLERS, parent), record, unified=True)


def _split(name: str, record: Path) -> Cgroups:
    """Version 1: a directory in each controller's hierarchy."""
    parents = {controller: _MOUNT / controller / name for controller in _CONTROLLERS}
    _remember(record, list(parents.values()))
    for path in parents.values():
        path.mkdir(exist_ok=True)
    return Cgroups(parents, record, unified=False)
