"""A burst of claims on a real kube-apiserver under exactly our role; then the same with the leader killed ten times.

    hack/show_burst.py                         200 claims against a pool of 50, `agent-sandbox manager` as a process
    hack/show_burst.py --kills 10              the same, with two managers that elect; the leader gets kill -9 ten times
    hack/show_burst.py --logs FOLDER           keeps the managers' logs there

Prints how long claims took, what was written by verb and kind, and ends with status 1 if the end state is not: every
claim bound to a Sandbox of its own, the pool back at its size, no Sandbox and no Pod too many, also after the claims
are gone.
"""

import argparse
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import structlog

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import EventType, KubeClient, NotFoundError, connect
from agent_sandbox.runtime import LeaderElectionOptions, LeadershipLostError, Manager, ManagerOptions
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import LEASES, PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_api.views import is_condition_true
from agent_sandbox_controllers import ControllerOptions, register
from show_cluster import LEASE, NAMESPACE, SYSTEM, Audit, HollowNode, cluster, say, until

log = structlog.get_logger(__name__)

POOL = "pool"
TEMPLATE = "python"
PATIENCE = 240.0
"""Seconds until a state that is not reached is a failure; the machine may be slow, and ten leaders die."""
QUIET = 8.0
"""Seconds without a write after which the cluster is at rest; longer than anything that is held back."""
FAULT = re.compile(r"\[(error|critical) *\]|Traceback|: 403 |Error: ")
"""Lines of a manager's log that need an explanation."""
AGENTS, EXTENSIONS = SANDBOXES.api_version, SANDBOX_CLAIMS.api_version


@dataclass
class Watcher:
    """What a client sees of the claims."""

    asked: dict[str, float] = field(default_factory=dict)
    ready: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def run(self, client: KubeClient) -> None:
        """Note when each claim is first seen Ready, and with which Sandbox; until cancelled."""
        version = (await client.list(SANDBOX_CLAIMS, NAMESPACE)).resource_version
        while True:
            async with client.watch(SANDBOX_CLAIMS, NAMESPACE, resource_version=version, timeout_seconds=600) as events:
                async for event in events:
                    if event.type == EventType.BOOKMARK:
                        continue
                    claim = event.object
                    version = claim.metadata.resource_version
                    if claim.metadata.name not in self.ready and is_condition_true(claim.status.conditions, "Ready"):
                        self.ready[claim.metadata.name] = (time.monotonic(), claim.status.sandbox_name or "")

    def report(self) -> None:
        """Print the latencies of warm and cold claims."""
        taken: dict[str, list[float]] = {"warm": [], "cold": []}
        for name, (moment, sandbox) in self.ready.items():
            taken["cold" if sandbox == name else "warm"].append(moment - self.asked[name])
        for kind, seconds in taken.items():
            if len(seconds) > 1:
                cuts = statistics.quantiles(seconds, n=100, method="inclusive")
                say(
                    f"  {kind}: {len(seconds):3} claims, created→Ready p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, "
                    f"max {max(seconds):.2f} s"
                )


async def lead(kubeconfig: Path, identity: str) -> None:
    """One of several managers, with a Lease that ends soon after its holder died."""
    clock = SystemClock()
    client = await connect(kubeconfig, clock=clock)
    election = LeaderElectionOptions(
        namespace=SYSTEM, name=LEASE, identity=identity, lease_duration=3.0, renew_deadline=2.0, retry_period=0.4
    )
    while True:
        manager = Manager(client, clock=clock, options=ManagerOptions(component=LEASE, leader_election=election))
        register(manager, ControllerOptions())
        try:
            await manager.run()
        except LeadershipLostError as error:
            # The Lease is short and the machine may be slow. A kubelet would start the container again.
            log.warning("starting again", because=str(error))


@dataclass
class Managers:
    """The processes of the controllers; their output goes to a file each."""

    kubeconfig: Path
    folder: Path
    running: dict[str, anyio.abc.Process] = field(default_factory=dict)
    _number: int = 0

    async def start(self, *, elects: bool) -> None:
        """One more process: the command of our Deployment, or this file's with short leases."""
        self._number += 1
        identity = f"manager-{self._number}"
        if elects:
            command = [sys.executable, __file__, "--lead", identity, "--kubeconfig", str(self.kubeconfig)]
        else:
            command = [sys.executable, "-m", "agent_sandbox", "manager", "--kubeconfig", str(self.kubeconfig)]
            command += ["--metrics-bind-address=", "--health-probe-bind-address=", "--log-level=warning"]
        with (self.folder / f"{identity}.log").open("wb") as output:
            self.running[identity] = await anyio.open_process(command, stdout=output, stderr=output)

    async def kill(self, identity: str) -> None:
        """End a process as a power cut would."""
        process = self.running.pop(identity)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def kill_all(self) -> None:
        """End them all."""
        for identity in list(self.running):
            await self.kill(identity)

    def errors(self) -> list[str]:
        """What the logs hold of errors, or of something that was forbidden; for each log its last such lines.

        That a manager lost its Lease of three seconds on a busy machine is no fault: it began again.
        """
        found: list[str] = []
        for file in sorted(self.folder.glob("manager-*.log")):
            lines = file.read_text().splitlines()
            bad = [line for line in lines if FAULT.search(line) and "LeadershipLostError" not in line]
            found += [f"{file.name}: {line.strip()}" for line in bad[-3:]]
        return found


