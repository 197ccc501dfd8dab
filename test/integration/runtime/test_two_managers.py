"""Two operator processes, one Lease, a real API server over TLS: kill -9 and SIGTERM under load."""

import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.streams.text
import pytest

from agent_sandbox.kube import KubeClient, connect_to
from agent_sandbox.local.apiserver import ApiServer, MemoryJournal, ObjectStore
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox_api.core import LEASES, SERVICES

pytestmark = pytest.mark.slow
LEASE = 10
"""Seconds: no machine is so busy that a leader misses eight of them."""

OPERATOR = f'''
import sys
import anyio
from agent_sandbox.kube import AlreadyExistsError, connect_to
from agent_sandbox.runtime import *
from agent_sandbox_api.core import SERVICES

class Copier:
    """Makes done-x for each x, once."""

    def __init__(self, manager):
        self.client, self.store = manager.client, manager.cache.informer(SERVICES).store
        self.led = False

    async def reconcile(self, request):
        if not self.led:
            self.led = True
            print("LEADS", flush=True)
        copy = "done-" + request.name
        if request.name.startswith("done-") or request.name == "kubernetes" or self.store.get("default", copy):
            return Result.done()
        try:
            body = {{"metadata": {{"name": copy}}, "spec": {{"clusterIP": "None"}}}}
            await self.client.create(SERVICES, body, "default")
        except AlreadyExistsError:
            print("DOUBLE", copy, flush=True)
        return Result.done()

async def main(url, token_file, ca_file, identity):
    client = await connect_to(url, token_file=token_file, ca_file=ca_file)
    election = LeaderElectionOptions(namespace="default", name="copier", identity=identity,
        lease_duration={LEASE}, renew_deadline=8, retry_period=0.5)
    manager = Manager(client, options=ManagerOptions(leader_election=election))
    manager.add(Controller("copier", Copier(manager), workers=4).watches_for(SERVICES))
    await run_until_signalled(manager)
    print("ENDED", flush=True)

anyio.run(main, *sys.argv[1:])
'''


class Operator:
    """One process and what it said, with times."""

    def __init__(self, process: anyio.abc.Process, identity: str) -> None:
        self.process = process
        self.identity = identity
        self.said: list[tuple[float, str]] = []
        self.leads = anyio.Event()

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for text in anyio.streams.text.TextReceiveStream(self.process.stdout):
            for line in text.splitlines():
                self.said.append((time.monotonic(), line))
                if line == "LEADS":
                    self.leads.set()

    @property
    def doubles(self) -> list[str]:
        return [line for _, line in self.said if line.startswith("DOUBLE")]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[ApiServerSite]:
    server = ApiServer(ObjectStore(MemoryJournal()))
    await server.open()
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.run)
        async with await ApiServerSite.prepare(server, folder) as site:
            yield site
        tasks.cancel_scope.cancel()
    await server.aclose()


async def holder(client: KubeClient) -> str | None:
    return (await client.get(LEASES, "copier", "default")).spec.holder_identity


async def wait_until_copied(client: KubeClient, count: int) -> None:
    """Wait until each object has its copy."""
    with anyio.fail_after(60):
        while True:
            names = {each.metadata.name for each in (await client.list(SERVICES, "default")).items}
            if all(f"done-job-{number}" in names for number in range(count)):
                return
            await anyio.sleep(0.1)


async def test_a_killed_leader_is_succeeded_in_time_and_a_terminated_one_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, anyio.create_task_group() as tasks:
        credentials = site.credentials
        files = [str(credentials.token_file), str(credentials.ca_file)]
        client = await connect_to(site.url, token_file=files[0], ca_file=files[1])

        async def start(identity: str) -> Operator:
            command = [sys.executable, "-c", OPERATOR, site.url, *files, identity]
            operator = Operator(await anyio.open_process(command, stderr=None), identity)
            tasks.start_soon(operator.listen)
            return operator

        made = 0

        async def load() -> None:
            nonlocal made
            while True:
                body = {"metadata": {"name": f"job-{made}"}, "spec": {"clusterIP": "None"}}
                await client.create(SERVICES, body, "default")
                made += 1
                await anyio.sleep(0.02)

        loading = anyio.CancelScope()

        async def load_until_told() -> None:
            with loading:
                await load()

        tasks.start_soon(load_until_told)
        first = await start("first")
        with anyio.fail_after(60):
            await first.leads.wait()
        second, third = await start("second"), await start("third")
        await anyio.sleep(3)

        killed = time.monotonic()
        first.process.send_signal(signal.SIGKILL)
        with anyio.fail_after(60):
            while not (second.leads.is_set() or third.leads.is_set()):  # noqa: ASYNC110 - whichever comes first
                await anyio.sleep(0.02)
        leader, standby = (second, third) if second.leads.is_set() else (third, second)
        taken = time.monotonic() - killed
        assert taken <= 3 * LEASE, "the lease's duration, a retry, and much air for a busy machine"
        assert await holder(client) == leader.identity
        await anyio.sleep(1)

        asked = time.monotonic()
        leader.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(60):
            assert await leader.process.wait() == 0
            await standby.leads.wait()
        assert leader.said[-1][1] == "ENDED"
        led = next(moment for moment, line in standby.said if line == "LEADS")
        assert led - asked < LEASE - 1, "it did not wait for the lease to end"
        assert await holder(client) == standby.identity

        await anyio.sleep(0.5)
        loading.cancel()
        assert made > 100
        await wait_until_copied(client, made)
        assert first.doubles + second.doubles + third.doubles == []
        standby.process.send_signal(signal.SIGTERM)
        await standby.process.wait()
        assert await holder(client) == ""
        await client.aclose()
