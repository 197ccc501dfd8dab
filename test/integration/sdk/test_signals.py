"""A signal at any moment of a client's life leaves no claim behind. The server that it talks to sends real ones."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox.testing.pretend_cluster import PretendCluster

PROGRAM = Path(__file__).with_name("forked_programs.py")


class SignallingSite(ApiServerSite):
    """An API server that sends its client a signal at a certain request, before or after it has done what it asks."""

    number: signal.Signals = signal.SIGTERM
    at: tuple[int | str, str] = (0, "")
    client: "asyncio.Future[int]"
    requests: list[str]

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(f"{incoming.method} {incoming.path}")
        places: set[int | str] = {len(self.requests), incoming.method}
        await self._signal(places, "received")
        answer = await super()._handle(incoming)
        await self._signal(places, "done")
        return answer

    async def _signal(self, places: set[int | str], moment: str) -> None:
        if self.at[0] in places and self.at[1] == moment:
            os.kill(await self.client, self.number)


class Programs:
    """Runs programs against the site, one after the other."""

    def __init__(self, site: SignallingSite, cluster: PretendCluster, process: asyncio.subprocess.Process) -> None:
        self._site = site
        self._cluster = cluster
        self._process = process

    async def run(
        self, program: str, number: signal.Signals, *, at: tuple[int | str, str] = (0, ""), turn: int | None = None
    ) -> tuple[int, list[str]]:
        """Run one; its exit status and the requests that it made."""
        site = self._site
        site.number, site.at, site.requests = number, at, []
        site.client = asyncio.get_running_loop().create_future()
        order = {
            "program": program,
            "kubeconfig": str(site.credentials.kubeconfig_file),
            "api_url": self._cluster.api_url,
            "signal": number,
            "turn": turn,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        site.client.set_result(int(await self._process.stdout.readline()))
        return int(await self._process.stdout.readline()), site.requests


@pytest.fixture
async def programs(cluster: PretendCluster, tmp_path: Path) -> AsyncIterator[Programs]:
    site = await SignallingSite.prepare(cluster.api.server, tmp_path, port=0)
    async with site:
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        yield Programs(site, cluster, process)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


EXIT = {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT}
PROGRAMS = {
    signal.SIGTERM: ("asyncio", "uvloop", "anyio", "group", "beside", "sync", "sync in async", "handler", "background"),
    signal.SIGINT: ("asyncio", "uvloop", "anyio", "group", "beside", "sync"),
}


async def test_sigterm_in_the_moment_in_which_a_claim_is_written_leaves_no_claim(
    programs: Programs, cluster: PretendCluster
) -> None:
    for moment in ("received", "done"):
        status, requests = await programs.run("asyncio", signal.SIGTERM, at=("POST", moment))
        assert await cluster.claim_names() == []
        assert status == EXIT[signal.SIGTERM]
        assert requests[-1].startswith("DELETE")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_at_any_request_leaves_no_claim(
    programs: Programs, cluster: PretendCluster, number: signal.Signals
) -> None:
    for program in PROGRAMS[number]:
        place, requests = 0, ["at least one"]
        while place < len(requests):
            place += 1
            for moment in ("received", "done"):
                status, requests = await programs.run(program, number, at=(place, moment))
                assert await cluster.claim_names() == [], f"{program}: {moment} {place} of {requests}"
                assert status in {EXIT[number], 0}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_at_any_turn_of_the_loop_leaves_no_claim(
    programs: Programs, cluster: PretendCluster, number: signal.Signals
) -> None:
    turn, statuses = 0, list[int]()
    while 0 not in statuses:
        status, requests = await programs.run("asyncio", number, turn=turn)
        assert await cluster.claim_names() == [], f"turn {turn}: {requests}"
        statuses.append(status)
        turn += max(1, turn // 6)
    # Before it has connected and after it has closed, the client leaves the default as it is.
    assert set(statuses) == {EXIT[number], -number, 0}