async def leader(client: KubeClient) -> str:
    """Who holds the Lease; empty if nobody ever did."""
    try:
        return (await client.get(LEASES, LEASE, SYSTEM)).spec.holder_identity or ""
    except NotFoundError:
        return ""


async def kill_leaders(client: KubeClient, managers: Managers, audit: Audit, watcher: Watcher, times: int) -> None:
    """Kill the leader again and again, each time after it has written some more."""
    chance = random.Random(5)  # noqa: S311 - for repeatable shows
    for number in range(1, times + 1):
        while (victim := await leader(client)) not in managers.running:  # noqa: ASYNC110 - a server to ask
            await anyio.sleep(0.02)
        before = len(audit.entries())
        enough = chance.randint(5, 70)
        await until(lambda: len(audit.entries()) - before >= enough, every=0.005)  # noqa: B023 - awaited right here
        await managers.kill(victim)
        say(
            f"  kill {number}: {victim} after {len(audit.entries()) - before} writes, "
            f"{len(watcher.ready)} claims Ready by then"
        )
        await managers.start(elects=True)


async def at_rest(audit: Audit) -> None:
    """Wait until nothing has been written for a while."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET:
        if (now := len(audit.entries())) != seen:
            seen, since = now, time.monotonic()
        await anyio.sleep(0.2)


async def pool_is_full(client: KubeClient, size: int) -> None:
    """Wait until the pool reports all members Ready."""
    deadline = time.monotonic() + PATIENCE
    while (await client.get(SANDBOX_WARM_POOLS, POOL, NAMESPACE)).status.ready_replicas != size:
        if time.monotonic() > deadline:
            say("  the pool did not fill")
            return
        await anyio.sleep(0.2)


async def prepare(client: KubeClient, size: int) -> None:
    """The template, and a pool that is full."""
    container = {"name": "main", "image": "python-runtime-sandbox", "ports": [{"containerPort": 8888}]}
    spec = {"podTemplate": {"spec": {"containers": [container]}}, "service": False}
    await client.create(
        SANDBOX_TEMPLATES,
        {"apiVersion": EXTENSIONS, "kind": "SandboxTemplate", "metadata": {"name": TEMPLATE}, "spec": spec},
        NAMESPACE,
    )
    wanted = {"replicas": size, "sandboxTemplateRef": {"name": TEMPLATE}}
    await client.create(
        SANDBOX_WARM_POOLS,
        {"apiVersion": EXTENSIONS, "kind": "SandboxWarmPool", "metadata": {"name": POOL}, "spec": wanted},
        NAMESPACE,
    )
    await pool_is_full(client, size)


async def burst(client: KubeClient, watcher: Watcher, count: int) -> None:
    """Create all claims at once."""

    async def ask(name: str) -> None:
        spec = {"sandboxTemplateRef": {"name": TEMPLATE}}
        body = {"apiVersion": EXTENSIONS, "kind": "SandboxClaim", "metadata": {"name": name}, "spec": spec}
        watcher.asked[name] = time.monotonic()
        await client.create(SANDBOX_CLAIMS, body, NAMESPACE)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(ask, f"claim-{number:03}")


async def verdicts(client: KubeClient, claims: int, size: int) -> list[str]:
    """What is wrong with the state of the cluster; empty if nothing is."""
    wrong: list[str] = []
    asked = {each.metadata.uid: each for each in (await client.list(SANDBOX_CLAIMS, NAMESPACE)).items}
    sandboxes = (await client.list(SANDBOXES, NAMESPACE)).items
    pods = (await client.list(PODS, NAMESPACE)).items
    pool = await client.get(SANDBOX_WARM_POOLS, POOL, NAMESPACE)
    owners = Counter(each.metadata.controller.uid for each in sandboxes if each.metadata.controller is not None)
    by_name = {each.metadata.name: each for each in sandboxes}

    def check(holds: bool, text: str) -> None:
        if not holds:
            wrong.append(text)

    check(len(asked) == claims, f"{len(asked)} claims instead of {claims}")
    for uid, claim in asked.items():
        mine: Any = by_name.get(claim.status.sandbox_name or "")
        held = mine is not None and mine.metadata.controller is not None and mine.metadata.controller.uid == uid
        check(held, f"{claim.metadata.name} does not hold the Sandbox that its status names")
        check(owners[uid] == 1, f"{claim.metadata.name} controls {owners[uid]} Sandboxes")
        check(is_condition_true(claim.status.conditions, "Ready"), f"{claim.metadata.name} is not Ready")
    members = owners[pool.metadata.uid]
    check(members == size, f"the pool has {members} members instead of {size}")
    check(pool.status.ready_replicas == size, f"the pool reports {pool.status.ready_replicas} Ready")
    check(len(sandboxes) == claims + size, f"{len(sandboxes)} Sandboxes instead of {claims + size}")
    homes = Counter(each.metadata.controller.uid for each in pods if each.metadata.controller is not None)
    check(homes == Counter(each.metadata.uid for each in sandboxes), "not every Sandbox has exactly one Pod of its own")
    check(len(pods) == claims + size, f"{len(pods)} Pods instead of {claims + size}")
    return wrong


async def remove_claims(client: KubeClient, size: int) -> None:
    """Delete all claims and wait until the garbage collector has taken what was theirs."""
    async with anyio.create_task_group() as tasks:
        for claim in (await client.list(SANDBOX_CLAIMS, NAMESPACE)).items:

            async def delete(name: str = claim.metadata.name, uid: str = claim.metadata.uid) -> None:
                await client.delete(SANDBOX_CLAIMS, name, NAMESPACE, uid=uid)

            tasks.start_soon(delete)
    with anyio.move_on_after(PATIENCE):
        while len((await client.list(PODS, NAMESPACE)).items) > size:  # noqa: ASYNC110 - a server to ask
            await anyio.sleep(0.5)


@asynccontextmanager
async def processes(kubeconfig: Path, folder: Path, *, elects: bool) -> AsyncIterator[Managers]:
    """One manager, or two that elect; all are ended with the block."""
    managers = Managers(kubeconfig, folder)
    try:
        for _ in range(2 if elects else 1):
            await managers.start(elects=elects)
        yield managers
    finally:
        with anyio.CancelScope(shield=True):
            await managers.kill_all()


async def show(arguments: argparse.Namespace, admin: Path, kubeconfig: Path, audit: Audit) -> list[str]:
    """The whole show; gives what went wrong."""
    client, hollow = await connect(admin), await connect(admin)
    watcher, node = Watcher(), HollowNode(hollow, arguments.node_seconds)
    elects = arguments.kills > 0
    folder = arguments.logs or admin.parent
    folder.mkdir(parents=True, exist_ok=True)
    async with processes(kubeconfig, folder, elects=elects) as managers, anyio.create_task_group() as tasks:
        tasks.start_soon(node.run)
        await prepare(client, arguments.pool)
        await at_rest(audit)
        start = len(audit.entries())
        say(f"pool of {arguments.pool} is full after {start} writes; {arguments.claims} claims at once")
        tasks.start_soon(watcher.run, client)
        await anyio.sleep(0.5)
        began = time.monotonic()
        async with anyio.create_task_group() as during:
            during.start_soon(burst, client, watcher, arguments.claims)
            if elects:
                during.start_soon(kill_leaders, client, managers, audit, watcher, arguments.kills)
        with anyio.move_on_after(PATIENCE):
            await until(lambda: len(watcher.ready) >= arguments.claims)
        say(f"  all Ready after {time.monotonic() - began:.1f} s")
        watcher.report()
        await pool_is_full(client, arguments.pool)
        await at_rest(audit)
        tell_writes(audit, audit.entries()[start:], arguments.claims)
        wrong = await verdicts(client, arguments.claims, arguments.pool)
        say(f"end state: {'as it should be' if not wrong else 'WRONG'}")
        await remove_claims(client, arguments.pool)
        await at_rest(audit)
        after = await verdicts(client, 0, arguments.pool)
        say(f"after the claims were deleted: {'only the pool is left' if not after else 'WRONG'}")
        wrong += [f"after deletion: {each}" for each in after]
        wrong += [f"in a log: {line[:300]}" for line in managers.errors()]
        tasks.cancel_scope.cancel()
    await client.aclose()
    await hollow.aclose()
    return wrong


def tell_writes(audit: Audit, entries: list[dict[str, Any]], claims: int) -> None:
    """Print what the server recorded."""
    done, refused = audit.count(entries)
    say(f"  {done.total()} writes, {done.total() / claims:.2f} per claim; {refused.total()} refused or cut off")
    for name, count in sorted(done.items(), key=lambda each: -each[1]):
        say(f"    {name:<40}{count:6}  {count / claims:6.2f} per claim")
    for name, count in refused.items():
        say(f"    {name}: {count}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=200)
    parser.add_argument("--pool", type=int, default=50)
    parser.add_argument("--kills", type=int, default=0, help="how often the leader gets kill -9")
    parser.add_argument("--node-seconds", type=float, default=1.0, help="how long a Pod takes to be Ready")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where the managers' logs stay")
    parser.add_argument("--lead", metavar="IDENTITY", help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.lead:
        anyio.run(lead, arguments.kubeconfig, arguments.lead)
        return
    with cluster() as (server, kubeconfig, audit):
        wrong = anyio.run(show, arguments, server.kubeconfig, kubeconfig, audit)
    for each in wrong[:20]:
        say(f"  {each}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
