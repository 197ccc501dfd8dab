"""The pod network seen from the node: starts the helper, asks it for networks, processes and sockets.

In flow requests of the node's rooms and destinations to connect to; out flow connected sockets and exit codes. Nothing
here blocks the event loop: the channel is non-blocking and sockets for outgoing connections wait in a small pool,
filled ahead of use. Pods are reachable through ``socket_factory`` and ``connect`` only; the host has no route to them.
"""

import errno
import ipaddress
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Final

import anyio
from anyio.abc import Process, TaskStatus

from agent_sandbox.local.node.addresses import ISOLATED_NETWORK
from agent_sandbox.local.node.errors import HelperError, HelperGoneError
from agent_sandbox.local.node.helper import channel
from agent_sandbox.local.node.helper.namespaces import GATEWAY
from agent_sandbox.local.node.helper_client import HelperClient

_POOL_SIZE: Final = 64
_POOL_LOW: Final = 32
_BROKER_TIMEOUT: Final = 2.0

ExitHandler = Callable[[int], None]


@dataclass(frozen=True)
class NetworkOptions:
    """How the helper runs.

    Attributes:
        binds: host directories to show to Pods' set-up, by their name in the tree.
        nft: path of the ``nft`` program.
        ruleset: the rules to begin with.
        isolated: False runs Pods as bare processes in the host's own network.
        lock_fd: a locked file that the helper keeps open while it lives, or None; the next node waits for that lock.
    """

    binds: Mapping[str, Path] = field(default_factory=dict)
    nft: str = "/usr/sbin/nft"
    ruleset: str = ""
    isolated: bool = True
    lock_fd: int | None = None


