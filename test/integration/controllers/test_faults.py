"""Crashes after every single write, lost answers, conflicts, and only the declared rights."""

import re
from contextlib import AbstractAsyncContextManager
from typing import Any, Unpack

import anyio
import pytest

from agent_sandbox.kube import RawResponse, RawStream, Transport
from agent_sandbox.kube.transport import RequestOptions, StreamOptions, TransportDecorator
from agent_sandbox.testing import Fault, InMemoryApiServer
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import NETWORK_POLICIES, PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_controllers import RULES

pytestmark = pytest.mark.slow


class CrashPoint(TransportDecorator):
    """A wire that reports when a number of writes has taken effect."""

    def __init__(self, inner: Transport, writes: int) -> None:
        super().__init__(inner)
        self.left = writes
        self.reached = anyio.Event()

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        answer = await self._inner.request(method, path, **options)
        if method != "GET":
            self.left -= 1
            if self.left == 0:
                self.reached.set()
                await anyio.sleep_forever()
        return answer


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("writes", range(1, 9))
async def test_a_crash_after_any_write_of_a_claim_ends_in_the_same_state(make: Any, writes: int, warm: bool) -> None:
    wires: list[CrashPoint] = []

    def wrap(server: InMemoryApiServer) -> CrashPoint:
        wires.append(CrashPoint(server.transport(), 0))
        return wires[-1]

    async with make.house(wrap=wrap) as house:
        await house.make(make.template(), *([make.pool(replicas=2)] if warm else []))
        if warm:
            await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(10)
        wires[-1].left = writes
        await house.make(make.claim())
        with anyio.move_on_after(20):
            await wires[-1].reached.wait()
            await house.kill_manager()
            await house.start_manager()

        mine = await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(60)

        claimed = [each for each in await house.all(SANDBOXES) if each.metadata.controller.uid == mine.metadata.uid]
        assert [each.metadata.name for each in claimed] == [mine.status.sandbox_name]
        assert len(await house.all(SANDBOXES)) == (3 if warm else 1)
        assert len(await house.all(PODS)) == (3 if warm else 1)


FAULTS = [Fault.lost_answer(), Fault.lost_request(), Fault.conflict(), Fault.error(500), Fault.unreachable()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.kind) + str(fault.status or ""))
@pytest.mark.parametrize(
    ("path", "warm"), [("/sandboxes", True), ("/status", True), ("/sandboxes", False), ("/pods", False)]
)
async def test_whatever_happens_to_a_write_a_claim_gets_one_sandbox(
    make: Any, fault: Fault, path: str, warm: bool
) -> None:
    async with make.house() as house:
        await house.make(make.template(), *([make.pool(replicas=2)] if warm else []))
        if warm:
            await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(10)
        for method in ("POST", "PATCH"):
            house.wire.inject(fault, method=method, path=path, times=2)
        await house.make(make.claim())

        mine = await house.ready(SANDBOX_CLAIMS, "mine", within=120)
        house.wire.heal()
        await house.settle(120)

        owners = [each.metadata.controller for each in await house.all(SANDBOXES)]
        assert [owner.uid for owner in owners].count(mine.metadata.uid) == 1
        assert len(owners) == (3 if warm else 1)
        assert len(await house.all(PODS)) == len(owners)


async def test_edge_168_and_171_endless_conflicts_on_members_end_in_one_sandbox(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=2))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(10)
        house.wire.inject(Fault.conflict(), method="PATCH", path="/sandboxes/pool-", times=30)
        await house.make(make.claim())

        mine = await house.ready(SANDBOX_CLAIMS, "mine", within=120)
        await house.settle(60)

        assert [each.metadata.controller.uid for each in await house.all(SANDBOXES)].count(mine.metadata.uid) == 1


