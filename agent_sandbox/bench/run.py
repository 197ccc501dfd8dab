"""One run: a namespace of its own, the scenarios one after the other, and everything removed again."""

import os
import platform
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import msgspec

from agent_sandbox.bench.bench import Bench, BenchError, Sizes
from agent_sandbox.bench.dialect import Dialect
from agent_sandbox.bench.hollow_node import HollowNode
from agent_sandbox.bench.results import Measured, Report
from agent_sandbox.bench.scenarios import Scenario
from agent_sandbox.bench.start_delay import StartDelay
from agent_sandbox.bench.subject import Subject
from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient, KubeError
from agent_sandbox_api.core import NAMESPACES


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is run.

    Attributes:
        scenarios: in this order.
        sizes: how much each does.
        image: what Pods run; with a hollow node nothing is pulled.
        hollow_node: how long its Pods take; None on a cluster with real nodes.
        node: how results describe the nodes, without a hollow one.
    """

    scenarios: Sequence[Scenario]
    sizes: Sizes = field(default_factory=Sizes)
    image: str = "registry.k8s.io/pause:3.10"
    hollow_node: StartDelay | None = None
    node: str = "the cluster's own"


async def run(
    client: KubeClient,
    dialect: Dialect,
    subject: Subject,
    options: RunOptions,
    *,
    clock: Clock,
    say: Callable[[str], None],
) -> Report:
    """Run the scenarios, each with fresh controllers if these are ours to start.

    Raises:
        BenchError: a state was not reached (then inside an ``ExceptionGroup``), or a scenario needs controllers that
            it may stop.
        agent_sandbox.kube.KubeError: the server refused something; inside an ``ExceptionGroup``.
    """
    for scenario in options.scenarios:
        if scenario.restarts and not subject.is_ours:
            raise BenchError(f"{scenario.name} stops the controllers: start them with --controller COMMAND")
    results: list[Measured] = []
    for scenario in options.scenarios:
        say(f"{scenario.name}: {scenario.text} …")
        began = clock.monotonic()
        measured = await _one(client, dialect, subject, scenario, options, clock, say)
        results.append(measured)
        say(
            f"  p50 {measured.percentile(0.5) * 1000:.0f} ms, p99 {measured.percentile(0.99) * 1000:.0f} ms, "
            f"{measured.rate:.1f} {measured.unit}/s; took {clock.monotonic() - began:.0f} s with stage and clean-up"
        )
    delay = options.hollow_node
    return Report(
        controllers=subject.name,
        api_version=dialect.version,
        server=await _version(client),
        node=options.node if delay is None else f"hollow, Ready after {delay.text} s",
        when=clock.now().isoformat(timespec="seconds"),
        machine=f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}",
        results=results,
    )


async def _one(
    client: KubeClient,
    dialect: Dialect,
    subject: Subject,
    scenario: Scenario,
    options: RunOptions,
    clock: Clock,
    say: Callable[[str], None],
) -> Measured:
    async with _namespace(client) as namespace:
        bench = Bench(
            client,
            dialect,
            namespace,
            subject,
            sizes=options.sizes,
            image=options.image,
            hollow=options.hollow_node is not None,
            clock=clock,
            say=say,
        )
        async with bench.open(), _nodes(bench, options.hollow_node):
            await subject.start()
            try:
                measured = await scenario.run(bench)
                await bench.clear()
            finally:
                with anyio.CancelScope(shield=True):
                    await subject.stop()
    return measured


@asynccontextmanager
async def _namespace(client: KubeClient) -> AsyncIterator[str]:
    name = f"agent-sandbox-bench-{secrets.token_hex(3)}"
    created = await client.create(NAMESPACES, {"metadata": {"name": name}})
    try:
        yield name
    finally:
        # Also after a failure or Ctrl-C: the namespace takes with it whatever a scenario left.
        with anyio.CancelScope(shield=True), anyio.move_on_after(30):
            await client.delete(NAMESPACES, name, uid=created.metadata.uid)


@asynccontextmanager
async def _nodes(bench: Bench, delay: StartDelay | None) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        if delay is not None:
            node = HollowNode(bench.client, bench.namespace, delay, clock=bench.clock, random=random.Random(1))  # noqa: S311
            await tasks.start(node.run)
        yield
        tasks.cancel_scope.cancel()


class _Version(msgspec.Struct, rename="camel"):
    git_version: str = "unknown"


async def _version(client: KubeClient) -> str:
    try:
        answer = await client.request("GET", "/version")
    except KubeError:
        return "unknown"
    return msgspec.json.decode(answer.body, type=_Version).git_version
