"""The main path: a Sandbox, a template, a pool, a claim; warm and cold; suspend, resume and expire."""

from typing import Any

import pytest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_WARM_POOLS


async def test_a_sandbox_gets_volume_service_and_pod_and_becomes_ready(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(volumeClaimTemplates=[*make.volumes]))

        alice = await house.ready(SANDBOXES, "alice")

        pod = await house.get(PODS, "alice")
        assert pod.metadata.controller.uid == alice.metadata.uid
        assert (await house.get(SERVICES, "alice")).spec.cluster_ip == "None"
        assert await house.get(PERSISTENT_VOLUME_CLAIMS, "data-alice") is not None
        assert alice.status.service_fqdn == f"alice.{house.namespace}.svc.cluster.local"
        assert alice.status.pod_ips == pod.ips
        assert alice.status.replicas == 1


async def test_a_warm_claim_gets_a_pool_member_and_the_pool_is_refilled(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=2))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        members = {each.metadata.name for each in await house.all(SANDBOXES)}

        await house.make(make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine", within=0.2)

        assert mine.status.sandbox_name in members
        assert mine.status.sandbox.name == mine.status.sandbox_name
        assert mine.status.sandbox.pod_ips
        await house.settle()
        assert len(await house.all(SANDBOXES)) == 3
        assert (await house.get(SANDBOX_WARM_POOLS, "pool")).status.ready_replicas == 2
        assert (
            "agents.x-k8s.io/warm-pool-sandbox" not in (await house.get(PODS, mine.status.sandbox_name)).metadata.labels
        )


async def test_a_claim_without_a_pool_starts_cold(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim())

        mine = await house.ready(SANDBOX_CLAIMS, "mine")

        assert mine.status.sandbox_name == "mine"
        policy = await house.get(NETWORK_POLICIES, "python-network-policy")
        labels = (await house.get(PODS, "mine")).metadata.labels
        selector = {"agents.x-k8s.io/sandbox-template-ref-hash", "agents.x-k8s.io/sandbox-template-id"}
        assert selector <= set(labels)
        assert policy.metadata.controller is None


async def test_a_claim_for_a_missing_template_says_so_at_once_and_heals(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.claim())

        condition = await house.reason(SANDBOX_CLAIMS, "mine", "TemplateNotFound", within=0.5)
        assert 'SandboxTemplate "python" not found' in condition.message

        await house.make(make.template())
        await house.ready(SANDBOX_CLAIMS, "mine", within=5)


async def test_a_suspended_sandbox_loses_its_pod_keeps_its_volume_and_resumes(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(volumeClaimTemplates=[*make.volumes]))
        await house.ready(SANDBOXES, "alice")
        volume = await house.get(PERSISTENT_VOLUME_CLAIMS, "data-alice")

        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 0}})
        await house.reason(SANDBOXES, "alice", "SandboxSuspended")

        async def gone() -> bool:
            return await house.get(PODS, "alice") is None

        await house.until(gone)
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 1}})
        await house.ready(SANDBOXES, "alice")
        assert (await house.get(PERSISTENT_VOLUME_CLAIMS, "data-alice")).metadata.uid == volume.metadata.uid


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_an_expired_sandbox_goes_or_stays_as_a_record(make: Any, policy: str) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(shutdownTime=house.at(3600), shutdownPolicy=policy))
        await house.ready(SANDBOXES, "alice")
        await house.edit(SANDBOXES, "alice", {"spec": {"shutdownTime": house.at(5)}})

        async def over() -> bool:
            left = await house.get(SANDBOXES, "alice")
            if left is None or policy == "Delete":
                return left is None
            return left.status.service is None and left.status.pod_ips == ()

        await house.until(over, within=20)
        assert await house.all(PODS) == []
        assert await house.all(SERVICES) == []


async def test_deleting_a_claim_removes_its_sandbox_and_its_pod(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")

        await house.delete(SANDBOX_CLAIMS, "mine")

        async def gone() -> bool:
            return not await house.all(SANDBOXES) and not await house.all(PODS)

        await house.until(gone)