@pytest.mark.embedded
async def test_defect_18_and_19_a_stale_pool_cannot_delete_what_a_claim_has_just_taken(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        (member,) = await house.all(SANDBOXES)
        owner = await house.server.create(make.claim("theirs", warmpool="absent"))
        reference = {
            "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
            "kind": "SandboxClaim",
            "name": "theirs",
            "uid": owner["metadata"]["uid"],
            "controller": True,
        }
        # The pool's process hears nothing of the adoption, which another process makes, before it scales down.
        house.wire.inject(Fault.silent_stream(), path="/sandboxes", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        await house.edit(SANDBOXES, member.metadata.name, {"metadata": {"ownerReferences": [reference]}})
        await house.edit(SANDBOX_WARM_POOLS, "pool", {"spec": {"replicas": 0}})
        await house.settle(10)

        assert (await house.get(SANDBOXES, member.metadata.name)) is not None
        house.wire.heal()
        await house.edit(SANDBOX_WARM_POOLS, "pool", {"spec": {"replicas": 1}})
        await house.settle(400)
        assert (await house.get(SANDBOX_WARM_POOLS, "pool")).status.ready_replicas == 1
        assert (await house.get(SANDBOXES, member.metadata.name)) is not None


@pytest.mark.embedded
async def test_edge_222_and_223_a_pool_whose_watch_is_silent_makes_no_member_too_many(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        await house.settle(5)
        house.wire.inject(Fault.silent_stream(), path="/sandboxes", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        await house.make(make.pool(replicas=4))
        await house.settle(5)
        for label in ("a", "b", "c"):
            await house.edit(SANDBOX_WARM_POOLS, "pool", {"metadata": {"labels": {label: "x"}}})
            await house.settle(1)

        assert len(await house.all(SANDBOXES)) == 4


async def test_a_claim_that_waits_takes_the_next_member_that_becomes_ready(make: Any) -> None:
    async with make.house(kubelet_seconds=1.5) as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.settle(0.5)
        await house.make(make.claim())

        mine = await house.ready(SANDBOX_CLAIMS, "mine", within=5)

        assert mine.status.sandbox_name.startswith("pool-")


class Restricted(TransportDecorator):
    """A wire that lets through only what the declared rules allow."""

    PATH = re.compile(
        r"^/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[^/]+)"
        r"(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?$"
    )

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.used: set[tuple[str, str, str]] = set()
        self.denied: list[str] = []

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        if not self.allows(method, path, dict(options.get("query") or {})):
            return RawResponse(403, {}, b'{"kind":"Status","status":"Failure","reason":"Forbidden","code":403}')
        return await self._inner.request(method, path, **options)

    def stream(
        self, method: str, path: str, **options: Unpack[StreamOptions]
    ) -> AbstractAsyncContextManager[RawStream]:
        self.allows(method, path, {**(options.get("query") or {}), "watch": "true"})
        return self._inner.stream(method, path, **options)

    def allows(self, method: str, path: str, query: dict[str, str]) -> bool:
        match = self.PATH.match(path)
        assert match is not None, path
        resource = match["plural"] + (f"/{match['sub']}" if match["sub"] else "")
        reading = "watch" if query.get("watch") else "get" if match["name"] else "list"
        verb = {"GET": reading, "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[method]
        group = match["group"] or ""
        self.used.add((group, resource, verb))
        allowed = any(rule.group == group and resource in rule.resources and verb in rule.verbs for rule in RULES)
        if not allowed:
            self.denied.append(f"{verb} {resource}.{group}")
        return allowed


async def test_the_controllers_need_no_right_that_they_do_not_declare(make: Any) -> None:
    wires: list[Restricted] = []

    def wrap(server: InMemoryApiServer) -> Restricted:
        wires.append(Restricted(server.transport()))
        return wires[-1]

    async with make.house(wrap=wrap) as house:
        await house.make(make.template(), make.pool(replicas=2), make.sandbox(volumeClaimTemplates=[*make.volumes]))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        ends = {"shutdownTime": house.at(60), "shutdownPolicy": "Delete"}
        await house.make(make.claim(), make.claim("cold", warmpool="none", lifecycle=ends))
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.ready(SANDBOX_CLAIMS, "cold")
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 0}})
        await house.edit(SANDBOX_WARM_POOLS, "pool", {"spec": {"replicas": 0}})
        await house.settle(90)
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 1, "shutdownTime": house.at(-5)}})
        await house.delete(SANDBOX_CLAIMS, "mine")
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(90)

        assert wires[0].denied == []
        assert await house.all(NETWORK_POLICIES) == []


def test_no_rule_is_declared_twice_or_with_a_wildcard() -> None:
    granted = [(rule.group, resource, verb) for rule in RULES for resource in rule.resources for verb in rule.verbs]

    assert len(granted) == len(set(granted))
    assert not any("*" in part for grant in granted for part in grant)
