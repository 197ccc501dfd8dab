"""The helper's loop: answers requests one after another, and tells when a process ends.

Flow: ``main`` waits for ``setup``, makes the namespaces, then serves until the control channel closes. The broker
channel carries one kind of request only, "give me a socket", answered at once; it exists so that a caller in a hurry
need not wait its turn among other replies.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent_sandbox.local.node.helper import channel, namespaces, spawn
from agent_sandbox.local.node.helper.channel import Message
from agent_sandbox.local.node.helper.disks import Disks
from agent_sandbox.local.node.helper.mounts import PodMounts

Reply = tuple[Any, list[int]]


class Helper:
    """State of the helper: the Pods' networks and the processes it started."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._router: namespaces.Router | None = None
        self._mounts: PodMounts | None = None
        self._empty_directory = ""
        self._disks: Disks | None = None
        self._nft = ""
        self._kept: list[int] = []
        self._processes: dict[str, int] = {}
        self._operations: dict[str, Callable[[Message, list[int]], Reply]] = {
            "setup": self._setup,
            "create": self._create,
            "delete": self._delete,
            "renew": self._renew,
            "spawn": self._spawn,
            "enter": self._enter,
            "kill": self._kill,
            "sockets": self._sockets,
            "nft": self._apply_nft,
            "listen": self._listen,
            "memory": self._memory,
            "below": self._below,
            "overlay": self._overlay,
            "attach": self._attach,
            "detach": self._detach,
        }

    def serve(self) -> None:
        """Answer until the other end of the control channel closes."""
        self._selector.register(self._control, selectors.EVENT_READ, self._answer)
        try:
            while True:
                for key, _ in self._selector.select():
                    key.data(key.fileobj)
        except (EOFError, ConnectionError):
            return  # the node has hung up, or died

    def _answer(self, control: socket.socket) -> None:
        request, fds = channel.receive(control)
        given: list[int] = []
        reply: Message = {"id": request["id"]}
        try:
            reply["result"], given = self._operations[request["op"]](request, fds)
        except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            code = getattr(error, "errno", None)
            reply["error"] = {"errno": code or 0, "message": getattr(error, "strerror", None) or repr(error)}
        finally:
            for fd in fds:
                os.close(fd)
        channel.send(control, reply, given)
        for fd in given:
            os.close(fd)

    def _setup(self, request: Message, fds: list[int]) -> Reply:
        broker = socket.socket(fileno=os.dup(fds[0]))
        self._kept = [os.dup(fd) for fd in fds[1:]]  # the lock that says "a helper lives"
        self._selector.register(broker, selectors.EVENT_READ, self._broker)
        if request["bare"]:
            return {"tree": None}, []
        namespaces.enter(root=request["root"])
        tree = namespaces.mount_tree([(source, name) for source, name in request["binds"]])
        self._mounts = PodMounts(tree, privileged=request["root"])
        self._disks = Disks(tree)
        self._empty_directory = f"{tree}/empty"
        Path(self._empty_directory).mkdir(0o700)
        self._router = namespaces.Router()
        self._nft = request["nft"]
        self._run_nft(request["ruleset"])
        return {"tree": tree}, []

    def _broker(self, broker: socket.socket) -> None:
        try:
            channel.receive(broker)
        except EOFError:
            self._selector.unregister(broker)
            return
        _, given = self._sockets({"count": 1}, [])
        channel.send(broker, {}, given)
        os.close(given[0])

    def _create(self, request: Message, _: list[int]) -> Reply:
        if self._router is not None:
            self._router.create(request["pod"], request["address"])
        return {}, []

    def _delete(self, request: Message, _: list[int]) -> Reply:
        if self._router is not None:
            self._router.delete(request["pod"])
        if self._mounts is not None:
            self._mounts.remove(request["pod"])
        return {}, []

    def _renew(self, request: Message, _: list[int]) -> Reply:
        assert self._router is not None, "Pods without walls have no network of their own"
        self._router.renew(request["pod"])
        return {}, []

    def _program(self, request: Message, fds: Sequence[int]) -> spawn.Program:
        return spawn.Program(
            argv=request["argv"],
            env=request["env"],
            fds=list(zip(fds, request["numbers"], strict=True)),
            cwd=request.get("cwd"),
            cgroups=request.get("cgroups", ()),
            file_size=request.get("file_size"),
            proc=self._empty_directory if request.get("for_gvisor") else None,
        )

    def _spawn(self, request: Message, fds: list[int]) -> Reply:
        netns = self._router.netns(request["pod"]) if self._router is not None else None
        pid = spawn.start(self._program(request, fds), netns=netns, uid=request["uid"])
        self._remember(request["key"], pid)
        return {"pid": pid}, []

    def _enter(self, request: Message, fds: list[int]) -> Reply:
        pidfd, filter_fd, *rest = fds
        seccomp = os.pread(filter_fd, 1 << 16, 0)
        pid = spawn.enter(
            self._program(request, rest), pidfd=pidfd, ids=(request["uid"], request["gid"]), seccomp=seccomp
        )
        self._remember(request["key"], pid)
        return {"pid": pid}, []

    def _remember(self, key: str, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._processes[key] = pid

        def ended(_: object) -> None:
            self._selector.unregister(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(pid, 0)
            del self._processes[key]
            channel.send(self._control, {"event": "exit", "key": key, "code": spawn.exit_code(status)})

        self._selector.register(pidfd, selectors.EVENT_READ, ended)

    def _kill(self, request: Message, _: list[int]) -> Reply:
        # The process is our unreaped child for as long as its key is known, so its number cannot mean another one.
        pid = self._processes.get(request["key"])
        if pid is not None:
            os.kill(pid, request["signal"])
        return {"known": pid is not None}, []

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
        return {"path": self._mounts.overlay(request["pod"], request["name"], *layers)}, []

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
        self._run_nft(request["ruleset"])
        return {}, []

    def _run_nft(self, ruleset: str) -> None:
        done = subprocess.run(  # noqa: S603 - our own rules to a fixed program
            [self._nft, "-f", "-"], input=ruleset, text=True, capture_output=True, timeout=10, check=False
        )
        if done.returncode != 0:
            raise OSError(f"nft refused the rules: {done.stderr.strip()}")


def main(control_fd: int) -> None:
    """Serve on an inherited descriptor until it closes."""
    # A Ctrl-C at the terminal reaches the whole foreground group: the node decides what to stop, in which order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    Helper(control).serve()
    sys.exit(0)
