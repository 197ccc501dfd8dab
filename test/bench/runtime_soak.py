# ruff: noqa: T201 - a program that prints
"""Churn for as long as you like: `python test/bench/runtime_soak.py --seconds 600`.

A manager with two controllers on the embedded API server, while objects come and go and the wire breaks, lags, lies and
falls silent. Every so often it prints tasks and memory; in the end it compares stores with the server and fails if
tasks or memory have grown. `--virtual` needs no waiting; the unit tests run some minutes of it.
"""

import argparse
import gc
import logging
import random
import resource
import sys
from dataclasses import dataclass, field

import anyio
import structlog

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube import KubeClient, MergePatch, NotFoundError
from agent_sandbox.runtime import Controller, LeaderElectionOptions, Manager, ManagerOptions, Request, Result
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock, run_in_virtual_time
from agent_sandbox_api.core import PODS, SERVICES
from agent_sandbox_api.resource import Resource, V

FAULTS = [
    Fault.lost_answer(),
    Fault.lost_request(),
    Fault.error(500),
    Fault.error(429, retry_after=1),
    Fault.conflict(),
    Fault.unreachable(),
    Fault.slow(1),
    Fault.broken_stream(after_lines=3),
    Fault.slow_stream(1),
]
WARM_UP = 0.3
"""The share of the time after which counts are compared: caches, pools and interned names have filled by then."""


class Pair:
    """Keeps a Service of the same name beside each Pod."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._pods = manager.cache.informer(PODS).store
        self._services = manager.cache.informer(SERVICES).store
        self._events = manager.events

    async def reconcile(self, request: Request) -> Result:
        pod = self._pods.get(request.namespace, request.name)
        service = self._services.get(request.namespace, request.name)
        if pod is None and service is not None:
            await self._client.delete(SERVICES, request.name, request.namespace, uid=service.metadata.uid)
        elif pod is not None and service is None:
            metadata = {"name": request.name, "namespace": request.namespace}
            await self._client.create(SERVICES, {"metadata": metadata, "spec": {"clusterIP": "None"}})
            self._events.event(pod, type="Normal", reason="Paired", action="Pairing", note="paired", resource=PODS)
        return Result.requeue_after(30)


class Idle:
    """Only looks, often."""

    async def reconcile(self, _: Request) -> Result:
        return Result.requeue_after(5)


@dataclass
class Findings:
    """What the soak saw."""

    samples: list[tuple[float, int, int]] = field(default_factory=list)  # seconds, tasks, objects the collector tracks
    writes: int = 0

    def grown(self) -> list[str]:
        """What has grown since the warm-up, as sentences."""
        settled = self.samples[int(len(self.samples) * WARM_UP) :]
        early, late = settled[: len(settled) // 3], settled[-(len(settled) // 3) :]
        complaints = []
        if max(tasks for _, tasks, _ in late) > max(tasks for _, tasks, _ in early) + 3:
            complaints.append(f"tasks grew: {[tasks for _, tasks, _ in settled]}")
        before, after = (sum(objects for *_, objects in part) / len(part) for part in (early, late))
        if after > before * 1.1:
            complaints.append(f"objects grew from {before:,.0f} to {after:,.0f}")
        return complaints


async def soak(seconds: float, clock: Clock, *, seed: int = 1, talk: bool = False) -> Findings:
    """Run the churn.

    Raises:
        AssertionError: stores and server differ in the end, or a task is left over.
    """
    chance = random.Random(seed)
    found = Findings()
    # What the server remembers for late watches is its own affair: a small history is full before the warm-up ends.
    async with InMemoryApiServer(clock=clock, history_capacity=64) as server:
        user = KubeClient(server.transport(), clock=clock)
        tasks_before = {task.id for task in anyio.get_running_tasks()}
        wire = FaultyTransport(server.transport())
        election = LeaderElectionOptions(namespace="default", name="soak")
        manager = Manager(KubeClient(wire, clock=clock), clock=clock, options=ManagerOptions(leader_election=election))
        pair = Controller("pair", Pair(manager), workers=4, reconcile_timeout=60)
        manager.add(pair.watches_for(PODS).watches_for(SERVICES))
        manager.add(Controller("idle", Idle(), workers=2).watches_for(PODS))
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            await churn(seconds, user, wire, clock, chance, found, talk=talk)
            wire.heal()
            wire.drop_watches()
            await clock.sleep(240)
            await compare(PODS, user, manager)
            await compare(SERVICES, user, manager)
            tasks.cancel_scope.cancel()
        left = [task for task in anyio.get_running_tasks() if task.id not in tasks_before]
        assert not left, f"tasks are left over: {left}"
    found.writes = len(wire.writes)
    return found


async def compare(kind: Resource[V], user: KubeClient, manager: Manager) -> None:
    """Hold a store to the server."""
    listed = {(each.metadata.uid, each.metadata.resource_version) for each in (await user.list(kind)).items}
    stored = {(each.metadata.uid, each.metadata.resource_version) for each in manager.cache.informer(kind).store}
    assert stored == listed, f"the store of {kind} differs from the server"


async def churn(
    seconds: float,
    user: KubeClient,
    wire: FaultyTransport,
    clock: Clock,
    chance: random.Random,
    found: Findings,
    *,
    talk: bool,
) -> None:
    """Let fifty Pods come, change and go, and the wire fail now and then."""
    began = clock.monotonic()
    next_sample = began
    while (now := clock.monotonic()) < began + seconds:
        name = f"pod-{chance.randrange(50)}"
        try:
            pod = await user.get(PODS, name, "default")
        except NotFoundError:
            containers = [{"name": "main", "image": "localhost/host"}]
            await user.create(PODS, {"metadata": {"name": name}, "spec": {"containers": containers}}, "default")
        else:
            if chance.random() < 0.4:
                await user.delete(PODS, name, "default", uid=pod.metadata.uid, grace_period_seconds=0)
            else:
                change = MergePatch({"metadata": {"labels": {"turn": str(chance.random())}}})
                await user.patch(PODS, name, change, "default")
        if chance.random() < 0.05:
            lease_free = lambda _method, path: "/leases" not in path  # noqa: E731 - the leader shall survive
            wire.inject(chance.choice(FAULTS), only_if=lease_free)
        if chance.random() < 0.005:
            wire.drop_watches()
        wire._rules[:] = [rule for rule in wire._rules if rule.times != 0]
        wire.seen.clear()
        if now >= next_sample:
            next_sample += seconds / 30
            await user.request("DELETE", "/apis/events.k8s.io/v1/namespaces/default/events")
            gc.collect()
            found.samples.append((now - began, len(anyio.get_running_tasks()), len(gc.get_objects())))
            if talk:
                megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                passed, tasks, objects = found.samples[-1]
                print(f"{passed:6.0f} s  {tasks:3} tasks  {objects:7} objects  {megabytes:.0f} MB at most", flush=True)
        await clock.sleep(chance.expovariate(10))


def main() -> int:
    """Run and report; 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--virtual", action="store_true", help="in virtual time")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if arguments.virtual:
        found = run_in_virtual_time(lambda: soak(arguments.seconds, VirtualClock(), talk=True))
    else:
        found = anyio.run(lambda: soak(arguments.seconds, SystemClock(), talk=True))
    complaints = found.grown()
    print("\n".join(complaints) or "nothing grew, stores equal the server, no task is left over")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
