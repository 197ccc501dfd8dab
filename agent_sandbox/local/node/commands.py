"""Runs commands inside running containers: for probes and hooks, and for ``kubectl exec``."""

import os
from collections.abc import Mapping, Sequence
from typing import Final

import anyio

from agent_sandbox.local.node.network import Ended
from agent_sandbox.local.node.runtime import ContainerProcess, KillCommand

_OUTPUT_LIMIT: Final = 10 * 1024
_CHUNK: Final = 65536


class Command:
    """A command inside a container.

    Flow: ``start``, then ``wait``; ``kill`` at any time.
    """

    def __init__(self, process: ContainerProcess) -> None:
        self._process = process
        self._done = anyio.Event()
        self._kill: KillCommand | None = None
        self._code = 0

    async def start(self, argv: Sequence[str], fds: Mapping[int, int]) -> None:
        """Start it with these descriptors.

        Raises:
            ContainerError: it does not exist there.
            PodNotRunningError: the container is not running.
        """
        self._kill = await self._process.enter(argv, fds=fds, on_exit=self._ended)

    def _ended(self, ended: Ended) -> None:
        self._code = ended.code
        self._done.set()

    async def wait(self) -> int:
        """Its exit code."""
        await self._done.wait()
        return self._code

    async def kill(self) -> None:
        """Kill it; one that has ended is left in peace."""
        if self._kill is not None and not self._done.is_set():
            await self._kill()


async def read_piece(fd: int) -> bytes:
    """The next bytes of a non-blocking pipe or terminal; empty at its end."""
    while True:
        await anyio.wait_readable(fd)
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            continue
        except OSError:  # EIO: the last process has closed its side of a terminal
            return b""


async def run_command(process: ContainerProcess, argv: Sequence[str]) -> tuple[int, str]:
    """Run a command to its end: exit code and the beginning of what it printed. Killed when cancelled."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.set_blocking(read, False)
    command = Command(process)
    try:
        try:
            await command.start(argv, {0: null, 1: write, 2: write})
        finally:
            os.close(write)
            os.close(null)
        output = b""
        while piece := await read_piece(read):
            output += piece[: _OUTPUT_LIMIT - len(output)]
        return await command.wait(), output.decode(errors="replace")
    finally:
        os.close(read)
        with anyio.CancelScope(shield=True):
            await command.kill()
