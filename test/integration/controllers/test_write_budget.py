"""The budget of API writes, counted on the wire: kubelet and scheduler aside, Services switched off."""

from typing import Any

import anyio
import pytest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_WARM_POOLS


@pytest.mark.parametrize(
    "seconds", [0.5, *(pytest.param(each, marks=pytest.mark.embedded) for each in (3.0, 6.0, 14.0))]
)
async def test_a_warm_claim_is_ready_after_two_writes_and_costs_seven_with_its_refill(
    make: Any, seconds: float
) -> None:
    async with make.house(kubelet_seconds=seconds) as house:
        await house.make(make.template(), make.pool(replicas=3))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(120)
        house.wire.seen.clear()

        await house.make(make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine", within=1)

        path = f"/apis/extensions.agents.x-k8s.io/v1alpha1/namespaces/{house.namespace}/sandboxclaims/mine/status"
        until_ready = house.writes()[: house.writes().index(f"PATCH {path}") + 1]
        sandboxes = f"/apis/agents.x-k8s.io/v1alpha1/namespaces/{house.namespace}/sandboxes"
        mine_path = f"PATCH {sandboxes}/{mine.status.sandbox_name}"
        assert [write for write in until_ready if mine_path in write or path in write] == [mine_path, f"PATCH {path}"]
        await house.settle(120)
        assert len(house.writes(events=True)) <= 7, house.writes(events=True)
        assert (await house.get(SANDBOX_WARM_POOLS, "pool")).status.ready_replicas == 3


@pytest.mark.embedded
async def test_a_pool_reports_a_slow_refill_after_a_while_and_an_empty_pool_sooner(make: Any) -> None:
    async with make.house(kubelet_seconds=60.0) as house:
        await house.make(make.template(), make.pool(replicas=2))
        await house.ready(SANDBOX_WARM_POOLS, "pool", within=120)
        await house.settle(120)

        async def reports(ready: int) -> Any:
            return (await house.get(SANDBOX_WARM_POOLS, "pool")).status.ready_replicas == ready

        await house.make(make.claim("first"))
        await house.ready(SANDBOX_CLAIMS, "first", within=1)
        await house.settle(10)
        assert await reports(2)
        await house.until(lambda: reports(1), within=6)

        await house.make(make.claim("second"))
        await house.ready(SANDBOX_CLAIMS, "second", within=1)
        await house.until(lambda: reports(0), within=6)


@pytest.mark.embedded  # a bound in real time would measure the machine
async def test_the_two_writes_of_a_warm_claim_come_before_all_others(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(60)
        house.wire.seen.clear()

        await house.make(make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine", within=1)

        assert "/sandboxes/pool-" in house.writes()[0]
        at = {write.path: write.at for write in house.wire.writes}
        assert max(at.values()) - min(at.values()) < 0.1


@pytest.mark.parametrize("seconds", [0.5, *(pytest.param(each, marks=pytest.mark.embedded) for each in (3.0, 30.0))])
async def test_a_cold_claim_costs_six_writes_at_most(make: Any, seconds: float) -> None:
    async with make.house(kubelet_seconds=seconds) as house:
        await house.make(make.template())
        await house.settle(60)
        house.wire.seen.clear()

        await house.make(make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(120)

        assert len(house.writes()) <= 6, house.writes()


@pytest.mark.embedded
async def test_a_steady_cluster_and_a_resync_cost_nothing(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3), make.sandbox(), make.claim(), make.claim("cold"))
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(300)
        house.wire.seen.clear()

        await house.settle(12 * 3600)

        assert house.writes(events=True) == []


async def test_a_restarted_manager_writes_nothing_to_a_settled_cluster(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3), make.sandbox(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(300)
        house.wire.seen.clear()
        house.wire.drop_watches()

        await house.settle(300)

        assert house.writes(events=True) == []


@pytest.mark.parametrize("flaps", [1, 4])
async def test_a_pod_that_flaps_costs_one_status_write_each_time(make: Any, flaps: int) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        await house.ready(SANDBOXES, "alice")
        await house.settle(60)
        house.wire.seen.clear()
        pod = await house.get(PODS, "alice")
        ready = make.ready_status("10.0.0.9")
        unready = {**ready, "conditions": [{"type": "Ready", "status": "False"}]}

        for flap in range(flaps):
            await house.kubelet.report(pod, unready if flap % 2 == 0 else ready)
            await anyio.sleep(5)

        assert len(house.writes()) <= flaps


@pytest.mark.embedded
async def test_no_pass_runs_again_for_what_it_has_just_written(make: Any) -> None:
    """A warm claim: one pass over the claim, three over Sandboxes: once for the one that it got, twice for the new."""
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(120)

        def passes(controller: str) -> float:
            family, labels = "controller_runtime_reconcile_time_seconds_count", {"controller": controller}
            return house.manager.registry.get_sample_value(family, labels) or 0.0

        before = {name: passes(name) for name in ("sandboxclaim", "sandbox")}
        await house.make(make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(120)

        assert {name: passes(name) - count for name, count in before.items()} == {"sandboxclaim": 1, "sandbox": 3}
