"""One run: a namespace of its own, the scenarios one after the other, and everything removed again."""

import os
import platform
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

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

REMOVAL: Final = 30.0
"""Seconds in which the cluster must take the order to remove a namespace."""


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


Keep = Callable[[Report], Awaitable[None]]
"""Told of what is measured so far, as soon as another scenario is, before anything is cleaned up."""


async def run(
    client: KubeClient,
    dialect: Dialect,
    subject: Subject,
    options: RunOptions,
    *,
    clock: Clock,
    say: Callable[[str], None],
    keep: Keep,
) -> Report:
    """Run the scenarios, each with fresh controllers if these are ours to start.

    Raises:
        BenchError: a state was not reached (then inside an ``ExceptionGroup``), or a scenario needs controllers that
            it may stop.
        SubjectError: the controllers cannot be measured, or ended by themselves (then inside a group).
        agent_sandbox.kube.KubeError: the server refused something; perhaps inside an ``ExceptionGroup``.
    """
    for scenario in options.scenarios:
        if scenario.restarts and not subject.is_ours:
            raise BenchError(f"{scenario.name} stops the controllers: start them with --controller COMMAND")
    await subject.read()  # metrics that cannot be read are known before anything is made
    delay = options.hollow_node
    report = Report(
        controllers=subject.name,
        api_version=dialect.version,
        server=await _version(client),
        node=options.node if delay is None else f"hollow, Ready after {delay.text} s",
        when=clock.now().isoformat(timespec="seconds"),
        machine=f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}",
        results=[],
    )
    for scenario in options.scenarios:
        say(f"{scenario.name}: {scenario.text} …")
        began = clock.monotonic()
        async with _namespace(client, say) as namespace:
            bench = Bench(
                client,
                dialect,
                namespace,
                subject,
                sizes=options.sizes,
                image=options.image,
                hollow=delay is not None,
                clock=clock,
                say=say,
            )
            measured = await _measure(bench, scenario, delay)
            report.results.append(measured)
            say(
                f"  p50 {measured.percentile(0.5) * 1000:.0f} ms, p99 {measured.percentile(0.99) * 1000:.0f} ms, "
                f"{measured.rate:.1f} {measured.unit}/s"
            )
            await keep(report)
            await bench.clear(watched=not subject.is_ours)
        say(f"  took {clock.monotonic() - began:.0f} s with stage and clean-up")
    return report


async def _measure(bench: Bench, scenario: Scenario, delay: StartDelay | None) -> Measured:
    async with bench.open(), _nodes(bench, delay):
        await bench.subject.start()
        try:
            return await scenario.run(bench)
        finally:
            with anyio.CancelScope(shield=True):
                await bench.subject.stop()


@asynccontextmanager
async def _namespace(client: KubeClient, say: Callable[[str], None]) -> AsyncIterator[str]:
    name = f"agent-sandbox-bench-{secrets.token_hex(3)}"
    created = await client.create(NAMESPACES, {"metadata": {"name": name}})
    cut_short = True
    try:
        yield name
        cut_short = False
    finally:
        # Also after a failure or Ctrl-C: the namespace takes with it whatever a scenario left.
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVAL) as asked:
            try:
                await client.delete(NAMESPACES, name, uid=created.metadata.uid)
            except KubeError as error:
                say(f"  namespace {name} could not be deleted ({error}): kubectl delete namespace {name}")
            else:
                if cut_short:
                    say(f"  the cluster removes namespace {name} now; if it stays: kubectl delete namespace {name}")
        if asked.cancelled_caught:
            say(f"  the cluster did not answer within {REMOVAL:.0f} s: kubectl delete namespace {name}")


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
