"""Finds out by trying, not by version numbers, what this machine can isolate.

One throw-away helper makes its namespaces and a Pod's network, loads the default-deny rules and starts the sandbox's
Python behind all of bubblewrap's walls, under a Pod's uid: exactly what every Pod needs later. Where that fails, the
error names the package, sysctl or profile that would cure it. Takes about 0.2 s.
"""

import os
import platform
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import anyio
import structlog

from agent_sandbox.local.node.addresses import ISOLATED_NETWORK, host_uid
from agent_sandbox.local.node.bubblewrap import Box, Walls
from agent_sandbox.local.node.bubblewrap_runtime import BubblewrapRuntime
from agent_sandbox.local.node.errors import ContainerError, HelperError, HelperGoneError, IsolationError, NodeError
from agent_sandbox.local.node.images import PATH
from agent_sandbox.local.node.network import NetworkOptions, PodNetwork
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.ruleset import BASE
from agent_sandbox.local.node.runtime import Launch

log = structlog.get_logger(__name__)

INSTALL: Final = "apt-get install bubblewrap nftables"
UNISOLATED: Final = (
    "or pass --unisolated to run Pods as plain processes of this user, which can read all this user's files"
)
_TIMEOUT: Final = 20.0
_SEARCH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
_CHECK: Final = "import ctypes, socket, ssl"


@dataclass(frozen=True)
class Tools:
    """Where this machine has the programs that we need."""

    bwrap: str
    nft: str


@dataclass(frozen=True)
class Machine:
    """What this machine can do.

    Attributes:
        nft: the ``nft`` program.
        walls: bubblewrap, and which of its options work here.
    """

    nft: str
    walls: Walls


def find_tools() -> Tools:
    """The programs that isolation needs.

    Raises:
        IsolationError: one is not installed; the message names the command that installs it.
    """
    if platform.system() != "Linux":
        raise IsolationError(f"the local node needs Linux; this is {platform.system()}")
    bwrap, nft = shutil.which("bwrap", path=_SEARCH), shutil.which("nft", path=_SEARCH)
    missing = [name for name, path in (("bubblewrap", bwrap), ("nftables", nft)) if path is None]
    if bwrap is None or nft is None:
        raise IsolationError(f"not installed: {', '.join(missing)}; run `{INSTALL}` as root, {UNISOLATED}")
    return Tools(bwrap, nft)


def network_binds(root: RootFiles, state_dir: Path) -> dict[str, Path]:
    """Host directories that the helper shows to Pods' set-up."""
    binds = {name: state_dir / name for name in ("runtime", "pods", "volumes", "images")}
    return binds | ({"python": root.python_prefix} if root.python_prefix is not None else {})


async def try_isolation(root: RootFiles, state_dir: Path) -> Machine:
    """Try everything that a Pod needs.

    Args:
        root: the root file system of Pods.
        state_dir: the node's state directory; its subdirectories exist.

    Raises:
        IsolationError: this machine allows no isolation as it is.
    """
    tools = find_tools()
    network = PodNetwork()
    options = NetworkOptions(binds=network_binds(root, state_dir), nft=tools.nft, ruleset=BASE)
    try:
        with anyio.fail_after(_TIMEOUT):
            async with anyio.create_task_group() as group:
                await group.start(network.run, options)
                walls = await _first_working(network, Walls(tools.bwrap), root, state_dir)
                group.cancel_scope.cancel()
    except TimeoutError as error:
        raise IsolationError(f"the trial of isolation did not end within {_TIMEOUT:.0f} s") from error
    except BaseExceptionGroup as group_error:
        raise _explained(group_error) from group_error
    return Machine(tools.nft, walls)


async def _first_working(network: PodNetwork, walls: Walls, root: RootFiles, state_dir: Path) -> Walls:
    """The walls with all options of a new bubblewrap, or without those that an old one does not know."""
    candidates = (walls, replace(walls, disable_userns=False), replace(walls, disable_userns=False, tmpfs_size=False))
    first_failure = ""
    for number, candidate in enumerate(candidates):
        failure = await _try_box(network, candidate, root, state_dir, number)
        if not failure:
            return candidate
        first_failure = first_failure or failure
        if "Unknown option" not in failure and "disable-userns" not in failure and "userns" not in failure:
            break
    raise IsolationError(f"bubblewrap cannot build its walls here: {first_failure}. {_cure()}; {UNISOLATED}")


async def _try_box(network: PodNetwork, walls: Walls, root: RootFiles, state_dir: Path, number: int) -> str:
    """Start the sandbox's Python behind these walls; what went wrong, or nothing."""
    address, pod = str(ISOLATED_NETWORK[2 + number]), f"trial-{number}"
    await network.create(pod, address)
    runtime = BubblewrapRuntime(network, walls, root)
    directory = state_dir / "trial"
    argv = ["/opt/agent-sandbox/bin/python3", "-I", "-S", "-c", _CHECK]
    box = Box("trial", argv, {"PATH": PATH, **root.environment}, "/tmp")  # noqa: S108 - the sandbox's own
    uid = host_uid(address, state_dir) if os.geteuid() == 0 else None
    try:
        await anyio.Path(directory).mkdir(exist_ok=True)
        process = await runtime.start(Launch(pod, uid, box, directory / "trial.log", directory))
        code = await process.wait()
    finally:
        runtime.close()
        await anyio.to_thread.run_sync(shutil.rmtree, directory, True)
        await network.delete(pod)
    return "" if code == 0 else process.said.decode(errors="replace").strip() or f"exit code {code}"


def _explained(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The sentence that a user needs, out of what the trial met."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, IsolationError):
        return error
    if isinstance(error, (HelperError, HelperGoneError, ContainerError, NodeError)):
        return IsolationError(f"no network of its own for Pods on this machine: {error}. {_cure()}; {UNISOLATED}")
    return error


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _cure() -> str:
    """What most likely forbids user namespaces here, and how to allow them."""
    if os.geteuid() == 0:
        return "The root user of this machine lacks CAP_SYS_ADMIN or CAP_NET_ADMIN (a container?): run it on the host"
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces (Ubuntu 23.10 and later): allow them for this program by a profile with"
            " `userns,` (see docs/isolation.md), or for all by"
            " `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run the stack as root"
        )
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "User namespaces are switched off: `sysctl kernel.unprivileged_userns_clone=1`, or run the stack as root"
    if _sysctl("user/max_user_namespaces") == "0":
        return "User namespaces are switched off: `sysctl user.max_user_namespaces=10000`, or run the stack as root"
    return "User or network namespaces are not allowed for this user: run the stack as root"
