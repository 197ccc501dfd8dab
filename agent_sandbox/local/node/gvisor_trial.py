"""Finds out by trying whether gVisor works on this machine: a Pod of its own must start and serve.

``runsc do true`` is no proof: one Debian build passes it and dies after a few requests. So the trial starts a server in
a throw-away Pod of the running pod network, asks it twenty times and runs a command beside it: exactly what a Pod needs
later. It runs when the first Pod asks for gVisor, takes about a second, and runs again when ``runsc`` is another.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.addresses import ISOLATED_NETWORK, AddressPool, host_uid
from agent_sandbox.local.node.bubblewrap import Box
from agent_sandbox.local.node.commands import run_command
from agent_sandbox.local.node.errors import HelperError, NodeError, RuntimeUnavailableError
from agent_sandbox.local.node.gvisor_runtime import GvisorRuntime, Runsc
from agent_sandbox.local.node.images import OWN_DIRECTORY, PATH
from agent_sandbox.local.node.network import NetworkOptions, PodNetwork
from agent_sandbox.local.node.records import NodeDirectory, remove_tree
from agent_sandbox.local.node.rootfs import RootFiles
from agent_sandbox.local.node.ruleset import BASE
from agent_sandbox.local.node.runtime import Launch
from agent_sandbox.local.node.trial import network_binds

INSTALL: Final = "apt-get install runsc"

_SEARCH: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_PLATFORMS: Final = ("systrap", "ptrace")
_WANTED_FLAGS: Final = {"directfs": "--directfs=false", "overlay2": "--overlay2=none"}
"""Files only through the process made for that; no layer of gVisor's own above a root that is read-only."""
_TIMEOUT: Final = 25.0
_REQUESTS: Final = 20
_PORT: Final = 8080
_PAUSE: Final = 0.02
_POD: Final = "trial-gvisor"
_SERVER: Final = (
    "import http.server as h; h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
)
_NOT_REPLACED: Final = "It is not replaced by a weaker runtime"


@dataclass(frozen=True)
class TrialGround:
    """Where the trial takes place: parts of the running node."""

    network: PodNetwork
    root: RootFiles
    directory: NodeDirectory
    addresses: AddressPool
    clock: Clock
    tasks: TaskGroup


def find_program() -> str | None:
    """The path of ``runsc``, or None."""
    return shutil.which("runsc", path=_SEARCH)


def fingerprint() -> tuple[str, int, int] | None:
    """What changes when ``runsc`` is installed, replaced or removed."""
    program = find_program()
    if program is None:
        return None
    facts = Path(program).stat()
    return program, facts.st_size, facts.st_mtime_ns


