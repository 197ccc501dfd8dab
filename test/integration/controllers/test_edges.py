"""Edge cases of the Go original that need a whole cluster; the numbers are those of docs/edge-cases.md."""

from typing import Any

import anyio
import pytest

from agent_sandbox.testing import Fault
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS

UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ],
}
SUCCEEDED = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}


def patches_of(house: Any, name: str) -> list[Any]:
    """The manager's attempts to change a Sandbox's metadata or spec."""
    return [each for each in house.wire.writes if each.method == "PATCH" and each.path.endswith(f"/sandboxes/{name}")]


def events_of(house: Any, reason: str) -> list[Any]:
    return [each for each in house.wire.writes if each.path.endswith("/events") and each.body["reason"] == reason]


async def test_edge_137_a_member_that_is_being_deleted_is_passed_over(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=2))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        going, staying = sorted(each.metadata.name for each in await house.all(SANDBOXES))
        await house.edit(SANDBOXES, going, {"metadata": {"finalizers": ["example.com/hold"]}})
        await house.delete(SANDBOXES, going)

        await house.make(make.claim(warmpool="pool"))

        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == staying
        await house.edit(SANDBOXES, going, {"metadata": {"finalizers": None}})


async def test_edge_142_a_conflict_on_the_adoption_is_resolved_on_the_same_member(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        (member,) = await house.all(SANDBOXES)
        await house.settle(10)
        house.wire.inject(Fault.conflict(), method="PATCH", path=f"/sandboxes/{member.metadata.name}")

        await house.make(make.claim())

        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == member.metadata.name
        assert len(patches_of(house, member.metadata.name)) == 2


async def test_edge_169_an_adoption_whose_answer_was_lost_costs_no_second_write(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        (member,) = await house.all(SANDBOXES)
        await house.settle(10)
        house.wire.inject(Fault.lost_answer(), method="PATCH", path=f"/sandboxes/{member.metadata.name}")

        await house.make(make.claim())

        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == member.metadata.name
        assert len(patches_of(house, member.metadata.name)) == 1


async def test_edge_191_a_clients_time_is_measured_if_it_is_one(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        for name, said in (("good", house.at(-1)), ("none", None), ("bad", "yesterday"), ("future", house.at(3600))):
            claim = make.claim(name)
            if said is not None:
                claim["metadata"]["annotations"] = {"agents.x-k8s.io/client-first-requested-at": said}
            await house.make(claim)
            await house.ready(SANDBOX_CLAIMS, name)

        labels = {"launch_type": "cold", "sandbox_template": "python"}
        value = house.manager.registry.get_sample_value
        assert value("agent_sandbox_client_claim_startup_latency_ms_count", labels) == 1
        assert value("agent_sandbox_claim_controller_startup_latency_ms_count", labels) == 4


@pytest.mark.embedded
async def test_edge_211_a_template_of_the_same_name_elsewhere_is_no_business_of_a_pool(make: Any) -> None:
    async with make.house() as house:
        await house.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shared"}})
        elsewhere = make.template()
        elsewhere["metadata"]["namespace"] = "shared"
        await house.make(elsewhere, make.pool(replicas=1))
        await house.settle(30)

        assert await house.all(SANDBOXES) == []


@pytest.mark.embedded
async def test_edge_227_a_member_that_is_scheduled_and_never_ready_is_replaced_after_its_grace(make: Any) -> None:
    async with make.house() as house:
        house.kubelet.default = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}
        await house.make(make.template(), make.pool(replicas=1))
        await house.settle(290)
        (stuck,) = await house.all(SANDBOXES)
        house.kubelet.default = None
        await house.settle(120)

        (other,) = await house.all(SANDBOXES)
        assert other.metadata.uid != stuck.metadata.uid
        await house.ready(SANDBOX_WARM_POOLS, "pool")


@pytest.mark.embedded
async def test_edge_230_members_that_no_node_takes_are_held_and_told_once_in_a_quiet_cluster(make: Any) -> None:
    async with make.house() as house:
        house.kubelet.default = UNSCHEDULABLE
        await house.make(make.template(), make.pool(replicas=2))
        await house.settle(5)
        held = {each.metadata.uid for each in await house.all(SANDBOXES)}
        await house.settle(3600)

        assert {each.metadata.uid for each in await house.all(SANDBOXES)} == held
        pool = await house.get(SANDBOX_WARM_POOLS, "pool")
        assert make.condition(pool, "Progressing").reason == "Unschedulable"
        assert len(events_of(house, "WarmPoolNotProgressing")) == 1

        for pod in await house.all(PODS):
            await house.kubelet.report(pod, make.ready_status("10.0.0.9"))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(5)
        assert len(events_of(house, "WarmPoolProgressing")) == 1


async def test_edge_258_two_suspends_keep_the_service_and_move_the_condition_only_when_it_flips(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox())
        await house.ready(SANDBOXES, "alice")
        service = (await house.get(SERVICES, "alice")).metadata.uid
        moments = []
        for _ in range(2):
            for replicas, state in ((0, "False"), (1, "True")):
                await anyio.sleep(1.1)
                edited = await house.edit(SANDBOXES, "alice", {"spec": {"replicas": replicas}})
                alice = await house.ready(SANDBOXES, "alice", state)
                if replicas == 0:
                    alice = await house.until(lambda: _suspended(make, house))
                suspended = make.condition(alice, "Suspended")
                assert suspended.observed_generation == edited.metadata.generation
                moments.append(suspended.last_transition_time)

        assert moments == sorted(set(moments)), "each flip has its own moment"
        assert (await house.get(SERVICES, "alice")).metadata.uid == service


async def test_edge_259_a_pod_that_a_finalizer_holds_keeps_its_sandbox_suspending(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        await house.ready(SANDBOXES, "alice")
        await house.edit(PODS, "alice", {"metadata": {"finalizers": ["example.com/hold"]}})
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 0}})
        await house.reason(SANDBOXES, "alice", "SandboxSuspended")
        await house.settle(5)
        assert make.condition(await house.get(SANDBOXES, "alice"), "Suspended").reason == "PodTerminating"

        await house.edit(PODS, "alice", {"metadata": {"finalizers": None}})

        alice = await house.until(lambda: _suspended(make, house))
        assert make.condition(alice, "Suspended").reason == "PodTerminated"


