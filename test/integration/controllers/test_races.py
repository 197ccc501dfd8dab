"""Interleavings that once broke an invariant, or would without the mechanism that each test names."""

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

import anyio
import pytest

from agent_sandbox.kube import OutcomeUnknownError, Propagation, RawResponse, Transport
from agent_sandbox.kube.transport import RequestOptions, TransportDecorator
from agent_sandbox.testing import Fault, InMemoryApiServer
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS


@pytest.mark.embedded
async def test_no_pod_is_created_while_the_policy_of_its_template_is_being_removed(make: Any) -> None:
    """A Sandbox that arrives between the last look at who needs a policy and its removal finds the gate shut."""
    async with make.house() as house:
        await house.make(make.template())
        await house.settle(5)
        house.wire.inject(Fault.slow(2), method="POST", path="/sandboxes")
        house.wire.inject(Fault.slow(3), method="DELETE", path="/networkpolicies")
        await house.make(make.claim())
        await anyio.sleep(0.5)
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(30)

        for pod in await house.all(PODS):
            assert await house.get(NETWORK_POLICIES, "python-network-policy") is not None, pod.metadata.name


async def test_a_sandbox_made_again_under_its_name_waits_for_what_the_former_one_leaves(make: Any) -> None:
    """Nobody's mistake, so no error: kubectl delete and apply in one breath is what people do."""
    async with make.house() as house:
        spec = {"volumeClaimTemplates": [*make.volumes]}
        await house.make(make.sandbox(**spec))
        await house.ready(SANDBOXES, "alice")
        former = await house.get(PODS, "alice")
        hold = {"metadata": {"finalizers": ["example.com/hold"]}}
        for resource, name in ((PODS, "alice"), (PERSISTENT_VOLUME_CLAIMS, "data-alice")):
            await house.edit(resource, name, hold)
        await house.delete(SANDBOXES, "alice")
        await house.until(lambda: _gone(house, SANDBOXES, "alice"))
        await house.make(make.sandbox(**spec))

        waiting = await house.reason(SANDBOXES, "alice", "DependenciesNotReady", within=10)

        assert 'PVC "data-alice" of a former sandbox "alice"' in waiting.message
        for resource, name in ((PODS, "alice"), (PERSISTENT_VOLUME_CLAIMS, "data-alice")):
            await house.edit(resource, name, {"metadata": {"finalizers": None}})
        await house.ready(SANDBOXES, "alice")
        assert (await house.get(PODS, "alice")).metadata.uid != former.metadata.uid


