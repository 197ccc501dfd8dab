"""What can go wrong in a cluster, one by one: each says what is wrong and what to do, and heals when its cause goes."""

from typing import Any

import anyio
import pytest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_controllers.template_record import TemplateRecord

OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "", "controller": True}
BAD_IMAGE: dict[str, Any] = {
    "phase": "Pending",
    "containerStatuses": [
        {
            "name": "main",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}},
        }
    ],
}


async def stranger(house: Any, kind: str, name: str, spec: dict[str, Any]) -> None:
    """An object that a ConfigMap owns: somebody else's, and the garbage collector leaves it alone."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"owner-of-{name}", "namespace": "default"}}
    owner = await house.server.create(config)
    reference = {**OTHER, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    metadata = {"name": name, "namespace": "default", "ownerReferences": [reference]}
    await house.make({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})


@pytest.mark.embedded
async def test_a_bad_image_is_explained_in_the_sandbox_and_in_the_claim_and_costs_few_writes(make: Any) -> None:
    async with make.house() as house:
        house.kubelet.default = BAD_IMAGE
        await house.make(make.template(), make.claim())

        condition = await house.reason(SANDBOX_CLAIMS, "mine", "ErrImagePull", within=2)
        assert 'container "main" waits: ErrImagePull: manifest unknown' in condition.message

        house.wire.seen.clear()
        pod = await house.get(PODS, "mine")
        for turn in range(40):
            reason = "ImagePullBackOff" if turn % 2 == 0 else "ErrImagePull"
            state = {**BAD_IMAGE["containerStatuses"][0], "state": {"waiting": {"reason": reason}}}
            await house.kubelet.report(pod, {**BAD_IMAGE, "containerStatuses": [state]})
            await anyio.sleep(30)
        assert len(house.writes()) <= 16

        await house.kubelet.report(pod, make.ready_status("10.0.0.9") | {"containerStatuses": []})
        await house.ready(SANDBOX_CLAIMS, "mine", within=2)


async def test_defect_07_and_44_a_foreign_volume_stops_the_pod_and_its_going_heals(make: Any) -> None:
    async with make.house() as house:
        await stranger(house, "PersistentVolumeClaim", "data-alice", make.volumes[0]["spec"])
        await house.make(make.sandbox(volumeClaimTemplates=[*make.volumes]))

        condition = await house.reason(SANDBOXES, "alice", "ReconcilerError")
        assert 'PVC "data-alice" is owned by ConfigMap/owner-of-data-alice' in condition.message
        assert await house.get(PODS, "alice") is None

        await house.delete(PERSISTENT_VOLUME_CLAIMS, "data-alice")
        await house.ready(SANDBOXES, "alice", within=5)


async def test_a_foreign_service_stops_the_pod_and_its_going_heals(make: Any) -> None:
    async with make.house() as house:
        await stranger(house, "Service", "alice", {"clusterIP": "None"})
        await house.make(make.sandbox())

        condition = await house.reason(SANDBOXES, "alice", "ReconcilerError")
        assert 'service "alice" is owned by ConfigMap/owner-of-alice' in condition.message
        assert await house.get(PODS, "alice") is None

        await house.delete(SERVICES, "alice")
        await house.ready(SANDBOXES, "alice", within=5)


async def test_edge_261_a_foreign_pod_is_never_touched_and_its_going_heals(make: Any) -> None:
    async with make.house() as house:
        await stranger(house, "Pod", "alice", {"containers": [{"name": "x", "image": "x"}]})
        await house.make(make.sandbox(service=False))

        await house.reason(SANDBOXES, "alice", "ReconcilerError")
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 0}})
        await house.settle(5)
        suspended = make.condition((await house.get(SANDBOXES, "alice")), "Suspended")
        assert suspended.reason == "PodNotOwned"
        assert await house.get(PODS, "alice") is not None

        await house.delete(PODS, "alice")
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 1}})
        await house.ready(SANDBOXES, "alice", within=5)


async def test_edge_260_and_270_a_deleted_pod_is_seen_at_once_and_made_again(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        before = (await house.ready(SANDBOXES, "alice")) and await house.get(PODS, "alice")

        house.kubelet.default = {"phase": "Pending"}  # so that nobody can overlook that there was none
        await house.delete(PODS, "alice")

        await house.ready(SANDBOXES, "alice", "False", within=0.2)
        await house.until(lambda: _exists(house, PODS, "alice"))
        await house.settle(1)
        await house.kubelet.report(await house.get(PODS, "alice"), make.ready_status("10.0.0.9"))
        await house.ready(SANDBOXES, "alice")
        assert (await house.get(PODS, "alice")).metadata.uid != before.metadata.uid


async def test_an_evicted_pod_comes_back_on_the_same_volume_and_is_counted(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False, volumeClaimTemplates=[*make.volumes]))
        await house.ready(SANDBOXES, "alice")
        volume = await house.get(PERSISTENT_VOLUME_CLAIMS, "data-alice")
        pod = await house.get(PODS, "alice")

        await house.kubelet.report(pod, {"phase": "Failed", "reason": "Evicted", "message": "out of memory"})

        async def is_another() -> bool:
            now = await house.get(PODS, "alice")
            return now is not None and now.metadata.uid != pod.metadata.uid

        await house.until(is_another)
        await house.ready(SANDBOXES, "alice")
        assert (await house.get(PERSISTENT_VOLUME_CLAIMS, "data-alice")).metadata.uid == volume.metadata.uid
        labels = {"namespace": house.namespace}
        assert house.manager.registry.get_sample_value("agent_sandbox_pods_lost_total", labels) == 1

        async def told() -> Any:
            events = [each.body for each in house.wire.writes if each.path.endswith("/events")]
            return next((each for each in events if each["reason"] == "PodLost"), None)

        assert "with the same volumes; what was in no persistent volume is gone" in (await house.until(told))["note"]


async def test_defect_01_and_02_the_policy_stands_before_the_pod_and_outlives_its_template(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        order = [write for write in house.writes() if write.startswith("POST")]
        assert [write.rsplit("/", 1)[1] for write in order[:1]] == ["networkpolicies"]

        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(120)
        assert await house.get(NETWORK_POLICIES, "python-network-policy") is not None
        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == "mine"

        await house.delete(SANDBOX_CLAIMS, "mine")

        async def tidy() -> bool:
            return await house.get(NETWORK_POLICIES, "python-network-policy") is None

        await house.until(tidy)


async def test_defect_02_without_its_policy_a_template_starts_no_pod_and_everybody_says_why(make: Any) -> None:
    async with make.house() as house:
        foreign = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "python-network-policy", "namespace": "default"},
            "spec": {"podSelector": {}},
        }
        await house.make(foreign, make.template(), make.claim(), make.pool(replicas=1))

        condition = await house.reason(SANDBOX_CLAIMS, "mine", "NetworkPolicyNotReady")
        assert "no Pod is created before it does" in condition.message
        assert await house.all(PODS) == []
        await house.settle(1000)
        template = await house.get(SANDBOX_TEMPLATES, "python")
        assert make.condition(template, "NetworkPolicyReady").reason == "NetworkPolicyConflict"
        pool = await house.get(SANDBOX_WARM_POOLS, "pool")
        assert make.condition(pool, "Progressing").reason == "NetworkPolicyNotReady"
        assert await house.all(PODS) == []

        await house.delete(NETWORK_POLICIES, "python-network-policy")
        await house.ready(SANDBOX_CLAIMS, "mine", within=20)


async def test_a_policy_that_somebody_deletes_or_edits_is_repaired(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        await house.until(lambda: _exists(house, NETWORK_POLICIES, "python-network-policy"))
        await house.edit(NETWORK_POLICIES, "python-network-policy", {"spec": {"ingress": [{}]}})
        await house.settle(1)
        spec = await house.api.get_object(NETWORK_POLICIES, "python-network-policy", house.namespace)
        assert spec["spec"]["ingress"][0]["from"]

        await house.delete(NETWORK_POLICIES, "python-network-policy")
        await house.settle(1)
        assert await house.get(NETWORK_POLICIES, "python-network-policy") is not None


async def test_a_policy_whose_template_is_gone_comes_back_as_it_was_as_long_as_it_governs_a_pod(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(networkPolicy={"egress": [{"ports": [{"port": 53}]}]}), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(5)
        before = await house.api.get_object(NETWORK_POLICIES, "python-network-policy", house.namespace)

        await house.delete(NETWORK_POLICIES, "python-network-policy")
        await house.settle(1)
        after = await house.api.get_object(NETWORK_POLICIES, "python-network-policy", house.namespace)
        assert after["spec"] == before["spec"]
        assert after["metadata"]["labels"] == before["metadata"]["labels"]
        assert after["metadata"]["uid"] != before["metadata"]["uid"]

        await house.delete(SANDBOX_CLAIMS, "mine")
        await house.until(lambda: _gone(house, NETWORK_POLICIES, "python-network-policy"))
        await house.settle(30)
        assert await house.get(NETWORK_POLICIES, "python-network-policy") is None


async def test_defect_35_and_48_a_vanished_sandbox_is_told_and_not_replaced(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine")

        await house.delete(SANDBOXES, mine.status.sandbox_name)

        condition = await house.reason(SANDBOX_CLAIMS, "mine", "SandboxMissing")
        assert "delete the claim and make a new one" in condition.message
        await house.settle(600)
        assert (await house.get(SANDBOX_CLAIMS, "mine")).status.sandbox_name == mine.status.sandbox_name


async def test_defect_34_a_healthy_claim_does_not_mind_that_template_and_pool_go(make: Any) -> None:
    async with make.house() as house:
        extra = {"labels": {"sandbox.users.io/team": "x"}}
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim(warmpool="pool", additionalPodMetadata=extra))
        mine = await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(5)
        pod = await house.get(PODS, mine.status.sandbox_name)
        assert pod.metadata.labels["sandbox.users.io/team"] == "x"

        await house.delete(SANDBOX_WARM_POOLS, "pool")
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(300)

        await house.ready(SANDBOX_CLAIMS, "mine")


async def test_defect_12_pointing_a_bound_claim_elsewhere_moves_it_under_no_other_policy(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.template("node"), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        before = (await house.get(PODS, "mine")).metadata.labels

        await house.edit(SANDBOX_CLAIMS, "mine", {"spec": {"sandboxTemplateRef": {"name": "node"}}})
        await house.settle(30)

        assert (await house.get(PODS, "mine")).metadata.labels == before
        await house.ready(SANDBOX_CLAIMS, "mine")


async def test_edge_106_a_namesake_sandbox_is_told_and_its_going_heals(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.sandbox("mine"), make.claim())
        await house.reason(SANDBOX_CLAIMS, "mine", "SandboxNameConflict")

        await house.delete(SANDBOXES, "mine")

        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == "mine"


async def test_edge_104_and_113_a_pool_without_template_says_so_and_fills_when_it_comes(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.pool(replicas=2))
        await house.settle(5)
        pool = await house.get(SANDBOX_WARM_POOLS, "pool")
        assert make.condition(pool, "Progressing").reason == "TemplateNotFound"

        await house.make(make.template())
        await house.ready(SANDBOX_WARM_POOLS, "pool")


async def test_edge_105_a_missing_pool_that_is_insisted_on_heals_when_it_comes(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim(warmpool="pool"))
        await house.reason(SANDBOX_CLAIMS, "mine", "WarmPoolNotFound", within=0.5)

        await house.make(make.pool(replicas=1))
        await house.ready(SANDBOX_CLAIMS, "mine")


async def test_edge_158_and_defect_09_a_spoofed_member_is_never_adopted_and_gets_no_pod(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        spoof = make.sandbox("spoof")
        spoof["metadata"] |= {
            "labels": {"agents.x-k8s.io/warm-pool-sandbox": "91dd7983"},
            "ownerReferences": [
                {
                    "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
                    "kind": "SandboxWarmPool",
                    "name": "pool",
                    "uid": "11111111-1111-1111-1111-111111111111",
                    "controller": True,
                }
            ],
        }
        await house.make(make.pool(replicas=0), spoof, make.claim())

        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == "mine"
        assert await house.get(PODS, "spoof") is None


@pytest.mark.embedded
async def test_a_template_of_another_namespace_serves_those_it_allows(make: Any) -> None:
    async with make.house() as house:
        await house.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shared"}})
        shared = make.template()
        shared["metadata"]["namespace"] = "shared"
        await house.make(shared, make.claim(sandboxTemplateRef={"name": "python", "namespace": "shared"}))
        await house.reason(SANDBOX_CLAIMS, "mine", "TemplateNotAllowed", within=0.5)

        body = {"spec": {"allowedNamespaces": [house.namespace]}}
        await house.api.patch(SANDBOX_TEMPLATES, "python", make.merge(body), "shared")
        await house.ready(SANDBOX_CLAIMS, "mine")
        policies = await house.all(NETWORK_POLICIES, house.namespace)
        pod = await house.get(PODS, "mine")
        (policy,) = policies
        identity = "agents.x-k8s.io/sandbox-template-id"
        assert policy.metadata.labels[identity] == pod.metadata.labels[identity]

        await house.delete(SANDBOX_CLAIMS, "mine")
        await house.settle(60)
        assert await house.all(NETWORK_POLICIES, house.namespace) == []
        assert len(await house.all(NETWORK_POLICIES, "shared")) == 1


@pytest.mark.embedded
async def test_a_template_shows_nothing_to_a_namespace_that_it_does_not_allow(make: Any) -> None:
    """Neither its rules, to whoever labels a Sandbox, nor its Pods' labels, to whoever edits a Sandbox's record."""
    async with make.house() as house:
        await house.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "secret"}})
        hidden = make.template("hidden", networkPolicy={"egress": [{"ports": [{"port": 4242}]}]})
        hidden["metadata"]["namespace"] = "secret"
        hidden["spec"]["podTemplate"] = {**hidden["spec"]["podTemplate"], "metadata": {"labels": {"inner": "secret"}}}
        await house.make(hidden, make.template(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")

        record = TemplateRecord("secret", "hidden")
        forged = {"labels": record.labels(), "annotations": record.annotations(house.namespace)}
        await house.edit(SANDBOXES, "mine", {"metadata": forged})
        pretender = make.sandbox("pretender")
        pretender["metadata"] |= forged
        await house.make(pretender)
        await house.settle(60)

        names = {policy.metadata.name for policy in await house.all(NETWORK_POLICIES, house.namespace)}
        assert names == {"python-network-policy"}
        mine = await house.api.get_object(SANDBOXES, "mine", house.namespace)
        assert "secret" not in str(mine["spec"])


@pytest.mark.embedded
async def test_a_namespace_that_is_no_longer_allowed_keeps_the_policy_of_its_pods(make: Any) -> None:
    async with make.house() as house:
        await house.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shared"}})
        shared = make.template(allowedNamespaces=[house.namespace])
        shared["metadata"]["namespace"] = "shared"
        await house.make(shared, make.claim(sandboxTemplateRef={"name": "python", "namespace": "shared"}))
        await house.ready(SANDBOX_CLAIMS, "mine")
        body: dict[str, Any] = {"spec": {"allowedNamespaces": []}}
        await house.api.patch(SANDBOX_TEMPLATES, "python", make.merge(body), "shared")
        await house.settle(60)
        (policy,) = await house.all(NETWORK_POLICIES, house.namespace)

        await house.delete(NETWORK_POLICIES, policy.metadata.name)
        await house.settle(1)
        (again,) = await house.all(NETWORK_POLICIES, house.namespace)
        assert bytes(again.spec) == bytes(policy.spec)


@pytest.mark.parametrize(("policy", "claim_stays"), [("Retain", True), ("Delete", False), ("DeleteForeground", False)])
async def test_edge_176_to_178_an_expired_claim_loses_its_sandbox(make: Any, policy: str, claim_stays: bool) -> None:
    async with make.house() as house:
        lifecycle = {"shutdownTime": house.at(3600), "shutdownPolicy": policy}
        await house.make(make.template(), make.claim(lifecycle=lifecycle))
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.edit(SANDBOX_CLAIMS, "mine", {"spec": {"lifecycle": {"shutdownTime": house.at(5)}}})

        async def over() -> bool:
            left = await house.get(SANDBOX_CLAIMS, "mine")
            if left is None or not claim_stays:
                return left is None
            return make.condition(left, "Ready").reason == "ClaimExpired" and left.status.sandbox_name is None

        await house.until(over, within=20)
        for resource in (SANDBOXES, PODS):
            await house.until(lambda resource=resource: _gone(house, resource, "mine"))


async def test_edge_180_a_finished_pod_ends_its_claim_after_the_ttl(make: Any) -> None:
    async with make.house() as house:
        lifecycle = {"ttlSecondsAfterFinished": 10, "shutdownPolicy": "Retain"}
        await house.make(make.template(), make.claim(lifecycle=lifecycle))
        await house.ready(SANDBOX_CLAIMS, "mine")

        finished = anyio.current_time()
        await house.kubelet.report(await house.get(PODS, "mine"), {"phase": "Succeeded"})

        await house.until(lambda: _gone(house, SANDBOXES, "mine"))
        deletes = [
            each for each in house.wire.writes if each.method == "DELETE" and each.path.endswith("/sandboxes/mine")
        ]
        assert deletes[0].at - finished > 9, "moments of Kubernetes are whole seconds"
        claim = await house.get(SANDBOX_CLAIMS, "mine")
        assert make.condition(claim, "Finished").status == "True"


async def test_edge_160_and_266_a_burst_gives_each_claim_its_own_sandbox_and_the_pool_is_full_again(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=10))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(30)
        house.wire.seen.clear()

        for number in range(30):
            await house.make(make.claim(f"c{number}"))
        for number in range(30):
            await house.ready(SANDBOX_CLAIMS, f"c{number}")
        await house.settle(60)

        owners = [each.metadata.controller for each in await house.all(SANDBOXES)]
        of_claims = [owner.uid for owner in owners if owner.kind == "SandboxClaim"]
        assert len(of_claims) == len(set(of_claims)) == 30
        assert sum(owner.kind == "SandboxWarmPool" for owner in owners) == 10
        warm = [each for each in await house.all(SANDBOX_CLAIMS) if each.status.sandbox_name.startswith("pool-")]
        # How many more the pool can give in a claim's two seconds of patience tells of a real machine, not of us.
        assert len(warm) >= (10 if house.is_real else 20)
        assert len(house.writes()) <= 30 * 7


async def test_a_pool_scales_down_without_touching_what_was_claimed(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine")

        await house.api.set_scale(SANDBOX_WARM_POOLS, "pool", 0, house.namespace)
        await house.settle(30)

        (left,) = await house.all(SANDBOXES)
        assert left.metadata.name == mine.status.sandbox_name
        assert (await house.get(SANDBOX_WARM_POOLS, "pool")).status.replicas == 0


@pytest.mark.parametrize("strategy", ["Recreate", "Rolling"])
async def test_edge_214_a_changed_template_replaces_members(make: Any, strategy: str) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3, updateStrategy={"type": strategy}))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        before = {each.metadata.uid for each in await house.all(SANDBOXES)}

        spec = {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "newer"}]}}}
        await house.edit(SANDBOX_TEMPLATES, "python", {"spec": spec})
        await house.settle(60)

        after = {each.metadata.uid for each in await house.all(SANDBOXES)}
        assert len(after) == 3
        assert not before & after
        await house.ready(SANDBOX_WARM_POOLS, "pool")


async def test_a_pod_that_the_server_refuses_is_a_condition_and_is_not_tried_in_a_loop(make: Any) -> None:
    async with make.house() as house:
        from agent_sandbox.testing import Fault

        house.wire.inject(Fault.error(403, "Forbidden"), method="POST", path="/pods", times=None)
        await house.make(make.sandbox(service=False))

        condition = await house.reason(SANDBOXES, "alice", "Rejected", within=1)
        assert 'cannot create Pod "alice"' in condition.message
        await house.settle(120)
        assert len([write for write in house.writes() if write.endswith("/pods")]) <= 6

        house.wire.heal()
        await house.ready(SANDBOXES, "alice", within=60)


async def test_a_claim_forgets_the_address_of_its_suspended_sandbox_with_one_write(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        assert (await house.get(SANDBOX_CLAIMS, "mine")).status.sandbox.pod_ips
        await house.settle(60)
        house.wire.seen.clear()

        await house.api.set_scale(SANDBOXES, "mine", 0, house.namespace)
        await house.reason(SANDBOX_CLAIMS, "mine", "SandboxSuspended")
        await house.settle(60)

        assert not (await house.get(SANDBOX_CLAIMS, "mine")).status.sandbox.pod_ips
        assert sum("sandboxclaims/mine/status" in write for write in house.writes()) == 1, house.writes()


async def test_edge_262_an_expired_sandbox_says_how_to_start_it_again_and_a_later_shutdown_time_does(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(shutdownTime=house.at(10), shutdownPolicy="Retain"))
        expired = await house.reason(SANDBOXES, "alice", "SandboxExpired")
        assert "Set a later spec.shutdownTime" in expired.message
        await house.until(lambda: _gone(house, PODS, "alice"))

        await house.edit(SANDBOXES, "alice", {"spec": {"shutdownTime": house.at(86400)}})

        await house.ready(SANDBOXES, "alice")


async def _exists(house: Any, resource: Any, name: str) -> bool:
    return await house.get(resource, name) is not None


async def _gone(house: Any, resource: Any, name: str) -> bool:
    return await house.get(resource, name) is None