class GvisorFinder:
    """Finds the runtime once, and again when ``runsc`` is another."""

    def __init__(self, ground: TrialGround) -> None:
        self._ground = ground
        self._lock = anyio.Lock()
        self._tried: tuple[str, int, int] | None = None
        self._found: GvisorRuntime | None = None
        self._failure = ""

    async def find(self) -> GvisorRuntime:
        """The runtime.

        Raises:
            RuntimeUnavailableError: this machine does not have it; the message says what to do.
        """
        async with self._lock:
            present = await anyio.to_thread.run_sync(fingerprint)
            if present is None:
                raise RuntimeUnavailableError(
                    f"runtimeClassName 'gvisor': runsc is not installed; run `{INSTALL}` as root."
                    f" {_NOT_REPLACED}; the Pod starts by itself once runsc is there"
                )
            if os.geteuid() != 0:
                raise RuntimeUnavailableError(
                    "runtimeClassName 'gvisor': gVisor needs uids of its own for Pods; run the stack as root."
                    f" {_NOT_REPLACED}"
                )
            if present != self._tried:
                self._found, self._failure = await self._try(present[0])
                self._tried = present
        if self._found is None:
            raise RuntimeUnavailableError(
                f"runtimeClassName 'gvisor': {present[0]} does not work on this machine: {self._failure}."
                f" {_NOT_REPLACED}; another version of runsc may work"
            )
        return self._found

    async def _try(self, program: str) -> tuple[GvisorRuntime | None, str]:
        flags = await _known_flags(program)
        failures = []
        for platform in _PLATFORMS:
            runsc = Runsc(program, platform, flags)
            failure = await self._try_platform(runsc)
            if not failure:
                return self._runtime(runsc), ""
            failures.append(f"{platform}: {failure}")
        return None, "; ".join(failures)

    def _runtime(self, runsc: Runsc) -> GvisorRuntime:
        ground = self._ground
        return GvisorRuntime(ground.network, ground.root, ground.directory, runsc, ground.tasks)

    async def _try_platform(self, runsc: Runsc) -> str:
        """Why this platform does not work, or nothing."""
        ground = self._ground
        address = ground.addresses.take()
        directory = ground.directory.pod(_POD)
        runtime = self._runtime(runsc)
        try:
            await anyio.to_thread.run_sync(_make_directory, directory)
            await ground.network.create(_POD, address)
            try:
                return await self._serve(runtime, address, directory)
            finally:
                with anyio.CancelScope(shield=True):
                    await runtime.release(_POD)
                    await ground.network.delete(_POD)
                    await anyio.to_thread.run_sync(remove_tree, directory)
        except (HelperError, OSError) as error:
            return str(error)
        finally:
            ground.addresses.give_back(address)

    async def _serve(self, runtime: GvisorRuntime, address: str, directory: Path) -> str:
        argv = [f"{OWN_DIRECTORY}/bin/python3", "-I", "-S", "-c", _SERVER]
        box = Box("trial", argv, {"PATH": PATH, **self._ground.root.environment}, "/tmp")  # noqa: S108 - the sandbox's own
        log, uid = directory / "trial.log", host_uid(address, self._ground.directory.root)
        launch = Launch(_POD, uid, box, log, directory / "none" / "w")
        try:
            with anyio.fail_after(_TIMEOUT):
                process = await runtime.start(launch)
                for _ in range(_REQUESTS):
                    while not await self._answers(address):
                        if not process.alive:
                            return process.start_failure() or process.said.decode(errors="replace").strip()
                        await self._ground.clock.sleep(_PAUSE)
                code, output = await run_command(process, [argv[0], "-I", "-S", "-c", "print(6*7)"])
        except TimeoutError:
            return f"no answer within {_TIMEOUT:.0f} s"
        except (NodeError, OSError) as error:
            return str(error)
        return "" if (code, output) == (0, "42\n") else f"a command in it ended with {code}: {output}"

    async def _answers(self, address: str) -> bool:
        """Whether one request got a whole answer."""
        try:
            connection = await self._ground.network.connect(address, _PORT)
        except OSError:
            return False
        async with await anyio.abc.SocketStream.from_socket(connection) as stream:
            try:
                await stream.send(b"GET / HTTP/1.0\r\n\r\n")
                return (await stream.receive()).startswith(b"HTTP/1.0 200")
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return False


async def try_gvisor(root: RootFiles, directory: NodeDirectory, nft: str, clock: Clock) -> Runsc:
    """Find out in a throw-away pod network whether gVisor works; the program that does.

    Args:
        root: the root file system of Pods.
        directory: a node's directory that no node works in.
        nft: the ``nft`` program.
        clock: paces the trial.

    Raises:
        RuntimeUnavailableError: it does not.
    """
    network = PodNetwork()
    options = NetworkOptions(network_binds(root, directory.root), nft, BASE)
    found: GvisorRuntime | None = None
    failure: RuntimeUnavailableError | None = None
    async with anyio.create_task_group() as group:
        await group.start(network.run, options)
        ground = TrialGround(network, root, directory, AddressPool(ISOLATED_NETWORK), clock, group)
        try:
            found = await GvisorFinder(ground).find()
        except RuntimeUnavailableError as error:  # not out of the group, which would wrap it
            failure = error
        finally:
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    assert found is not None, "it was found, or there was a failure"
    return found.runsc


def _make_directory(directory: Path) -> None:
    (directory / "files").mkdir(parents=True, exist_ok=True)
    directory.chmod(0o711)


async def _known_flags(program: str) -> tuple[str, ...]:
    """Those of the flags we want that this build knows."""
    with anyio.move_on_after(5):
        done = await anyio.run_process([program, "flags"], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, check=False)
        known = done.stdout.decode() + done.stderr.decode()
        return tuple(flag for name, flag in _WANTED_FLAGS.items() if re.search(rf"^\s+-{name}\b", known, re.MULTILINE))
    return ()
