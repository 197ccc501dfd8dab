"""Explains what this machine can isolate and limit, and what would give more: by trying, as the node itself does.

In: nothing but the machine and the user who asks. Out: ``Finding``s in a fixed order, each with the cure where there is
one. Nothing of the trial remains.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.to_thread

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.capacity import read_capacity
from agent_sandbox.local.node.cgroups import find_cgroups
from agent_sandbox.local.node.disks import find_disks
from agent_sandbox.local.node.egress import why_not
from agent_sandbox.local.node.errors import IsolationError, RuntimeUnavailableError
from agent_sandbox.local.node.gvisor_trial import INSTALL as INSTALL_GVISOR
from agent_sandbox.local.node.gvisor_trial import find_program, try_gvisor
from agent_sandbox.local.node.oci import find_engine
from agent_sandbox.local.node.records import NodeDirectory
from agent_sandbox.local.node.rootfs import RootFiles, build_root_files
from agent_sandbox.local.node.trial import Machine, find_tools, try_isolation

State = Literal["ok", "limited", "missing"]

_DELEGATED: Final = "systemd-run --user --scope -p Delegate=yes agent-sandbox local up"


@dataclass(frozen=True)
class Finding:
    """One thing that a stack needs or can use.

    Attributes:
        name: in one word.
        state: ``missing`` of ``isolation`` means that no stack starts here.
        detail: what was found.
        cure: the command or setting that would give more; empty if there is nothing to gain.
    """

    name: str
    state: State
    detail: str
    cure: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form for programs."""
        return asdict(self)


async def examine(clock: Clock) -> list[Finding]:
    """Try everything; takes about a second."""
    directory = await anyio.to_thread.run_sync(tempfile.TemporaryDirectory)
    try:
        return await _examine(NodeDirectory(Path(directory.name, "node")), clock)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(directory.cleanup)


async def _examine(directory: NodeDirectory, clock: Clock) -> list[Finding]:
    await anyio.to_thread.run_sync(directory.create)
    findings = [await anyio.to_thread.run_sync(_describe_machine, directory.root)]
    began = clock.monotonic()
    machine: Machine | None = None
    try:
        root = await anyio.to_thread.run_sync(build_root_files, directory.runtime)
        machine = await try_isolation(root, directory.root)
    except IsolationError as error:
        what, _, cure = str(error).partition("; ")
        findings.append(Finding("isolation", "missing", what, cure))
    else:
        findings.append(_isolation(machine, clock.monotonic() - began))
        findings += [await _gvisor(root, directory, machine, clock), await anyio.to_thread.run_sync(_way_out)]
    checks: list[Callable[[Path], Finding]] = [_users, _limits, _disks, _images]
    return findings + [await anyio.to_thread.run_sync(check, directory.root) for check in checks]


async def _gvisor(root: RootFiles, directory: NodeDirectory, machine: Machine, clock: Clock) -> Finding:
    pending = "Pods of runtimeClassName gvisor stay Pending"
    if find_program() is None:
        return Finding("gvisor", "limited", f"runsc is not installed: {pending}", INSTALL_GVISOR)
    if os.geteuid() != 0:
        return Finding(
            "gvisor", "limited", f"gVisor needs uids of its own for Pods: {pending}", "run the stack as root"
        )
    try:
        runsc = await try_gvisor(root, directory, machine.nft, clock)
    except RuntimeUnavailableError as error:
        return Finding("gvisor", "limited", f"{error}", "another version of runsc")
    detail = f"a kernel of its own for each Pod of runtimeClassName gvisor: {runsc.program}, platform {runsc.platform}"
    return Finding("gvisor", "ok", detail)


def _way_out() -> Finding:
    problem = why_not()
    if not problem:
        return Finding("egress", "ok", "Pods reach outside the stack what their NetworkPolicies allow")
    what, _, cure = problem.partition("; ")
    return Finding("egress", "limited", f"Pods reach nothing outside the stack: {what}", cure)


def _describe_machine(state_dir: Path) -> Finding:
    capacity = read_capacity(state_dir)
    who = "root" if os.geteuid() == 0 else f"ordinary user {os.geteuid()}"
    detail = (
        f"{platform.system()} {platform.release()} on {platform.machine()}, {int(capacity['cpu'])} cores,"
        f" {int(capacity['memory']) / 1e9:.1f} GB; asked as {who}"
    )
    return Finding("machine", "ok", detail)


def _version(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip().splitlines()[0] if done.stdout else "of unknown version"


def _isolation(machine: Machine, seconds: float) -> Finding:
    tools = find_tools()
    versions = f"{_version(tools.bwrap, '--version')}, {_version(tools.nft, '--version')}"
    lacks = [
        what
        for has, what in (
            (machine.walls.disable_userns, "forbid nested user namespaces (the system call filter does)"),
            (machine.walls.tmpfs_size, "bound /tmp"),
        )
        if not has
    ]
    detail = f"Pods behind bubblewrap's walls, each in a network of its own: tried in {seconds:.1f} s with {versions}"
    if not lacks:
        return Finding("isolation", "ok", detail)
    return Finding(
        "isolation", "limited", f"{detail}; this bubblewrap cannot {' or '.join(lacks)}", "bubblewrap 0.8 or newer"
    )


def _users(_: Path) -> Finding:
    if os.geteuid() == 0:
        return Finding("users", "ok", "every Pod has a uid of its own on this machine")
    return Finding(
        "users",
        "limited",
        "every Pod is, for the kernel, this account: what escapes from its walls may do what you may",
        "run the stack as root, and every Pod gets an unused uid of its own",
    )


def _limits(state_dir: Path) -> Finding:
    groups = find_cgroups(state_dir)
    if groups is not None:
        groups.remove()
        return Finding("limits", "ok", f"memory, cpu and processes are enforced through control groups {groups.layout}")
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    cure = f"{_DELEGATED}, or run the stack as root" if unified else "run the stack as root"
    why = "no control groups are delegated to this user" if unified else "control groups version 1 belong to root"
    return Finding("limits", "missing", f"limits of memory, cpu and processes are not enforced: {why}", cure)


def _disks(state_dir: Path) -> Finding:
    disks = find_disks(state_dir)
    if disks is not None:
        return Finding("disks", "ok", "a PersistentVolumeClaim is a disk of its size (ext4 on a loop device)")
    cure = "apt-get install e2fsprogs" if os.geteuid() == 0 and shutil.which("mkfs.ext4") is None else "run as root"
    return Finding(
        "disks", "limited", "sizes of volumes are measured every 10 s, and who exceeds them is evicted", cure
    )


def _images(_: Path) -> Finding:
    engine = find_engine()
    if engine is not None:
        return Finding("images", "ok", f"images are fetched through {engine.socket}, and imported from OCI layouts")
    serve = "`podman system service --time=0 &` (with systemd: systemctl --user start podman.socket)"
    return Finding(
        "images",
        "limited",
        "images come from `agent-sandbox local images import`; there is no socket of Podman or Docker to fetch them by",
        serve if shutil.which("podman") else f"apt-get install podman, then {serve}",
    )