async def test_edge_263_a_finished_pod_stays_on_record_when_its_sandbox_expires(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False, shutdownPolicy="Retain"))
        await house.ready(SANDBOXES, "alice")
        await house.kubelet.report(await house.get(PODS, "alice"), SUCCEEDED)
        await house.reason(SANDBOXES, "alice", "PodSucceeded")

        await house.edit(SANDBOXES, "alice", {"spec": {"shutdownTime": house.at(-5)}})

        await house.reason(SANDBOXES, "alice", "SandboxExpired")
        await house.until(lambda: _gone(house, PODS, "alice"))
        assert make.condition(await house.get(SANDBOXES, "alice"), "Finished").reason == "PodSucceeded"


async def test_edge_264_a_volume_has_its_name_its_owner_and_a_mount_in_the_pod(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False, volumeClaimTemplates=[*make.volumes]))
        alice = await house.ready(SANDBOXES, "alice")

        volume = await house.get(PERSISTENT_VOLUME_CLAIMS, "data-alice")
        assert volume.metadata.controller.uid == alice.metadata.uid
        assert volume.metadata.labels["agents.x-k8s.io/sandbox-name-hash"]
        pod = await house.api.get_object(PODS, "alice", house.namespace)
        mounted = {"name": "data", "persistentVolumeClaim": {"claimName": "data-alice"}}
        assert mounted in pod["spec"]["volumes"]


@pytest.mark.parametrize("policy", ["Delete", "DeleteForeground"])
async def test_edge_267_and_268_a_claim_goes_some_time_after_its_pod_finished(make: Any, policy: str) -> None:
    async with make.house() as house:
        lifecycle = {"ttlSecondsAfterFinished": 3, "shutdownTime": house.at(3600), "shutdownPolicy": policy}
        await house.make(make.template(), make.claim(lifecycle=lifecycle))
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.edit(PODS, "mine", {"metadata": {"finalizers": ["example.com/hold"]}})
        await house.kubelet.report(await house.get(PODS, "mine"), SUCCEEDED)

        async def pod_is_going() -> bool:
            return bool((await house.get(PODS, "mine")).metadata.deleting)

        await house.until(pod_is_going)
        claim = await house.get(SANDBOX_CLAIMS, "mine")
        if policy == "DeleteForeground":
            assert claim.metadata.deleting, "it stays until all that it owns is gone"
        else:
            await house.until(lambda: _gone(house, SANDBOX_CLAIMS, "mine"))
        await house.edit(PODS, "mine", {"metadata": {"finalizers": None}})
        for resource in (PODS, SANDBOXES, SANDBOX_CLAIMS):
            await house.until(lambda resource=resource: _gone(house, resource, "mine"))


