"""The pod network's way to the world: one ``slirp4netns`` for all Pods, run as this node's own user.

It gives the router between Pods an interface whose packets become ordinary connections of this machine, made by an
ordinary process: no interface, route or firewall rule appears in the host's own network, and root is not needed. What
may pass is decided by the router's rules (``ruleset.py``). Without the program Pods reach nothing outside the stack;
it is looked for again now and then, so that installing it is enough.
"""

import os
import select
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Final

import anyio
import anyio.to_thread
import structlog
from anyio.abc import Process

from agent_sandbox.clock import Clock
from agent_sandbox.local.node.errors import HelperError, HelperGoneError
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.ruleset import OUTSIDE

log = structlog.get_logger(__name__)

INSTALL: Final = "apt-get install slirp4netns"

_SEARCH: Final = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin"
_TUN: Final = "/dev/net/tun"
_NETWORK: Final = "198.18.255.0/25"
"""Addresses between the router and the program; nobody outside has them, since they are for benchmarks."""

_MTU: Final = 65520
_READY_TIMEOUT: Final = 10.0
_STOP_TIMEOUT: Final = 2.0
_MESSAGE_BYTES: Final = 1000
_KEPT: Final = "egress"
"""What the helper holds for us, so that the way out outlives this node with the Pods that use it."""


class Egress:
    """Keeps the way to the world open as long as one pod network lives.

    Attributes:
        problem: why there is none, and what to do; empty while there is one.
    """

    def __init__(self, network: PodNetwork, clock: Clock, retry_period: float) -> None:
        """
        Args:
            network: the pod network.
            clock: paces the attempts.
            retry_period: seconds between two of them.
        """
        self._network = network
        self._clock = clock
        self._retry_period = retry_period
        self.problem = "not tried yet"

    async def run(self, tried: Callable[[], None]) -> None:
        """Run the program, again whenever it ends, until cancelled.

        Args:
            tried: called once the first attempt has succeeded or failed.
        """
        while True:
            problem = await anyio.to_thread.run_sync(why_not)
            if not problem:
                problem = await self._run_program(tried)
            if problem != self.problem:
                log.info("Pods have no way out of the stack", reason=problem)
            self.problem = problem
            tried()
            await self._clock.sleep(self._retry_period)

    async def _run_program(self, ready: Callable[[], None]) -> str:
        """Run it to its end, or that of an earlier node if it still runs; why it ended."""
        program = await self._find()
        if program is None:
            program = await self._start()
        try:
            await self._network.keep(_KEPT, *program.fds)
            if program.works or await program.until_ready():
                self.problem = ""
                log.info("Pods have a way out of the stack, for those whose policies allow it")
                ready()
                await program.until_ended()
        finally:
            with anyio.CancelScope(shield=True):
                with suppress(HelperError, HelperGoneError):
                    await self._network.keep(_KEPT)
                last_words = await program.end()
        return last_words

    async def _find(self) -> "_Program | None":
        """What an earlier node started; it runs as long as somebody holds its other end open, which the helper does."""
        fds = await self._network.kept(_KEPT)
        if not fds:
            return None
        program = _Program(*fds, works=True)
        if program.has_ended:
            await program.end()
            return None
        return program

    async def _start(self) -> "_Program":
        path = shutil.which("slirp4netns", path=_SEARCH)
        assert path is not None, "why_not has looked"
        ready_read, ready_write = os.pipe()
        end_read, end_write = os.pipe()
        said = os.memfd_create("slirp4netns", os.MFD_CLOEXEC)
        os.set_blocking(ready_read, False)
        try:
            with anyio.CancelScope(shield=True):  # one that was started must not be lost
                process = await anyio.open_process(
                    self._command(path, ready_write, end_read),
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    stderr=said,
                    pass_fds=[ready_write, end_read],
                    cwd="/",
                    env={"PATH": "/usr/bin:/bin"},
                    start_new_session=True,
                )
        except BaseException:
            for fd in (ready_read, end_write, said):
                os.close(fd)
            raise
        finally:
            os.close(ready_write)
            os.close(end_read)
        return _Program(end_write, os.pidfd_open(process.pid), said, ready=ready_read, process=process)

    def _command(self, program: str, ready: int, end: int) -> list[str]:
        namespaces = f"/proc/{self._network.pid}/ns"
        command = [program, "--configure", f"--mtu={_MTU}", f"--cidr={_NETWORK}", "--disable-host-loopback"]
        command += ["--disable-dns", "--enable-seccomp"]
        command += [f"--ready-fd={ready}", f"--exit-fd={end}", "--netns-type=path"]
        # Its own mount namespace needs root, in one user namespace or another; ours has no other user than this one.
        command.append("--enable-sandbox" if os.geteuid() == 0 else f"--userns-path={namespaces}/user")
        return [*command, f"{namespaces}/net", OUTSIDE]


class _Program:
    """A ``slirp4netns`` that runs; it ends when nobody holds ``end`` open any more, however they end."""

    def __init__(
        self,
        end: int,
        pidfd: int,
        said: int,
        *,
        ready: int = -1,
        process: Process | None = None,
        works: bool = False,
    ) -> None:
        self.fds = (end, pidfd, said)
        """What the next node needs."""
        self._end = end
        self._pidfd = pidfd
        self._said = said
        self._ready = ready
        self._process = process
        self.works = works

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        poll = select.poll()  # select knows no descriptors above 1023, and a taken over node has many
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def until_ready(self) -> bool:
        """Wait until it works; False if it ended, or does not come."""
        with anyio.move_on_after(_READY_TIMEOUT):
            await anyio.wait_readable(self._ready)
            self.works = bool(os.read(self._ready, 1))
        return self.works

    async def until_ended(self) -> None:
        """Wait until it ends by itself."""
        await anyio.wait_readable(self._pidfd)

    async def end(self) -> str:
        """End it; what it said."""
        os.close(self._end)
        if self._ready != -1:
            os.close(self._ready)
        with anyio.move_on_after(_STOP_TIMEOUT) as scope:
            await anyio.wait_readable(self._pidfd)
        if scope.cancelled_caught:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await anyio.wait_readable(self._pidfd)
        code = await self._process.wait() if self._process is not None else None
        words = os.pread(self._said, _MESSAGE_BYTES, 0).decode(errors="replace").strip().replace("\n", "; ")
        os.close(self._said)
        os.close(self._pidfd)
        ended = "slirp4netns ended" if code is None else f"slirp4netns ended with code {code}"
        return f"{ended}: {words or 'it said nothing'}"


def why_not() -> str:
    """Why Pods cannot have a way out on this machine, or nothing if they can."""
    if shutil.which("slirp4netns", path=_SEARCH) is None:
        return f"slirp4netns is not installed; run `{INSTALL}` as root"
    if not Path(_TUN).exists():
        return f"{_TUN} does not exist; run `modprobe tun` as root"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} is closed to this user; run `chmod 666 {_TUN}` as root"
    return ""