class PodNetwork:
    """The helper, one after another: the object stays, so that others may hold it, while ``run`` may be called again.

    Flow: ``run`` starts a helper, reports through ``task_status`` once its namespaces stand, and serves until cancelled
    or until the helper dies.

    Errors: every request raises ``HelperError`` if it was refused and ``HelperGoneError`` if the helper is gone.
    """

    def __init__(self) -> None:
        self._options = NetworkOptions()
        self._helper: HelperClient | None = None
        self._broker: socket.socket | None = None
        self._exits: dict[str, ExitHandler] = {}
        self._sockets: deque[socket.socket] = deque()
        self._refill = anyio.Event()
        self.tree = Path("/")
        """Where the helper shows the directories of ``options.binds``."""
        self.pid = 0
        """Process id of the helper."""

    @property
    def isolated(self) -> bool:
        """False if Pods are bare processes in the host's network."""
        return self._options.isolated

    async def run(self, options: NetworkOptions, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run a helper until cancelled.

        Raises:
            HelperGoneError: the helper ended by itself.
            HelperError: it could not make its namespaces; the message is the kernel's.
        """
        self._options = options
        control, theirs = channel.pair()
        broker, their_broker = channel.pair()
        control.setblocking(False)
        broker.settimeout(_BROKER_TIMEOUT)
        self._helper, self._broker = HelperClient(control), broker
        try:
            process = await self._start(theirs)
            try:
                await self._serve(self._helper, their_broker, task_status)
            except BaseExceptionGroup as group:
                raise _cause(group) from None
            finally:
                self._close()
                with anyio.CancelScope(shield=True):
                    await self._reap(process)
        finally:
            for end in (control, broker, theirs, their_broker):
                end.close()

    async def _serve(self, helper: HelperClient, their_broker: socket.socket, task_status: TaskStatus[None]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(helper.receive_forever, self._ended, name="pod network: replies")
            await self._set_up(their_broker)
            their_broker.close()
            await self._fill_pool()
            task_status.started()
            await self._refill_forever()

    async def _start(self, theirs: socket.socket) -> Process:
        program = Path(__file__).with_name("helper") / "__main__.py"
        process = await anyio.open_process(
            [sys.executable, "-I", "-S", str(program), str(theirs.fileno())],
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=None,
            pass_fds=[theirs.fileno()],
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        theirs.close()
        self.pid = process.pid
        return process

    @staticmethod
    async def _reap(process: Process) -> None:
        with anyio.move_on_after(5):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def _set_up(self, their_broker: socket.socket) -> None:
        lock = [] if self._options.lock_fd is None else [self._options.lock_fd]
        reply, _ = await self.request(
            "setup",
            fds=[their_broker.fileno(), *lock],
            root=os.geteuid() == 0,
            bare=not self.isolated,
            binds=[[str(path), name] for name, path in self._options.binds.items()],
            nft=self._options.nft,
            ruleset=self._options.ruleset,
        )
        if reply["tree"] is not None:
            self.tree = Path(reply["tree"])

    def _close(self) -> None:
        """Hang up: the helper takes that as the order to end, and the kernel removes what it owned."""
        if self._helper is not None:
            self._helper.close()
        self._helper = None
        while self._sockets:
            self._sockets.pop().close()
        handlers, self._exits = self._exits, {}
        for handler in handlers.values():
            handler(137)

    async def request(self, op: str, *, fds: Sequence[int] = (), **values: Any) -> tuple[Any, list[int]]:
        """Ask the helper for one operation; the caller keeps its descriptors and owns those returned."""
        if self._helper is None:
            raise HelperGoneError("the pod network is not running")
        return await self._helper.request(op, fds=fds, **values)

    def _ended(self, key: str, code: int) -> None:
        handler = self._exits.pop(key, None)
        if handler is not None:
            handler(code)

    async def create(self, pod: str, address: str) -> None:
        """Give a Pod its network and its address."""
        await self.request("create", pod=pod, address=address)

    async def delete(self, pod: str) -> None:
        """Remove a Pod's network; its processes must have ended."""
        await self.request("delete", pod=pod)

    async def renew(self, pod: str) -> None:
        """Give a Pod a fresh network with the same address; no process of it is left."""
        await self.request("renew", pod=pod)

    async def apply_rules(self, ruleset: str) -> None:
        """Load nftables rules in the network of the router between Pods."""
        await self.request("nft", ruleset=ruleset)

    async def memory_volume(self, pod: str, name: str, size: int, owner: int) -> str:
        """Path, for containers' set-up, of a Pod's volume of ``size`` bytes in memory."""
        reply, _ = await self.request("memory", pod=pod, name=name, size=size, owner=owner)
        return str(reply["path"])

    async def part_of_volume(self, pod: str, name: str, root: str, path: str, owner: int) -> str:
        """Path, for containers' set-up, of ``path`` below ``root`` in the tree, reached without following any link.

        Args:
            pod: the Pod.
            name: a name for this part, unique in the Pod.
            root: the volume, relative to ``tree``.
            path: below the volume; made as a directory if it does not exist.
            owner: to whom such a directory belongs, -1 for ourselves.
        """
        reply, _ = await self.request("below", pod=pod, name=name, root=root, path=path, owner=owner)
        return str(reply["path"])

    async def root_of_container(self, pod: str, name: str, lower: str, upper: str, work: str) -> str:
        """Path, for containers' set-up, of a root file system: ``upper`` over the read-only ``lower``.

        Args:
            pod: the Pod.
            name: a name for it, unique in the Pod.
            lower: the image's files, relative to ``tree``, like the two that follow.
            upper: where changes go.
            work: an empty directory beside that, for the kernel.
        """
        reply, _ = await self.request("overlay", pod=pod, name=name, lower=lower, upper=upper, work=work)
        return str(reply["path"])

    async def attach_disk(self, name: str, file: str, owner: int) -> str:
        """Path, for containers' set-up, of the data of a disk.

        Args:
            name: unique among disks; the same disk is attached once.
            file: relative to ``tree``.
            owner: to whom the data of a new disk belongs.
        """
        reply, _ = await self.request("attach", name=name, file=file, owner=owner)
        return str(reply["path"])

    async def detach_disk(self, name: str) -> None:
        """Give a disk back; nobody uses it any more."""
        await self.request("detach", name=name)

    def on_host(self, path: str) -> Path:
        """Where a path of the helper's own mounts is found by this process, for as long as the helper lives."""
        return Path(f"/proc/{self.pid}/root{path}")

    async def listen(self, port: int) -> tuple[socket.socket, socket.socket]:
        """A UDP and a listening TCP socket of the router between Pods, bound to the address that Pods know it by."""
        _, fds = await self.request("listen", address=GATEWAY, port=port)
        udp, tcp = (socket.socket(fileno=fd) for fd in fds)
        return udp, tcp

    async def spawn(
        self,
        key: str,
        pod: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        fds: Mapping[int, int],
        uid: int | None,
        on_exit: ExitHandler,
        cwd: str | None = None,
        cgroups: Sequence[str] = (),
        file_size: int | None = None,
        for_gvisor: bool = False,
    ) -> int:
        """Start a process in a Pod's network.

        Args:
            key: a name for the process, unique while it lives.
            pod: the Pod, as given to ``create``.
            argv: absolute path and arguments.
            env: its whole environment.
            fds: what each of its descriptor numbers is, as descriptor of this process.
            uid: the uid and gid it runs as, None for our own.
            on_exit: called on the event loop with the exit code, once, also when the helper dies (then with 137).
            cwd: its working directory.
            cgroups: ``cgroup.procs`` files of the control groups that it joins first.
            file_size: bytes that one file of its may grow to.
            for_gvisor: give it a mount namespace in which gVisor works.

        Returns:
            Its process id.
        """
        return await self._launch(
            "spawn",
            key,
            on_exit,
            fds,
            (),
            pod=pod,
            argv=list(argv),
            env=dict(env),
            uid=uid,
            cwd=cwd,
            cgroups=list(cgroups),
            file_size=file_size,
            for_gvisor=for_gvisor,
        )

    async def enter(
        self,
        key: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        fds: Mapping[int, int],
        uid: int,
        gid: int,
        on_exit: ExitHandler,
        pidfd: int,
        seccomp_fd: int,
        cwd: str | None = None,
        cgroups: Sequence[str] = (),
        file_size: int | None = None,
    ) -> int:
        """Start a command in all namespaces of the process behind ``pidfd``; otherwise like ``spawn``."""
        return await self._launch(
            "enter",
            key,
            on_exit,
            fds,
            (pidfd, seccomp_fd),
            argv=list(argv),
            env=dict(env),
            uid=uid,
            gid=gid,
            cwd=cwd,
            cgroups=list(cgroups),
            file_size=file_size,
        )

    async def _launch(
        self, op: str, key: str, on_exit: ExitHandler, fds: Mapping[int, int], extra: Sequence[int], **values: Any
    ) -> int:
        if key in self._exits:
            raise HelperError(f"a process called {key} runs already")
        self._exits[key] = on_exit
        passed = [*extra, *fds.values()]
        try:
            with anyio.CancelScope(shield=True):  # a process that was started must not be lost; this takes milliseconds
                reply, _ = await self.request(op, fds=passed, key=key, numbers=list(fds), **values)
        except BaseException:
            self._exits.pop(key, None)
            raise
        pid: int = reply["pid"]
        return pid

    async def kill(self, key: str, signal_number: int) -> None:
        """Signal a process started here; one that has ended already is left in peace."""
        await self.request("kill", key=key, signal=signal_number)

    def reaches(self, host: str) -> bool:
        """Whether an address belongs to a Pod and needs a socket of the pod network."""
        if not self.isolated:
            return False
        try:
            return ipaddress.ip_address(host) in ISOLATED_NETWORK
        except ValueError:
            return False

    def socket_factory(self, address: tuple[Any, ...]) -> socket.socket:
        """An unconnected TCP socket for an address, as ``aiohttp.TCPConnector(socket_factory=...)`` wants it.

        For a Pod's address it is a socket of the pod network, for any other an ordinary one. Takes from the pool and
        does not block; only if the pool is empty does it ask the helper and wait for the answer (about 0.1 ms).
        """
        family, kind, protocol, _, destination = address
        if not self.reaches(str(destination[0])):
            return socket.socket(family, kind, protocol)
        if len(self._sockets) <= _POOL_LOW:
            self._refill.set()
        if self._sockets:
            return self._sockets.popleft()
        return self._ask_broker()

    def _ask_broker(self) -> socket.socket:
        if self._broker is None or self._helper is None:
            raise OSError(errno.ENETDOWN, "the pod network is not running")
        channel.send(self._broker, {})
        try:
            _, fds = channel.receive(self._broker)
        except EOFError as error:
            raise OSError(errno.ENETDOWN, "the pod network's process is gone") from error
        return socket.socket(fileno=fds[0])

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking TCP socket to a Pod.

        Raises:
            OSError: the Pod refused, or is not reachable.
        """
        if not self.reaches(host):
            mine = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        elif self._sockets:
            mine = self._sockets.popleft()
            if len(self._sockets) <= _POOL_LOW:
                self._refill.set()
        else:
            _, fds = await self.request("sockets", count=1)
            mine = socket.socket(fileno=fds[0])
        try:
            mine.setblocking(False)
            with suppress(BlockingIOError):
                mine.connect((host, port))
            await anyio.wait_writable(mine)
            code = mine.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, f"{os.strerror(code)}: {host}:{port}")
        except BaseException:
            mine.close()
            raise
        return mine

    async def _fill_pool(self) -> None:
        missing = _POOL_SIZE - len(self._sockets)
        if missing <= 0 or not self.isolated:
            return
        _, fds = await self.request("sockets", count=missing)
        self._sockets.extend(socket.socket(fileno=fd) for fd in fds)

    async def _refill_forever(self) -> None:
        while True:
            await self._refill.wait()
            self._refill = anyio.Event()
            await self._fill_pool()


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What really happened, out of the wrapping that a task group adds."""
    first = group.exceptions[0]
    return _cause(first) if isinstance(first, BaseExceptionGroup) else first
