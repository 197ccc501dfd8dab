"""The pod network seen from the node: starts the helper or takes it over, asks it for networks, processes and sockets.

In flow requests of the node's rooms and destinations to connect to; out flow connected sockets and exit codes. Nothing
here blocks the event loop: the channel is non-blocking and sockets for outgoing connections wait in a small pool,
filled ahead of use. Pods are reachable through ``socket_factory`` and ``connect`` only; the host has no route to them.
"""

import errno
import hashlib
import ipaddress
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
from anyio.abc import TaskStatus

from agent_sandbox.local.node.addresses import ISOLATED_NETWORK
from agent_sandbox.local.node.errors import HelperError, HelperGoneError
from agent_sandbox.local.node.helper import channel
from agent_sandbox.local.node.helper.namespaces import GATEWAY
from agent_sandbox.local.node.helper_client import HelperClient
from agent_sandbox.local.node.helper_process import HelperProcess, source_digest

_POOL_SIZE: Final = 64
_POOL_LOW: Final = 32
_BROKER_TIMEOUT: Final = 2.0
_ADOPTION_TIMEOUT: Final = 10.0
_KILLED: Final = 137


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: its exit code; 128 plus the signal for a killed one.
        said: the beginning of its error output, if that goes to a log.
    """

    code: int
    said: bytes = b""


ExitHandler = Callable[[Ended], None]
"""Called on the event loop, once, after all that the process printed is in its log."""


@dataclass(frozen=True)
class NetworkOptions:
    """How the helper runs.

    Attributes:
        binds: host directories to show to Pods' set-up, by their name in the tree.
        nft: path of the ``nft`` program.
        ruleset: the rules to begin with.
        isolated: False runs Pods as bare processes in the host's own network.
        state: the directory in which the next node finds the helper and its Pods after a crash; None: they end with
            this node.
        patience: seconds that they wait for it.
    """

    binds: Mapping[str, Path] = field(default_factory=dict)
    nft: str = "/usr/sbin/nft"
    ruleset: str = ""
    isolated: bool = True
    state: Path | None = None
    patience: float = 0.0

    @property
    def revision(self) -> str:
        """What a helper is set up for: one that was set up for something else is not taken over."""
        binds = sorted((name, str(path)) for name, path in self.binds.items())
        meant = repr((source_digest(), binds, self.nft, self.ruleset, self.isolated))
        return hashlib.sha256(meant.encode()).hexdigest()


@dataclass(frozen=True)
class Output:
    """Where the helper writes what a process prints.

    Attributes:
        directory: of its log, which exists.
        name: of the log.
        pipes: the ends to read, by ``stdout`` and ``stderr``; a terminal's other side as ``stdout`` alone.
    """

    directory: Path
    name: str
    pipes: Mapping[str, int]


@dataclass(frozen=True)
class Lasting:
    """What makes a process outlive this node.

    Attributes:
        about: what the next node is told about it; nobody else sees it.
        input: the end of its input, or its terminal's other side, which must not close when this node dies.
        replaces: key of the process that ran before, of which nobody will ask any more.
    """

    about: bytes
    input: int | None = None
    replaces: str = ""


@dataclass(frozen=True)
class Started:
    """A process that was started.

    Attributes:
        pid: its process id; of a container in bwrap, that of its first process, or 0 if it ended before it had one.
        pidfd: a descriptor of that process, which belongs to the receiver; None if it has ended.
    """

    pid: int
    pidfd: int | None


@dataclass(frozen=True)
class Survivor:
    """A lasting process of an earlier node.

    Attributes:
        key: its key.
        pod: its Pod.
        started: Unix time of its start.
        process: the process.
        about: what its node left for us.
        input: the end of its input, if it has one, which belongs to the receiver.
        ended: how it ended, if it has.
    """

    key: str
    pod: str
    started: float
    process: Started
    about: bytes
    input: int | None
    ended: Ended | None

    def close(self) -> None:
        """Give its descriptors back."""
        for fd in (self.process.pidfd, self.input):
            if fd is not None:
                os.close(fd)


class PodNetwork:
    """The helper, one after another: the object stays, so that others may hold it, while ``run`` may be called again.

    Flow: ``run`` takes a helper over or starts one, reports through ``task_status`` once its namespaces stand, and
    serves until cancelled, which ends the helper and all that lives in it, or until the helper dies.

    Errors: every request raises ``HelperError`` if it was refused and ``HelperGoneError`` if the helper is gone.
    """

    def __init__(self) -> None:
        self._options = NetworkOptions()
        self._helper: HelperClient | None = None
        self._broker: socket.socket | None = None
        self._exits: dict[str, ExitHandler] = {}
        self._sockets: deque[socket.socket] = deque()
        self._refill = anyio.Event()
        self._generation = 0
        self._numbers = count(1)
        self.tree = Path("/")
        """Where the helper shows the directories of ``options.binds``."""
        self.pid = 0
        """Process id of the helper."""
        self.networks: Mapping[str, str] = {}
        """Pods that had a network when the helper was taken over, and their addresses."""

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
        broker, their_broker = channel.pair()
        broker.settimeout(_BROKER_TIMEOUT)
        self._broker = broker
        try:
            found = HelperProcess.find(options.state) if options.state is not None else None
            if found is not None and await self._run_with(found, "adopt", their_broker, task_status):
                return
            started = await HelperProcess.start(options.state)
            await self._run_with(started, "setup", their_broker, task_status)
        finally:
            for end in (broker, their_broker):
                end.close()

    async def _run_with(
        self, process: HelperProcess, op: str, their_broker: socket.socket, task_status: TaskStatus[None]
    ) -> bool:
        """Serve until cancelled; False if the helper was of no use, and has ended."""
        helper = self._helper = HelperClient(process.control)
        self.pid = process.pid
        usable = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(helper.receive_forever, self._ended, name="pod network: replies")
                usable = await self._set_up(op, their_broker)
                if usable:
                    their_broker.close()
                    await self._fill_pool()
                    task_status.started()
                    await self._refill_forever()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as failed:
            if op == "setup" or usable:
                raise _cause(failed) from None
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(process)
        return usable

    async def _set_up(self, op: str, their_broker: socket.socket) -> bool:
        """Whether the helper does now what we want."""
        options = self._options
        with anyio.fail_after(_ADOPTION_TIMEOUT):
            reply, _ = await self.request(
                op,
                fds=[their_broker.fileno()],
                revision=options.revision,
                patience=options.patience,
                root=os.geteuid() == 0,
                bare=not self.isolated,
                binds=[[str(path), name] for name, path in options.binds.items()],
                nft=options.nft,
                ruleset=options.ruleset,
            )
        self.tree = Path(reply["tree"] or "/")
        self.networks = reply["networks"]
        self._generation = reply["generation"]
        return bool(reply["revision"] == options.revision)

    async def _end(self, process: HelperProcess) -> None:
        """End the helper; the kernel removes what it owned."""
        process.remember_descendants()
        if self._helper is not None:
            await self._helper.order("end")
            self._helper.close()
        self._helper = None
        while self._sockets:
            self._sockets.pop().close()
        handlers, self._exits = self._exits, {}
        for handler in handlers.values():
            handler(Ended(_KILLED))
        await process.until_ended()
        process.close()

    async def request(self, op: str, *, fds: Sequence[int] = (), **values: Any) -> tuple[Any, list[int]]:
        """Ask the helper for one operation; the caller keeps its descriptors and owns those returned."""
        if self._helper is None:
            raise HelperGoneError("the pod network is not running")
        return await self._helper.request(op, fds=fds, **values)

    def _ended(self, key: str, code: int, said: str) -> None:
        handler = self._exits.pop(key, None)
        if handler is not None:
            handler(Ended(code, said.encode("latin-1")))

    def new_key(self, pod: str) -> str:
        """A name for a process of a Pod that no process has or had, of an earlier node neither."""
        return f"{pod}/{self._generation}.{next(self._numbers)}"

    # Pods of an earlier node

    async def survivors(self, of: str = "") -> list[Survivor]:
        """Lasting processes, living or ended, of a Pod or of all, in the order of their start.

        Who asks owns their descriptors, and gives each to ``follow`` or ``forget``.
        """
        keys: list[list[str]] = []
        while page := (await self.request("lasting", after=keys[-1][0] if keys else ""))[0]["processes"]:
            keys += page
        found = [await self._survivor(key, pod) for key, pod in keys if not of or pod == of]
        return sorted(found, key=lambda survivor: survivor.started)

    async def _survivor(self, key: str, pod: str) -> Survivor:
        reply, fds = await self.request("process", key=key)
        given = dict(zip(reply["given"], fds, strict=True))
        about = b""
        if "about" in given:
            with os.fdopen(given["about"], "rb") as file:
                about = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
        ended = None if reply["code"] is None else Ended(reply["code"], reply["said"].encode("latin-1"))
        process = Started(reply["pid"], given.get("pidfd"))
        return Survivor(key, pod, reply["started"], process, about, given.get("input"), ended)

    async def follow(self, key: str, on_exit: ExitHandler) -> None:
        """Be told how a process of an earlier node ends, or ended."""
        self._exits[key] = on_exit
        try:
            reply, fds = await self.request("process", key=key)
        except BaseException:
            self._exits.pop(key, None)
            raise
        for fd in fds:
            os.close(fd)
        if reply["code"] is not None:
            self._ended(key, reply["code"], reply["said"])

    async def forget(self, key: str) -> None:
        """Nobody will ask for a lasting process again; it is killed if it lives."""
        await self.request("forget", key=key)

    async def keep(self, name: str, *fds: int) -> None:
        """Let the helper hold descriptors for the next node, instead of those of that name before."""
        await self.request("keep", name=name, fds=fds)

    async def kept(self, name: str) -> list[int]:
        """Copies of descriptors that an earlier node, or we, let the helper hold; they belong to the caller."""
        _, fds = await self.request("kept", name=name)
        return fds

    # Pods

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

    async def root_of_container(
        self, pod: str, name: str, lower: str, upper: str, work: str, *, read_only: bool
    ) -> str:
        """Path, for containers' set-up, of a root file system: ``upper`` over the read-only ``lower``.

        Args:
            pod: the Pod.
            name: a name for it, unique in the Pod.
            lower: the image's files, relative to ``tree``, like the two that follow.
            upper: where changes go.
            work: an empty directory beside that, for the kernel.
            read_only: the runtime will show it so.
        """
        reply, _ = await self.request(
            "overlay", pod=pod, name=name, lower=lower, upper=upper, work=work, read_only=read_only
        )
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
        info: int | None = None,
        output: Output | None = None,
        lasting: Lasting | None = None,
    ) -> Started:
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
            info: the descriptor number on which bwrap tells its child; that child is then what is returned.
            output: where the helper writes what it prints; without, nobody reads that but the caller.
            lasting: let it outlive this node; without, it ends with us.
        """
        more = _more(output, lasting)
        try:
            reply, given = await self._launch(
                "spawn",
                key,
                on_exit,
                [*fds.values(), *more.values()],
                pod=pod,
                numbers=list(fds),
                more=list(more),
                log=output.name if output is not None else "",
                info=info,
                lasting=lasting is not None,
                replaces=lasting.replaces if lasting is not None else "",
                argv=list(argv),
                env=dict(env),
                uid=uid,
                cwd=cwd,
                cgroups=list(cgroups),
                file_size=file_size,
                for_gvisor=for_gvisor,
            )
        finally:
            for name in ("log", "about"):
                if name in more:
                    os.close(more[name])
        return Started(reply["pid"], given[0] if given else None)

    async def enter(
        self,
        key: str,
        pod: str,
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
    ) -> None:
        """Start a command in all namespaces of the process behind ``pidfd``; otherwise like ``spawn``."""
        await self._launch(
            "enter",
            key,
            on_exit,
            [pidfd, seccomp_fd, *fds.values()],
            pod=pod,
            numbers=list(fds),
            argv=list(argv),
            env=dict(env),
            uid=uid,
            gid=gid,
            cwd=cwd,
            cgroups=list(cgroups),
            file_size=file_size,
        )

    async def _launch(
        self, op: str, key: str, on_exit: ExitHandler, fds: Sequence[int], **values: Any
    ) -> tuple[Any, list[int]]:
        if key in self._exits:
            raise HelperError(f"a process called {key} runs already")
        self._exits[key] = on_exit
        try:
            with anyio.CancelScope(shield=True):  # a process that was started must not be lost; this takes milliseconds
                answer = await self.request(op, fds=fds, key=key, **values)
        except BaseException:
            self._exits.pop(key, None)
            raise
        return answer

    async def listen_to(self, key: str, stdout: int, stderr: int) -> None:
        """Copy what a process prints from now on into two pipes, until it ends; what does not fit is lost to them."""
        await self.request("listen_to", key=key, fds=[stdout, stderr])

    async def close_input(self, key: str) -> None:
        """Let a process see the end of its input: the helper holds it open no longer."""
        await self.request("close_input", key=key)

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
        if not 0 < port < 1 << 16:
            raise OSError(errno.EADDRNOTAVAIL, f"there is no port {port}: ports go from 1 to 65535")
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


def _more(output: Output | None, lasting: Lasting | None) -> dict[str, int]:
    """Further descriptors for the helper by name; ``log`` and ``about`` are opened here."""
    more = dict(output.pipes) if output is not None else {}
    if lasting is not None and lasting.input is not None:
        more["input"] = lasting.input
    if output is not None:
        more["log"] = os.open(output.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if lasting is not None:
        more["about"] = memory_file("about", lasting.about)
    return more


def memory_file(name: str, data: bytes) -> int:
    """A file in memory that holds ``data``; its descriptor, at the beginning and closed on exec."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What really happened, out of the wrapping that a task group adds."""
    first = group.exceptions[0]
    return _cause(first) if isinstance(first, BaseExceptionGroup) else first
