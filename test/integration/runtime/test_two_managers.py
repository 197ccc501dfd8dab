"""Two operator processes, one Lease, a real API server over TLS: kill -9 and SIGTERM under load."""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.streams.text
import pytest
from anyio.abc import TaskStatus

from agent_sandbox.kube import KubeClient, connect_to
from agent_sandbox.local.apiserver import ApiServer, MemoryJournal, ObjectStore
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox_api.core import LEASES, SERVICES, LeaseSpecView

pytestmark = pytest.mark.slow

LEASE_SECONDS = 12
OPERATOR = '''
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
            await self.client.create(SERVICES, {"metadata": {"name": copy}, "spec": {"clusterIP": "None"}}, "default")
        except AlreadyExistsError:
            print("DOUBLE", copy, flush=True)
        return Result.done()

class Standing:
    """Tells that the caches are filled, in whoever leads or does not."""

    async def run(self, *, task_status):
        print("STANDS", flush=True)
        task_status.started()

async def main(url, token_file, ca_file, identity, duration):
    client = await connect_to(url, token_file=token_file, ca_file=ca_file)
    election = LeaderElectionOptions(namespace="default", name="copier", identity=identity,
        lease_duration=int(duration), renew_deadline=int(duration) - 2, retry_period=0.5)
    manager = Manager(client, options=ManagerOptions(leader_election=election))
    manager.add_runnable("standing", Standing(), needs_leadership=False)
    manager.add(Controller("copier", Copier(manager), workers=4).watches_for(SERVICES))
    await run_until_signalled(manager)
    print("ENDED", flush=True)

anyio.run(main, *sys.argv[1:])
'''


class Operator:
    """One process and what it said."""

    def __init__(self, process: anyio.abc.Process, identity: str) -> None:
        self.process = process
        self.identity = identity
        self.said: list[str] = []
        self.stands = anyio.Event()
        self.leads = anyio.Event()
        self.silent = anyio.Event()

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for text in anyio.streams.text.TextReceiveStream(self.process.stdout):
            for line in text.splitlines():
                self.said.append(line)
                if line == "STANDS":
                    self.stands.set()
                if line == "LEADS":
                    self.leads.set()
        self.silent.set()

    @property
    def doubles(self) -> list[str]:
        return [line for line in self.said if line.startswith("DOUBLE")]


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


async def wait_until_copied(client: KubeClient, count: int) -> None:
    """Wait until each object has its copy."""
    with anyio.fail_after(60):
        while True:
            names = {each.metadata.name for each in (await client.list(SERVICES, "default")).items}
            if all(f"done-job-{number}" in names for number in range(count)):
                return
            await anyio.sleep(0.1)


class Terms:
    """Who held the Lease, one after the other, as it was when each took it and at each one's last word."""

    def __init__(self) -> None:
        self.records: list[tuple[LeaseSpecView, LeaseSpecView]] = []

    async def follow(self, client: KubeClient, *, task_status: TaskStatus[None]) -> None:
        known = await client.list(LEASES, "default")
        task_status.started()
        async with client.watch(
            LEASES, "default", resource_version=known.resource_version, timeout_seconds=600
        ) as events:
            async for event in events:
                now = event.object.spec
                if self.records and self.records[-1][0].holder_identity == now.holder_identity:
                    self.records[-1] = (self.records[-1][0], now)
                else:
                    self.records.append((now, now))

    async def until(self, holders: list[str]) -> None:
        """Wait until these have held it and no others; the last one holds it."""
        with anyio.fail_after(60):
            while (seen := [first.holder_identity or "" for first, _ in self.records]) != holders:
                assert seen == holders[: len(seen)]
                await anyio.sleep(0.05)


async def test_a_killed_leader_is_succeeded_after_its_lease_and_a_terminated_one_hands_it_over(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as site,
        aclosing(
            await connect_to(site.url, token_file=site.credentials.token_file, ca_file=site.credentials.ca_file)
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        files = [str(site.credentials.token_file), str(site.credentials.ca_file)]
        terms = Terms()
        await tasks.start(terms.follow, client)

        async def start(identity: str) -> Operator:
            command = [sys.executable, "-c", OPERATOR, site.url, *files, identity, str(LEASE_SECONDS)]
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

        async def more_load() -> None:
            enough = made + 30
            while made < enough:  # noqa: ASYNC110 - it changes fifty times a second
                await anyio.sleep(0.02)

        tasks.start_soon(load_until_told)
        first = await start("first")
        with anyio.fail_after(60):
            await first.leads.wait()
        second, third = await start("second"), await start("third")
        with anyio.fail_after(60):
            await second.stands.wait()
            await third.stands.wait()
        await more_load()

        first.process.send_signal(signal.SIGKILL)
        with anyio.fail_after(60):
            while not (second.leads.is_set() or third.leads.is_set()):  # noqa: ASYNC110 - whichever comes first
                await anyio.sleep(0.02)
        leader, standby = (second, third) if second.leads.is_set() else (third, second)
        await terms.until(["first", leader.identity])
        taken, last_word = terms.records[-1][0].acquire_time, terms.records[0][1].renew_time
        assert taken is not None
        assert last_word is not None
        assert (taken - last_word).total_seconds() >= LEASE_SECONDS, "the killed one might have been alive"
        await more_load()

        leader.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(60):
            assert await leader.process.wait() == 0
            await standby.leads.wait()
            await leader.silent.wait()
        assert leader.said[-1] == "ENDED"
        await terms.until(["first", leader.identity, "", standby.identity])

        await more_load()
        loading.cancel()
        await wait_until_copied(client, made)
        assert first.doubles + second.doubles + third.doubles == []
        standby.process.send_signal(signal.SIGTERM)
        await standby.process.wait()
        await terms.until(["first", leader.identity, "", standby.identity, ""])
        tasks.cancel_scope.cancel()