async def test_edge_268_the_earlier_of_shutdown_time_and_ttl_counts_and_no_ttl_means_never(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        early = {"ttlSecondsAfterFinished": 3600, "shutdownTime": house.at(3600), "shutdownPolicy": "Retain"}
        await house.make(make.claim("early", lifecycle=early), make.claim("never", lifecycle={}))
        for name in ("early", "never"):
            await house.ready(SANDBOX_CLAIMS, name)
            await house.kubelet.report(await house.get(PODS, name), SUCCEEDED)
        await house.edit(SANDBOX_CLAIMS, "early", {"spec": {"lifecycle": {"shutdownTime": house.at(5)}}})

        await house.reason(SANDBOX_CLAIMS, "early", "ClaimExpired")

        early_claim = await house.until(lambda: _without_sandbox(house, "early"))
        assert make.condition(early_claim, "Finished").status == "True"
        assert (await house.reason(SANDBOX_CLAIMS, "never", "PodSucceeded")).status == "False"
        assert await house.get(SANDBOXES, "never") is not None


async def test_edge_269_metadata_edits_replace_no_member_and_another_template_replaces_all(make: Any) -> None:
    async with make.house() as house:
        recreate = {"type": "Recreate"}
        await house.make(make.template(), make.template("node"))
        await house.make(
            make.pool(replicas=2, updateStrategy=recreate), make.pool("other", replicas=1, template="node")
        )
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.ready(SANDBOX_WARM_POOLS, "other")
        before = await _members(house)

        await house.edit(SANDBOX_TEMPLATES, "python", {"spec": {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}})
        await house.settle(10)
        assert await _members(house) == before

        await house.edit(SANDBOX_WARM_POOLS, "pool", {"spec": {"sandboxTemplateRef": {"name": "node"}}})

        async def replaced() -> bool:
            now = await _members(house)
            return not now["pool"] & before["pool"] and len(now["pool"]) == 2

        await house.until(replaced)
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        assert (await _members(house))["other"] == before["other"]


async def test_edge_272_volumes_of_a_claim_start_it_cold_and_those_of_its_template_do_not(make: Any) -> None:
    async with make.house() as house:
        volumes = {"volumeClaimTemplates": [*make.volumes], "volumeClaimTemplatesPolicy": "Overrides"}
        await house.make(make.template(**volumes), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        (member,) = await house.all(SANDBOXES)
        larger = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
        own = [{"metadata": {"name": "data"}, "spec": larger}]

        await house.make(make.claim("own", volumeClaimTemplates=own), make.claim("plain"))

        assert (await house.ready(SANDBOX_CLAIMS, "plain")).status.sandbox_name == member.metadata.name
        assert (await house.ready(SANDBOX_CLAIMS, "own")).status.sandbox_name == "own"
        sizes = {}
        for name in ("data-own", f"data-{member.metadata.name}"):
            volume = await house.api.get_object(PERSISTENT_VOLUME_CLAIMS, name, house.namespace)
            sizes[name] = volume["spec"]["resources"]["requests"]["storage"]
        assert [*sizes.values()] == ["2Gi", "1Gi"]


@pytest.mark.embedded
async def test_edge_274_members_carry_the_runtime_class_of_their_template(make: Any) -> None:
    """Fill, claim, refill, claim."""
    async with make.house() as house:
        container = {"name": "main", "image": "x"}
        await house.make(
            make.template(podTemplate={"spec": {"runtimeClassName": "gvisor", "containers": [container]}}),
            make.pool(replicas=1),
        )
        for name in ("first", "second"):
            await house.ready(SANDBOX_WARM_POOLS, "pool")
            await house.make(make.claim(name, warmpool="pool"))
            held = (await house.ready(SANDBOX_CLAIMS, name)).status.sandbox_name
            pod = await house.api.get_object(PODS, held, house.namespace)
            assert pod["spec"]["runtimeClassName"] == "gvisor"
            await house.settle(30)


@pytest.mark.embedded
async def test_a_pod_whose_node_is_dead_is_not_doubled_and_the_sandbox_says_what_helps(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        await house.ready(SANDBOXES, "alice")
        await house.edit(PODS, "alice", {"metadata": {"finalizers": ["example.com/dead-node"]}})
        await house.delete(PODS, "alice")
        before = await house.reason(SANDBOXES, "alice", "DependenciesNotReady")
        assert before.message == "Pod is terminating"
        house.wire.seen.clear()
        await house.settle(600)

        after = make.condition(await house.get(SANDBOXES, "alice"), "Ready")
        assert "kubectl delete pod alice --force" in after.message
        assert len(house.writes()) == 1, "told once"
        await house.edit(PODS, "alice", {"metadata": {"finalizers": None}})
        await house.ready(SANDBOXES, "alice")


@pytest.mark.embedded
async def test_a_forged_member_that_is_collected_before_it_has_a_status_leaves_an_event(make: Any) -> None:
    async with make.house() as house:
        owner = {
            "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
            "kind": "SandboxWarmPool",
            "name": "pool",
            "uid": "11111111-1111-1111-1111-111111111111",
            "controller": True,
        }
        forged = make.sandbox("forged", service=False)
        forged["metadata"] |= {"ownerReferences": [owner], "finalizers": ["example.com/hold"]}
        house.wire.inject(Fault.slow_stream(2), path="/sandboxes", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        await house.make(forged, make.template(), make.claim())
        await house.settle(10)
        await house.delete(SANDBOX_CLAIMS, "mine")
        await house.settle(10)

        (event,) = events_of(house, "OwnerNotFound")
        assert "does not exist" in event.body["note"]
        assert event.body["regarding"]["name"] == "forged", "not the one whose claim was deleted"


async def test_defect_27_a_member_that_one_claim_failed_to_take_is_taken_by_the_next(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        (member,) = await house.all(SANDBOXES)
        await house.settle(10)
        path = f"/sandboxes/{member.metadata.name}"
        house.wire.inject(Fault.unreachable(), method="PATCH", path=path, times=None)
        await house.make(make.claim("first"))
        await house.settle(3)
        await house.delete(SANDBOX_CLAIMS, "first")
        house.wire.heal()

        await house.make(make.claim("second", warmpool="pool"))

        assert (await house.ready(SANDBOX_CLAIMS, "second")).status.sandbox_name == member.metadata.name


@pytest.mark.embedded
async def test_defect_36_a_cold_start_does_not_loop_while_the_watch_lags(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        await house.settle(5)
        house.wire.inject(Fault.silent_stream(), path="/sandboxes", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        house.wire.inject(Fault.lost_answer(), method="POST", path="/sandboxes")
        await house.make(make.claim())

        await house.ready(SANDBOX_CLAIMS, "mine", within=20)

        assert len([write for write in house.writes() if write.startswith("POST") and "/sandboxes" in write]) == 1


@pytest.mark.embedded
async def test_defect_39_a_large_pool_keeps_no_other_waiting(make: Any) -> None:
    async with make.house() as house:
        house.wire.inject(Fault.slow(1), method="POST", path="/sandboxes", times=None)
        await house.make(make.template(), make.pool("large", replicas=100))
        await house.settle(0.5)
        await house.make(make.pool("small", replicas=1))

        await house.ready(SANDBOX_WARM_POOLS, "small", within=5)

        large = await house.get(SANDBOX_WARM_POOLS, "large")
        assert (large.status.ready_replicas or 0) < 100, "it has just begun"


async def _members(house: Any) -> dict[str, set[str]]:
    members: dict[str, set[str]] = {"pool": set(), "other": set()}
    for sandbox in await house.all(SANDBOXES):
        if not sandbox.metadata.deleting:
            members[sandbox.metadata.controller.name].add(sandbox.metadata.uid)
    return members


async def _suspended(make: Any, house: Any) -> Any:
    alice = await house.get(SANDBOXES, "alice")
    return alice if make.condition(alice, "Suspended").status == "True" else None


async def _without_sandbox(house: Any, name: str) -> Any:
    claim = await house.get(SANDBOX_CLAIMS, name)
    return claim if claim.status.sandbox_name is None else None


async def _gone(house: Any, resource: Any, name: str) -> bool:
    return await house.get(resource, name) is None
