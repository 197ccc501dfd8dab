"""A network that cuts connections again and again: streams lose and double nothing, no command runs twice."""

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from agent_sandbox.sdk import AsyncSandboxClient, SandboxOutcomeUnknownError
from agent_sandbox.testing.pretend_cluster import PretendCluster

MIB = 2**20


class Cable:
    """A TCP proxy whose connections break after a random number of bytes, without a farewell.

    Attributes:
        url: where it listens.
        cuts: how many connections were cut.
    """

    def __init__(self, port: int, own_port: int, randomness: random.Random) -> None:
        self.url = f"http://127.0.0.1:{own_port}"
        self.cuts = 0
        self._port = port
        self._random = randomness

    async def carry(self, client: anyio.abc.SocketStream) -> None:
        """Carry one connection until it is cut."""
        left = self._random.randrange(300_000, 3_000_000)
        async with client, await anyio.connect_tcp("127.0.0.1", self._port) as server:

            async def move(source: anyio.abc.SocketStream, target: anyio.abc.SocketStream) -> None:
                nonlocal left
                try:
                    async for data in source:
                        left -= len(data)
                        if left < 0:
                            self.cuts += 1
                            break
                        await target.send(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass
                tasks.cancel_scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(move, client, server)
                tasks.start_soon(move, server, client)


@asynccontextmanager
async def bad_cable(url: str, seed: int) -> AsyncIterator[Cable]:
    """A cable to that URL."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    own_port = listener.extra(anyio.abc.SocketAttribute.local_port)
    cable = Cable(int(url.rpartition(":")[2]), int(own_port), random.Random(seed))
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, cable.carry)
        yield cable
        tasks.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_streams_over_a_cable_that_breaks_are_whole_and_no_command_runs_twice(
    cluster: PretendCluster, seed: int
) -> None:
    size, at_once = 6 * MIB, 4
    broken: list[str] = []
    async with (
        bad_cable(cluster.api_url, seed) as cable,
        AsyncSandboxClient("python", kube=cluster.kube, api_url=cable.url) as sandbox,
    ):

        async def echo(number: int) -> None:
            data = random.Random(f"{seed} {number}").randbytes(size)
            command = f"echo >> runs-{number}; exec cat"
            while True:
                try:
                    result = await sandbox.commands.run(command, stdin=data, timeout=None, max_output=size)
                except SandboxOutcomeUnknownError:
                    # Said honestly; nothing was repeated behind our back. Now we repeat it ourselves.
                    broken.append(command)
                    continue
                break
            assert not result.stdout_truncated
            assert hashlib.sha256(result.stdout_bytes).digest() == hashlib.sha256(data).digest()

        with anyio.fail_after(200):
            async with anyio.create_task_group() as tasks:
                for number in range(at_once):
                    tasks.start_soon(echo, number)
        cuts = cable.cuts
    runs = sum((cluster.workspace / f"runs-{number}").read_text().count("\n") for number in range(at_once))

    assert cuts > 10
    assert runs <= at_once + len(broken)


@pytest.mark.slow
async def test_files_go_whole_over_a_cable_that_breaks(cluster: PretendCluster, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(1).randbytes(12 * MIB))
    async with (
        bad_cable(cluster.api_url, 1) as cable,
        AsyncSandboxClient("python", kube=cluster.kube, api_url=cable.url) as sandbox,
    ):
        with anyio.fail_after(200):
            await sandbox.files.upload(source, "big")
            await sandbox.files.download("big", target)
        cuts = cable.cuts

    assert cuts > 10
    assert target.read_bytes() == source.read_bytes()
