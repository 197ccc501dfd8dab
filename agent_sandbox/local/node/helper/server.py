"""The helper's loop: answers requests one after another, writes down what containers print, and tells how they end.

Flow: ``main`` waits for ``setup``, makes the namespaces, then serves. The broker channel carries one kind of request
only, "give me a socket", answered at once; it exists so that a caller in a hurry need not wait its turn among other
replies.

When the control channel closes without ``end``, the node has died. If Pods live, the helper keeps them for a while and
listens for the next node (``adopt``); otherwise, or when nobody came, it ends, and all of them with it.
"""

import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent_sandbox.local.node.helper import channel, namespaces, spawn
from agent_sandbox.local.node.helper.channel import Message
from agent_sandbox.local.node.helper.disks import Disks
from agent_sandbox.local.node.helper.mounts import PodMounts
from agent_sandbox.local.node.helper.nftables import Load, find_loader
from agent_sandbox.local.node.helper.output import LogFile
from agent_sandbox.local.node.helper.processes import Process, Processes, ending

Reply = tuple[Any, list[int]]
Answer = Callable[[Message, list[int]], Reply | None]
"""Request and its descriptors to result and descriptors; None if the reply comes later."""


class Helper:
    """State of the helper: the Pods' networks and the processes it started."""

    def __init__(self, control: socket.socket, listener: socket.socket | None) -> None:
        """
        Args:
            control: the channel to the node that started us.
            listener: where a later node may come in; None: Pods end with their node.
        """
        self._control: socket.socket | None = None
        self._listener = listener
        self._patience = 0.0
        self._deadline = 0.0
        self._revision = ""
        self._generation = 0
        self._selector = selectors.DefaultSelector()
        self._processes = Processes(self._selector, self._tell)
        self._router: namespaces.Router | None = None
        self._mounts: PodMounts | None = None
        self._broker: socket.socket | None = None
        self._tree: str | None = None
        self._empty_directory = ""
        self._disks: Disks | None = None
        self._load_rules: Load | None = None
        self._kept: dict[str, list[int]] = {}
        self._ends = False
        self._operations: dict[str, Answer] = {
            "setup": self._setup,
            "adopt": self._adopt,
            "end": self._end,
            "keep": self._keep,
            "kept": self._give_kept,
            "create": self._create,
            "delete": self._delete,
            "renew": self._renew,
            "spawn": self._spawn,
            "enter": self._enter,
            "kill": self._kill,
            "lasting": self._lasting,
            "process": self._process,
            "forget": self._forget,
            "close_input": self._close_input,
            "listen_to": self._listen_to,
            "sockets": self._sockets,
            "nft": self._apply_nft,
            "listen": self._listen,
            "memory": self._memory,
            "below": self._below,
            "overlay": self._overlay,
            "attach": self._attach,
            "detach": self._detach,
        }
        self._follow(control)
        if listener is not None:
            self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Answer until a node says that it is over, or died and no other came."""
        while not self._ends:
            for key, _ in self._selector.select(self._until_next()):
                if self._selector.get_map().get(key.fd) is key:  # not closed meanwhile by another's turn
                    key.data(key.fileobj)
            self._processes.tick()
            if self._control is None and time.monotonic() >= self._deadline:
                return

    def _until_next(self) -> float | None:
        waits = [self._processes.patience()]
        if self._control is None:
            waits.append(max(0.0, self._deadline - time.monotonic()))
        return min((wait for wait in waits if wait is not None), default=None)

    # The node at the other end

    def _follow(self, control: socket.socket) -> None:
        self._control = control
        self._generation += 1
        self._selector.register(control, selectors.EVENT_READ, self._answer)

    def _hung_up(self) -> None:
        """The node has died: keep its Pods for the next one, if there are any and somebody may come."""
        for end in (self._control, self._broker):
            if end is not None:
                self._selector.unregister(end)
                end.close()
        self._control = self._broker = None
        self._processes.end_those_of_the_node()
        waits = self._listener is not None and self._processes.any_lives
        self._deadline = time.monotonic() + (self._patience if waits else 0.0)

    def _accept(self, listener: socket.socket) -> None:
        control, _ = listener.accept()
        channel.widen(control)
        _, uid, _ = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in {0, os.getuid()}:
            control.close()
            return
        if self._control is not None:  # it is dead, though we have not read so yet: who comes has the directory's lock
            self._hung_up()
        self._follow(control)

    def _answer(self, control: socket.socket) -> None:
        try:
            request, fds = channel.receive(control)
        except (EOFError, ConnectionError):
            self._hung_up()
            return
        try:
            reply = self._operations[request["op"]](request, fds)
        except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            code = getattr(error, "errno", None)
            message = getattr(error, "strerror", None) or repr(error)
            self._tell({"id": request["id"], "error": {"errno": code or 0, "message": message}})
        else:
            if reply is not None:
                self._reply(request, *reply)
        finally:
            for fd in fds:
                os.close(fd)

    def _reply(self, request: Message, result: Any, given: Sequence[int] = ()) -> None:
        self._tell({"id": request["id"], "result": result}, given)
        for fd in given:
            os.close(fd)

    def _tell(self, message: Message, given: Sequence[int] = ()) -> None:
        if self._control is None:
            return
        try:
            channel.send(self._control, message, given)
        except ConnectionError:
            self._hung_up()

    def _setup(self, request: Message, fds: list[int]) -> Reply:
        self._revision = request["revision"]
        self._patience = request["patience"]
        self._hear_broker(fds[0])
        if request["bare"]:
            return self._state(), []
        namespaces.enter(root=request["root"])
        self._tree = tree = namespaces.mount_tree([(source, name) for source, name in request["binds"]])
        self._mounts = PodMounts(tree, privileged=request["root"])
        self._disks = Disks(tree)
        self._empty_directory = f"{tree}/empty"
        Path(self._empty_directory).mkdir(0o700)
        self._router = namespaces.Router()
        self._load_rules = find_loader(request["nft"])
        self._apply(request["ruleset"])
        return self._state(), []

    def _adopt(self, request: Message, fds: list[int]) -> Reply:
        """A later node takes over, if it means the same as the one that set us up."""
        if request["revision"] == self._revision:
            self._patience = request["patience"]
            self._hear_broker(fds[0])
        return self._state(), []

    def _state(self) -> Message:
        networks = self._router.networks if self._router is not None else {}
        return {
            "revision": self._revision,
            "tree": self._tree,
            "generation": self._generation,
            "networks": networks,
        }

    def _hear_broker(self, fd: int) -> None:
        self._broker = socket.socket(fileno=os.dup(fd))
        self._selector.register(self._broker, selectors.EVENT_READ, self._give_socket)

    def _end(self, request: Message, fds: list[int]) -> None:
        self._ends = True

    def _keep(self, request: Message, fds: list[int]) -> Reply:
        """Hold descriptors for the next node; those of that name before are closed."""
        for fd in self._kept.pop(request["name"], ()):
            os.close(fd)
        if fds:
            self._kept[request["name"]] = [os.dup(fd) for fd in fds]
        return {}, []

    def _give_kept(self, request: Message, _: list[int]) -> Reply:
        return {}, [os.dup(fd) for fd in self._kept.get(request["name"], ())]

    def _give_socket(self, broker: socket.socket) -> None:
        try:
            channel.receive(broker)
            _, given = self._sockets({"count": 1}, [])
            channel.send(broker, {}, given)
            os.close(given[0])
        except (EOFError, ConnectionError):
            self._selector.unregister(broker)
            broker.close()
            self._broker = None

    # Pods and their processes

    def _create(self, request: Message, _: list[int]) -> Reply:
        if self._router is not None:
            self._router.create(request["pod"], request["address"])
        return {}, []

    def _delete(self, request: Message, _: list[int]) -> Reply:
        self._processes.forget_all(request["pod"])
        if self._router is not None:
            self._router.delete(request["pod"])
        if self._mounts is not None:
            self._mounts.remove(request["pod"])
        return {}, []

    def _renew(self, request: Message, _: list[int]) -> Reply:
        assert self._router is not None, "Pods without walls have no network of their own"
        self._router.renew(request["pod"])
        return {}, []

    def _program(self, request: Message, fds: Sequence[int], more: Sequence[tuple[int, int]] = ()) -> spawn.Program:
        return spawn.Program(
            argv=request["argv"],
            env=request["env"],
            fds=[*zip(fds, request["numbers"], strict=True), *more],
            cwd=request.get("cwd"),
            cgroups=request.get("cgroups", ()),
            file_size=request.get("file_size"),
            proc=self._empty_directory if request.get("for_gvisor") else None,
        )

    def _spawn(self, request: Message, fds: list[int]) -> Reply | None:
        count = len(request["numbers"])
        more = dict(zip(request["more"], fds[count:], strict=True))
        pipes = {name: more[name] for name in ("stdout", "stderr") if name in more}
        log = LogFile(more["log"], request["log"]) if pipes else None
        tells_first, told = os.pipe() if request["info"] is not None else (-1, -1)
        program = self._program(request, fds[:count], [] if told == -1 else [(told, request["info"])])
        netns = self._router.netns(request["pod"]) if self._router is not None else None
        try:
            pid = spawn.start(program, netns=netns, uid=request["uid"])
        except OSError:
            if log is not None:
                log.abandon()
            if tells_first != -1:
                os.close(tells_first)
            raise
        finally:
            if told != -1:
                os.close(told)
        process = self._processes.add(request["key"], request["pod"], pid, lasting=request["lasting"])
        self._processes.keep(process, more)
        if log is not None:
            self._processes.write_down(process, log, pipes)
        if request["replaces"]:
            self._processes.forget(request["replaces"])
        if tells_first == -1:
            return _started(process)
        asker = self._generation

        def reply() -> None:
            if asker == self._generation:  # not to the next node, which has asked something else
                self._reply(request, *_started(process))

        self._processes.await_first(process, tells_first, reply)
        return None

    def _enter(self, request: Message, fds: list[int]) -> Reply:
        pidfd, filter_fd, *rest = fds
        seccomp = os.pread(filter_fd, 1 << 16, 0)
        ids = (request["uid"], request["gid"])
        pid = spawn.enter(self._program(request, rest), pidfd=pidfd, ids=ids, seccomp=seccomp)
        self._processes.add(request["key"], request["pod"], pid, lasting=False)
        return {"pid": pid}, []

    def _kill(self, request: Message, _: list[int]) -> Reply:
        return {"known": self._processes.kill(request["key"], request["signal"])}, []

    def _lasting(self, request: Message, _: list[int]) -> Reply:
        return {"processes": self._processes.lasting(request["after"])}, []

    def _process(self, request: Message, _: list[int]) -> Reply:
        process = self._processes.find(request["key"])
        result, given = _started(process)
        for name in ("about", "input"):
            fd = getattr(process, name)
            if fd != -1:
                result["given"].append(name)
                given.append(os.dup(fd))
        return {**result, **ending(process), "started": process.started}, given

    def _forget(self, request: Message, _: list[int]) -> Reply:
        self._processes.forget(request["key"])
        return {}, []

    def _close_input(self, request: Message, _: list[int]) -> Reply:
        self._processes.find(request["key"]).close_input()
        return {}, []

    def _listen_to(self, request: Message, fds: list[int]) -> Reply:
        output = self._processes.find(request["key"]).output
        if output is not None:
            output.listen(*(os.dup(fd) for fd in fds))
        return {}, []

    def _sockets(self, request: Message, _: list[int]) -> Reply:
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        return {}, [socket.socket(socket.AF_INET, kind).detach() for _ in range(request["count"])]

    def _memory(self, request: Message, _: list[int]) -> Reply:
        assert self._mounts is not None, "Pods without walls have no volumes"
        return {"path": self._mounts.memory(request["pod"], request["name"], request["size"], request["owner"])}, []

    def _below(self, request: Message, _: list[int]) -> Reply:
        assert self._mounts is not None, "Pods without walls have no volumes"
        path = self._mounts.below(request["pod"], request["name"], request["root"], request["path"], request["owner"])
        return {"path": path}, []

    def _overlay(self, request: Message, _: list[int]) -> Reply:
        assert self._mounts is not None, "Pods without walls have no root file system"
        layers = (request["lower"], request["upper"], request["work"])
        return {
            "path": self._mounts.overlay(request["pod"], request["name"], *layers, read_only=request["read_only"])
        }, []

    def _attach(self, request: Message, _: list[int]) -> Reply:
        assert self._disks is not None, "Pods without walls have no volumes"
        return {"path": self._disks.attach(request["name"], request["file"], request["owner"])}, []

    def _detach(self, request: Message, _: list[int]) -> Reply:
        if self._disks is not None:
            self._disks.detach(request["name"])
        return {}, []

    def _listen(self, request: Message, _: list[int]) -> Reply:
        place = (request["address"], request["port"])
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.bind(place)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        tcp.bind(place)
        tcp.listen()
        return {}, [udp.detach(), tcp.detach()]

    def _apply_nft(self, request: Message, _: list[int]) -> Reply:
        self._apply(request["ruleset"])
        return {}, []

    def _apply(self, ruleset: str) -> None:
        assert self._load_rules is not None, "Pods without walls have no rules"
        if failure := self._load_rules(ruleset):
            raise OSError(f"nft refused the rules: {failure}")


def _started(process: Process) -> tuple[dict[str, Any], list[int]]:
    """What a node must know of a process: the container's first one and its descriptor, while it lives."""
    if process.first_fd != -1:
        fds = [os.dup(process.first_fd)]
    elif process.pidfd != -1 and process.first == process.pid:
        fds = [os.dup(process.pidfd)]
    else:
        fds = []
    return {"pid": process.first, "given": ["pidfd"] if fds else []}, fds


def main(control_fd: int, listener_fd: int = -1, lock_fd: int = -1) -> None:
    """Serve on inherited descriptors.

    Args:
        control_fd: the control channel.
        listener_fd: a bound socket on which a later node may come in; without, Pods end with their node.
        lock_fd: a locked file, kept open while we live.
    """
    # A Ctrl-C at the terminal reaches the whole foreground group: the node decides what to stop, in which order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for fd in (control_fd, listener_fd, lock_fd):
        if fd != -1:
            os.set_inheritable(fd, False)
    listener = None
    if listener_fd != -1:
        listener = socket.socket(fileno=listener_fd)
        listener.listen()  # here, so that who connects is told our process id as that of his peer
    Helper(socket.socket(fileno=control_fd), listener).serve()
    sys.exit(0)
