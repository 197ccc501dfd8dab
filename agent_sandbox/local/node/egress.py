"""The pod network's way to the world: one ``slirp4netns`` for all Pods, run as this node's own user.

It gives the router between Pods an interface whose packets become ordinary connections of this machine, made by an
ordinary process: no interface, route or firewall rule appears in the host's own network, and root is not needed. What
may pass is decided by the router's rules (``ruleset.py``). Without the program Pods reach nothing outside the stack;
it is looked for again now and then, so that installing it is enough.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import anyio
import anyio.to_thread
import structlog
from anyio.abc import Process

from agent_sandbox.clock import Clock
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
        """Run it to its end; why it ended."""
        program = shutil.which("slirp4netns", path=_SEARCH)
        assert program is not None, "why_not has looked"
        ready_read, ready_write = os.pipe()
        end_read, end_write = os.pipe()  # the program ends when we close this one, however we end
        os.set_blocking(ready_read, False)
        try:
            process = await anyio.open_process(
                self._command(program, ready_write, end_read),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=PIPE,
                pass_fds=[ready_write, end_read],
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
            )
            os.close(ready_write)
            ready_write = -1
            try:
                await self._serve(process, ready_read, ready)
            finally:
                os.close(end_write)
                end_write = -1
                with anyio.CancelScope(shield=True):
                    await _reap(process)
            return await _last_words(process)
        finally:
            for fd in (ready_read, ready_write, end_read, end_write):
                if fd != -1:
                    os.close(fd)

    def _command(self, program: str, ready: int, end: int) -> list[str]:
        namespaces = f"/proc/{self._network.pid}/ns"
        command = [program, "--configure", f"--mtu={_MTU}", f"--cidr={_NETWORK}", "--disable-host-loopback"]
        command += ["--disable-dns", "--enable-seccomp"]
        command += [f"--ready-fd={ready}", f"--exit-fd={end}", "--netns-type=path"]
        # Its own mount namespace needs root, in one user namespace or another; ours has no other user than this one.
        command.append("--enable-sandbox" if os.geteuid() == 0 else f"--userns-path={namespaces}/user")
        return [*command, f"{namespaces}/net", OUTSIDE]

    async def _serve(self, process: Process, ready_fd: int, ready: Callable[[], None]) -> None:
        """Wait until it works, then until it ends."""
        works = False
        with anyio.move_on_after(_READY_TIMEOUT):
            await anyio.wait_readable(ready_fd)
            works = bool(os.read(ready_fd, 1))
        if works:
            self.problem = ""
            log.info("Pods have a way out of the stack, for those whose policies allow it")
            ready()
            await process.wait()


async def _reap(process: Process) -> None:
    with anyio.move_on_after(_STOP_TIMEOUT):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _last_words(process: Process) -> str:
    assert process.stderr is not None, "it is a pipe"
    text = b""
    with suppress(anyio.EndOfStream), anyio.move_on_after(1):
        while len(text) < _MESSAGE_BYTES:
            text += await process.stderr.receive()
    words = text.decode(errors="replace").strip().replace("\n", "; ")
    return f"slirp4netns ended with code {process.returncode}: {words or 'it said nothing'}"


def why_not() -> str:
    """Why Pods cannot have a way out on this machine, or nothing if they can."""
    if shutil.which("slirp4netns", path=_SEARCH) is None:
        return f"slirp4netns is not installed; run `{INSTALL}` as root"
    if not Path(_TUN).exists():
        return f"{_TUN} does not exist; run `modprobe tun` as root"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} is closed to this user; run `chmod 666 {_TUN}` as root"
    return ""