async def test_a_claim_made_again_under_its_name_waits_for_the_former_ones_sandbox(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        first = await house.ready(SANDBOX_CLAIMS, "mine")
        await house.edit(SANDBOXES, "mine", {"metadata": {"finalizers": ["example.com/hold"]}})
        await house.delete(SANDBOX_CLAIMS, "mine")
        await house.until(lambda: _gone(house, SANDBOX_CLAIMS, "mine"))
        await house.make(make.claim())

        waiting = await house.reason(SANDBOX_CLAIMS, "mine", "SandboxNotReady", within=10)

        assert 'sandbox "mine" of a former claim of this name' in waiting.message
        await house.edit(SANDBOXES, "mine", {"metadata": {"finalizers": None}})
        second = await house.ready(SANDBOX_CLAIMS, "mine")
        assert second.metadata.uid != first.metadata.uid
        (mine,) = await house.all(SANDBOXES)
        assert mine.metadata.controller.uid == second.metadata.uid


async def test_a_second_sandbox_that_a_dying_leader_made_for_a_claim_is_removed(make: Any) -> None:
    """Its POST was under way when it died and took effect after its successor had given the claim another."""
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(5)
        late = make.sandbox("mine", service=False)
        reference = {
            "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
            "kind": "SandboxClaim",
            "name": "mine",
            "uid": mine.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        late["metadata"] |= {
            "ownerReferences": [reference],
            "labels": {"agents.x-k8s.io/claim-uid": mine.metadata.uid, "agents.x-k8s.io/launch-type": "cold"},
        }
        await house.make(late)

        await house.until(lambda: _gone(house, SANDBOXES, "mine"))

        await house.settle(30)
        assert (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name == mine.status.sandbox_name
        assert await house.get(SANDBOXES, mine.status.sandbox_name) is not None


@pytest.mark.embedded
async def test_a_pod_that_is_handed_over_is_found_although_its_watch_is_late(make: Any) -> None:
    async with make.house() as house:
        house.wire.inject(Fault.slow_stream(5), path="/pods", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        handed = {"name": "handed", "namespace": "default", "labels": {"agents.x-k8s.io/adoptable": "true"}}
        containers = {"containers": [{"name": "main", "image": "x"}]}
        await house.make({"apiVersion": "v1", "kind": "Pod", "metadata": handed, "spec": containers})
        alice = make.sandbox(service=False)
        alice["metadata"]["annotations"] = {"agents.x-k8s.io/pod-name": "handed"}
        await house.make(alice)
        await house.settle(30)

        alice = await house.get(SANDBOXES, "alice")
        assert [(pod.metadata.name, pod.metadata.controller.uid) for pod in await house.all(PODS)] == [
            ("handed", alice.metadata.uid)
        ]


async def test_taking_the_templates_label_off_a_sandbox_leaves_its_pod_under_the_policy(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        identity = "agents.x-k8s.io/sandbox-template-id"
        before = (await house.get(PODS, "mine")).metadata.labels
        for value in (None, "0" * 40):
            await house.edit(SANDBOXES, "mine", {"metadata": {"labels": {identity: value}}})
            await house.settle(5)

            assert (await house.get(PODS, "mine")).metadata.labels == before


async def test_a_sandbox_that_lost_all_word_of_its_template_leaves_its_pod_under_the_policy(make: Any) -> None:
    """Who may edit Sandboxes only must not take a claim's living Pod out of its policy with our hands."""
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        await house.ready(SANDBOX_CLAIMS, "mine")
        identity = "agents.x-k8s.io/sandbox-template-id"
        before = (await house.get(PODS, "mine")).metadata.labels
        gone = {"labels": {identity: None}, "annotations": {"agents.x-k8s.io/sandbox-template-ref": None}}
        await house.edit(SANDBOXES, "mine", {"metadata": gone})
        await house.settle(5)

        assert (await house.get(PODS, "mine")).metadata.labels[identity] == before[identity]


@pytest.mark.embedded
async def test_what_names_an_owner_of_another_namespace_is_nobodys(make: Any) -> None:
    """A UID is no secret: with it a stranger's objects must neither block ours nor pass for them."""
    async with make.house() as house:
        await house.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}})

        async def forge(manifest: dict[str, Any], kind: str, owner: Any) -> None:
            group = "agents.x-k8s.io" if kind == "Sandbox" else "extensions.agents.x-k8s.io"
            reference = {"apiVersion": f"{group}/v1alpha1", "kind": kind, "name": owner.metadata.name}
            reference |= {"uid": owner.metadata.uid, "controller": True}
            # Held, because the garbage collector would have it in a moment.
            held = {"namespace": "evil", "finalizers": ["example.com/hold"], "ownerReferences": [reference]}
            await house.make({**manifest, "metadata": {**manifest["metadata"], **held}})

        await house.make(make.sandbox(), make.claim(template="later"), make.pool(replicas=1))
        alice = await house.ready(SANDBOXES, "alice")
        spec = {"containers": [{"name": "main", "image": "python-runtime-sandbox"}]}
        labels = dict((await house.get(PODS, "alice")).metadata.labels)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alice", "labels": labels}, "spec": spec}
        await forge(pod, "Sandbox", alice)
        await forge(make.sandbox("mine"), "SandboxClaim", await house.get(SANDBOX_CLAIMS, "mine"))
        await forge(make.sandbox("member"), "SandboxWarmPool", await house.get(SANDBOX_WARM_POOLS, "pool"))
        await house.settle(5)
        await house.make(make.template(), make.template("later"))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.ready(SANDBOX_CLAIMS, "mine")

        assert (await house.ready(SANDBOXES, "alice")).status.replicas == 1
        (member,) = [each for each in await house.all(SANDBOXES, "default") if each.metadata.name.startswith("pool-")]
        assert member.metadata.namespace == "default"
        assert (await house.get(SANDBOXES, "mine")).metadata.controller.name == "mine"


async def test_a_sandbox_that_its_claim_let_go_stays_under_its_policy_or_stops(make: Any) -> None:
    """kubectl delete sandboxclaim --cascade=orphan."""
    async with make.house() as house:
        await house.make(make.template(), make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine")
        before = (await house.get(PODS, "mine")).metadata.labels
        await house.api.delete(
            SANDBOX_CLAIMS, "mine", house.namespace, uid=mine.metadata.uid, propagation=Propagation.ORPHAN
        )
        await house.until(lambda: _gone(house, SANDBOX_CLAIMS, "mine"))
        await house.settle(10)
        assert (await house.get(SANDBOXES, "mine")).metadata.controller is None
        assert (await house.get(PODS, "mine")).metadata.labels == before

        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(60)
        assert await house.get(NETWORK_POLICIES, "python-network-policy") is not None
        await house.delete(PODS, "mine")
        told = await house.reason(SANDBOXES, "mine", "OwnerNotFound")
        assert "no longer owns it" in told.message
        assert await house.get(PODS, "mine") is None


async def test_a_pool_takes_no_orphan_in_that_somebody_has_worked_in(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim())
        used = (await house.ready(SANDBOX_CLAIMS, "mine")).status.sandbox_name
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        labels = {"agents.x-k8s.io/warm-pool-sandbox": "91dd7983"}
        await house.edit(SANDBOXES, used, {"metadata": {"ownerReferences": None, "labels": labels}})
        await house.edit(SANDBOX_WARM_POOLS, "pool", {"spec": {"replicas": 3}})
        await house.settle(30)

        assert (await house.get(SANDBOXES, used)).metadata.controller is None


async def test_nothing_is_started_from_a_template_that_is_going(make: Any) -> None:
    """Its policy may be gone already, and a Sandbox would wait for it in vain."""
    async with make.house() as house:
        await house.make(make.template())
        await house.edit(SANDBOX_TEMPLATES, "python", {"metadata": {"finalizers": ["example.com/hold"]}})
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(5)
        await house.make(make.claim(), make.pool(replicas=1))

        await house.reason(SANDBOX_CLAIMS, "mine", "TemplateNotFound")
        await house.settle(5)
        assert await house.all(SANDBOXES) == []
        await house.edit(SANDBOX_TEMPLATES, "python", {"metadata": {"finalizers": None}})


@pytest.mark.embedded
async def test_a_patch_meant_for_a_pod_that_is_gone_does_not_become_a_refusal(make: Any) -> None:
    """Another Pod has its name by now; the server says of the UID in the patch that it is immutable (422)."""
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        await house.ready(SANDBOXES, "alice")
        house.wire.inject(Fault.silent_stream(), path="/pods", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        await house.delete(PODS, "alice")
        another = {"name": "alice", "namespace": "default"}
        containers = {"containers": [{"name": "main", "image": "x"}]}
        await house.make({"apiVersion": "v1", "kind": "Pod", "metadata": another, "spec": containers})
        await house.edit(SANDBOXES, "alice", {"spec": {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}})

        told = await house.reason(SANDBOXES, "alice", "ReconcilerError", within=5)

        assert 'cannot adopt unowned pod "alice"' in told.message
        assert "a" not in (await house.get(PODS, "alice")).metadata.labels


@pytest.mark.embedded
async def test_children_of_a_sandbox_that_is_gone_are_not_made_again_and_again(make: Any) -> None:
    """The watches of Sandboxes and Pods lag; the garbage collector takes each new volume, and that is heard at once."""
    async with make.house() as house:
        await house.make(make.sandbox(volumeClaimTemplates=[*make.volumes]))
        await house.ready(SANDBOXES, "alice")
        await house.settle(60)
        for path in ("/sandboxes", "/pods"):
            house.wire.inject(Fault.slow_stream(20), path=path, times=None)
        house.wire.drop_watches()
        await house.settle(5)
        house.wire.seen.clear()

        await house.delete(SANDBOXES, "alice")
        await house.settle(60)

        made = [write for write in house.writes() if write.startswith("POST")]
        assert len(made) <= 3, made
        for resource in (PODS, PERSISTENT_VOLUME_CLAIMS):
            assert await house.all(resource) == []


@pytest.mark.embedded
async def test_no_pod_is_created_under_a_policy_that_somebody_opened(make: Any) -> None:
    """It is repaired, but the repair may fail for a while: until then the Pod waits."""
    async with make.house() as house:
        await house.make(make.template())
        await house.settle(5)
        house.wire.inject(Fault.error(500), method="PATCH", path="/networkpolicies", times=None)
        await house.edit(NETWORK_POLICIES, "python-network-policy", {"spec": {"ingress": [{}]}})
        await house.make(make.claim())

        told = await house.reason(SANDBOX_CLAIMS, "mine", "NetworkPolicyNotReady", within=20)

        assert "it is being repaired" in told.message
        assert await house.all(PODS) == []
        house.wire.heal()
        await house.ready(SANDBOX_CLAIMS, "mine")


@pytest.mark.embedded
async def test_a_policy_is_not_removed_while_the_server_has_a_pod_that_the_cache_has_not_seen(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template())
        await house.settle(5)
        policy = await house.get(NETWORK_POLICIES, "python-network-policy")
        house.wire.inject(Fault.silent_stream(), path="/pods", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        unseen = {"name": "unseen", "namespace": "default", "labels": policy.metadata.labels}
        containers = {"containers": [{"name": "main", "image": "x"}]}
        await house.make({"apiVersion": "v1", "kind": "Pod", "metadata": unseen, "spec": containers})
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.settle(60)
        assert await house.get(NETWORK_POLICIES, "python-network-policy") is not None

        await house.delete(PODS, "unseen")
        await house.until(lambda: _gone(house, NETWORK_POLICIES, "python-network-policy"))


class SlowToCreatePods(TransportDecorator):
    """Carries out the create of a Pod late, and tells ``created`` when it has."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.created: Callable[[], Awaitable[None]] | None = None

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        if method == "POST" and path.endswith("/pods") and self.created is not None:
            await anyio.sleep(5)
            answer = await super().request(method, path, **options)
            await self.created()
            return answer
        return await super().request(method, path, **options)


@pytest.mark.embedded
async def test_a_policy_outlives_its_sandbox_while_the_create_of_its_pod_is_under_way(make: Any) -> None:
    """The create takes effect after claim, Sandbox and template are gone: the Pod starts, and the policy stands."""
    wires: list[SlowToCreatePods] = []

    def wrap(server: InMemoryApiServer) -> SlowToCreatePods:
        wires.append(SlowToCreatePods(server.transport()))
        return wires[-1]

    async with make.house(wrap=wrap) as house:
        policies: list[Any] = []

        async def look() -> None:
            policies.append(await house.get(NETWORK_POLICIES, "python-network-policy"))

        await house.make(make.template())
        await house.settle(5)
        wires[0].created = look
        await house.make(make.claim())
        await house.until(lambda: _exists(house, SANDBOXES, "mine"))
        await house.settle(1)
        await house.delete(SANDBOX_CLAIMS, "mine")
        await house.delete(SANDBOX_TEMPLATES, "python")
        await house.until(lambda: _gone(house, SANDBOXES, "mine"), within=2)
        await house.until(lambda: _gone(house, NETWORK_POLICIES, "python-network-policy"))

        assert [policy is not None for policy in policies] == [True]
        assert await house.all(PODS) == []


class LosesAnAdoption(TransportDecorator):
    """Keeps the first adoption from the server, and its sender without an answer until ``meanwhile`` is over."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.meanwhile: Callable[[str], Awaitable[None]] | None = None
        self.adoptions: list[str] = []

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        if method == "PATCH" and "/sandboxes/" in path and not path.endswith("/status"):
            self.adoptions.append(path.rpartition("/")[2])
            if self.meanwhile is not None:
                meanwhile, self.meanwhile = self.meanwhile, None
                await meanwhile(self.adoptions[0])
                raise OutcomeUnknownError(f"{method} {path}: no answer")
        return await super().request(method, path, **options)


@pytest.mark.embedded
async def test_after_an_adoption_without_an_answer_no_other_member_is_tried(make: Any) -> None:
    """Not even a better one: the first write may still be on its way, and would give the claim a second Sandbox."""
    wires: list[LosesAnAdoption] = []

    def wrap(server: InMemoryApiServer) -> LosesAnAdoption:
        wires.append(LosesAnAdoption(server.transport()))
        return wires[-1]

    async with make.house(wrap=wrap) as house:
        await house.make(make.template(), make.pool(replicas=2))
        await house.ready(SANDBOX_WARM_POOLS, "pool")

        async def worsen(name: str) -> None:
            pod = await house.get(PODS, name)
            unready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
            await house.kubelet.report(pod, unready)
            await house.ready(SANDBOXES, name, status="False")

        (wire,) = wires
        wire.adoptions.clear()
        wire.meanwhile = worsen
        await house.make(make.claim())
        await house.settle(30)

        first = wire.adoptions[0]
        assert set(wire.adoptions) == {first}
        assert (await house.get(SANDBOX_CLAIMS, "mine")).status.sandbox_name == first


@pytest.mark.embedded
async def test_a_member_whose_creation_was_not_answered_is_made_again_under_its_name(make: Any) -> None:
    """The create took effect, and the watch is silent: another name would be a member too many."""
    async with make.house() as house:
        await house.make(make.template())
        await house.settle(5)
        house.wire.inject(Fault.silent_stream(), path="/sandboxes", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        house.wire.inject(Fault.lost_answer(), method="POST", path="/sandboxes")
        await house.make(make.pool(replicas=1))
        await house.settle(30)

        assert len(await house.all(SANDBOXES)) == 1


@pytest.mark.embedded
async def test_a_pool_that_is_gone_makes_no_member_although_its_watch_is_late(make: Any) -> None:
    """The garbage collector takes the members of the deleted pool one by one, and that is heard at once."""
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=3))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.settle(60)
        house.wire.inject(Fault.silent_stream(), path="/sandboxwarmpools", times=None)
        house.wire.drop_watches()
        await house.settle(3)
        house.wire.seen.clear()
        await house.delete(SANDBOX_WARM_POOLS, "pool")
        await house.settle(60)

        assert [write for write in house.writes() if write.startswith("POST")] == []
        assert await house.all(SANDBOXES) == []


async def test_an_expiry_is_on_record_before_anything_is_deleted(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox())
        await house.ready(SANDBOXES, "alice")
        house.wire.seen.clear()
        await house.edit(SANDBOXES, "alice", {"spec": {"shutdownTime": house.at(-1), "shutdownPolicy": "Delete"}})
        await house.until(lambda: _gone(house, SANDBOXES, "alice"))

        told, *deletes = house.writes()
        assert told.startswith("PATCH")
        assert told.endswith("/sandboxes/alice/status")
        assert {write.split("/")[-2] for write in deletes if write.startswith("DELETE")} >= {"pods", "sandboxes"}


async def _exists(house: Any, resource: Any, name: str) -> bool:
    return await house.get(resource, name) is not None


async def _gone(house: Any, resource: Any, name: str) -> bool:
    return await house.get(resource, name) is None
