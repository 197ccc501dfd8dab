"""Edge cases 203 to 236: how a pool keeps its size, its template and its pace."""

from dataclasses import replace
from typing import Any

import pytest

from agent_sandbox.kube import ConflictError
from agent_sandbox_controllers import ControllerOptions
from agent_sandbox_controllers.blueprint import blueprint_hash, sandbox_hash, template_hash
from agent_sandbox_controllers.sandboxwarmpool.batches import in_batches
from agent_sandbox_controllers.sandboxwarmpool.members import Member, new_member
from agent_sandbox_controllers.sandboxwarmpool.pacing import Pacing
from agent_sandbox_controllers.sandboxwarmpool.plan import max_unavailable, plan_pool
from agent_sandbox_controllers.sandboxwarmpool.status import is_urgent, pool_status
from agent_sandbox_controllers.troubles import Trouble

PREFIX = "agents.x-k8s.io/"
OPTIONS = ControllerOptions()


def removed(plan: Any) -> list[str]:
    return [each.name for each in plan.remove]


def stale(view: Any) -> Member:
    return Member(view, stale=True)


@pytest.mark.parametrize(
    ("members", "replicas", "create", "remove"),
    [(0, 3, 3, 0), (1, 3, 2, 0), (3, 3, 0, 0), (5, 3, 0, 2), (2, 0, 0, 2)],
)
def test_edge_203_a_pool_comes_to_its_size(make: Any, members: int, replicas: int, create: int, remove: int) -> None:
    there = [make.member(f"m{number}") for number in range(members)]

    plan = plan_pool(make.pool(there, replicas=replicas), OPTIONS)

    assert (plan.create, len(plan.remove)) == (create, remove)


def test_defect_18_every_removal_names_one_version_of_one_member(make: Any) -> None:
    (removal,) = plan_pool(make.pool([make.member()], replicas=0), OPTIONS).remove

    assert (removal.uid, removal.resource_version) == ("m1-uid", "7")


def test_excess_goes_unready_first_then_stale_then_youngest(make: Any) -> None:
    there = [
        make.member("old", age=900),
        make.member("young", age=100),
        stale(make.member("stale", age=950)),
        make.member("unready", ready=False, since=-10, age=990),
    ]

    assert removed(plan_pool(make.pool(there, replicas=1), OPTIONS)) == ["unready", "stale", "young"]


def test_edge_204_and_defect_10_an_orphan_made_as_the_template_says_is_taken_in_and_never_deleted(make: Any) -> None:
    observed = replace(make.pool([make.member()]), orphans=(Member(make.member("lost")),))

    plan = plan_pool(observed, OPTIONS)

    assert [change.name for change in plan.adopt] == ["lost"]
    assert plan.create == 1
    assert plan_pool(replace(observed, template=None), OPTIONS).adopt == ()


def test_edge_205_and_206_and_207_a_member_is_made_as_the_template_says(make: Any) -> None:
    volumes = [{"metadata": {"name": "data"}, "spec": {}}]
    body = new_member(make.pool().view.metadata, make.template(volumeClaimTemplates=volumes), "pool-x")

    assert body["metadata"]["labels"][f"{PREFIX}warm-pool-sandbox"] == "91dd7983"
    assert body["metadata"]["labels"][f"{PREFIX}launch-type"] == "warm"
    assert body["metadata"]["labels"][f"{PREFIX}created-by"] == "controller"
    assert body["metadata"]["annotations"] == {f"{PREFIX}sandbox-template-ref": "python"}
    assert body["spec"]["volumeClaimTemplates"] == volumes
    assert body["spec"]["podTemplate"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("ready", "number"), [(0, 208), (1, 208), (3, 208)])
def test_edge_208_and_209_the_status_counts_exactly(make: Any, ready: int, number: int) -> None:
    members = [make.member(f"m{index}", ready=index < ready, since=-1) for index in range(3)]

    status = pool_status(make.pool(members), None, (), OPTIONS)

    assert (status["replicas"], status["readyReplicas"], status["observedGeneration"]) == (3, ready, 1)
    assert status["selector"] == f"{PREFIX}warm-pool-sandbox=91dd7983"


def test_edge_214_on_replenish_keeps_old_members_and_recreate_replaces_all(make: Any) -> None:
    there = [stale(make.member("a")), make.member("b")]

    assert removed(plan_pool(make.pool(there, replicas=2), OPTIONS)) == []
    recreate = make.pool(there, replicas=2, updateStrategy={"type": "Recreate"})
    assert removed(plan_pool(recreate, OPTIONS)) == ["a"]
    assert plan_pool(recreate, OPTIONS).create == 0


@pytest.mark.parametrize("strategy", ["OnReplenish", "Recreate"])
def test_edge_215_members_of_another_template_go_whatever_the_strategy(make: Any, strategy: str) -> None:
    there = [Member(make.member("a"), retargeted=True)]

    assert removed(plan_pool(make.pool(there, updateStrategy={"type": strategy}), OPTIONS)) == ["a"]


@pytest.mark.parametrize(
    ("limit", "unready", "expected"),
    [(1, 0, 1), (2, 0, 2), ("50%", 0, 2), (1, 1, 0), (2, 1, 1)],
)
def test_defect_21_rolling_takes_no_more_away_than_allowed(make: Any, limit: Any, unready: int, expected: int) -> None:
    fresh = [make.member(f"fresh{index}", ready=False, since=-1) for index in range(unready)]
    old = [stale(make.member(f"old{index}")) for index in range(4 - unready)]
    strategy = {"type": "Rolling", "rollingUpdate": {"maxUnavailable": limit}}

    plan = plan_pool(make.pool([*fresh, *old], replicas=4, updateStrategy=strategy), OPTIONS)

    assert len(plan.remove) == expected


def test_rolling_always_allows_one(make: Any) -> None:
    pool = make.pool_model(updateStrategy={"type": "Rolling", "rollingUpdate": {"maxUnavailable": "1%"}})

    assert max_unavailable(pool) == 1


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "other"}]}}}, True),
        ({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}, True),
        ({"service": False}, True),
        ({"service": True}, False),
        ({"networkPolicyManagement": "Unmanaged"}, False),
    ],
)
def test_edge_216_219_220_what_makes_a_member_stale(make: Any, change: Any, differs: bool) -> None:
    assert (template_hash(make.template()) != template_hash(make.template(**change))) is differs


def test_edge_216_metadata_makes_nobody_stale(make: Any) -> None:
    labelled = make.template(podTemplate={"metadata": {"labels": {"a": "b"}}, "spec": make.spec})

    assert template_hash(labelled) == template_hash(make.template())


def test_edge_218_and_defect_09_staleness_is_judged_by_content_not_by_label(make: Any) -> None:
    forged = make.sandbox(metadata={"labels": {f"{PREFIX}sandbox-template-hash": template_hash(make.template())}})

    assert sandbox_hash(forged.spec) != template_hash(make.template())
    assert sandbox_hash(make.member().spec) == template_hash(make.template())


def test_edge_219_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert blueprint_hash({"a": 1, "b": 2}, None, None) == blueprint_hash({"b": 2, "a": 1}, (), True)


def test_edge_224_a_member_on_its_way_out_counts_against_the_size(make: Any) -> None:
    going = make.member("going", metadata={"deletionTimestamp": make.stamp(), "finalizers": ["x/y"]})

    plan = plan_pool(make.pool([going, make.member()], replicas=2), OPTIONS)

    assert plan.create == 0
    assert pool_status(make.pool([going, make.member()]), None, (), OPTIONS)["replicas"] == 1


@pytest.mark.parametrize(("since", "gone"), [(-301, True), (-299, False)])
def test_edge_225_a_member_that_stays_unready_is_replaced_after_the_grace(make: Any, since: int, gone: bool) -> None:
    plan = plan_pool(make.pool([make.member(ready=False, since=since, age=1000)]), OPTIONS)

    assert bool(plan.remove) is gone


def test_defect_20_the_grace_counts_from_the_last_ready_not_from_creation(make: Any) -> None:
    plan = plan_pool(make.pool([make.member(ready=False, since=-5, age=100000)]), OPTIONS)

    assert plan.remove == ()
    assert plan.look_again == 297


def test_edge_226_and_defect_38_unschedulable_members_are_held_and_the_pool_says_so(make: Any) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    observed = make.pool([make.member(ready=False, since=-400, conditions=[scheduled])])

    plan = plan_pool(observed, OPTIONS)
    status = pool_status(observed, None, plan.held, OPTIONS)

    assert plan.remove == ()
    assert plan.look_again == 60
    progressing = next(each for each in status["conditions"] if each["type"] == "Progressing")
    assert progressing["reason"] == "Unschedulable"
    assert "1/3 sandboxes are unschedulable" in progressing["message"]


@pytest.mark.parametrize("reason", ["QuotaExceeded", "NetworkPolicyNotReady", "Rejected"])
def test_members_that_a_replacement_could_not_help_are_held(make: Any, reason: str) -> None:
    observed = make.pool([make.member(ready=False, since=-400, reason=reason)])

    assert plan_pool(observed, OPTIONS).remove == ()
    progressing = pool_status(observed, None, (), OPTIONS)["conditions"][0]
    assert (progressing["status"], progressing["reason"]) == ("False", reason)


def test_edge_229_a_pool_that_is_full_and_ready_needs_no_second_look(make: Any) -> None:
    there = [make.member(f"m{index}") for index in range(3)]

    assert plan_pool(make.pool(there), OPTIONS).look_again is None


def test_edge_231_the_grace_is_an_option(make: Any) -> None:
    observed = make.pool([make.member(ready=False, since=-20)])

    assert plan_pool(observed, ControllerOptions(pool_readiness_grace=10)).remove
    with pytest.raises(ValueError, match="pool_readiness_grace"):
        ControllerOptions(pool_readiness_grace=0)


def test_defect_37_a_pool_that_may_not_create_still_reports_its_numbers(make: Any) -> None:
    trouble = Trouble("QuotaExceeded", "exceeded quota")

    status = pool_status(make.pool([make.member()]), trouble, (), OPTIONS)

    assert status["readyReplicas"] == 1
    assert status["conditions"][0]["reason"] == "QuotaExceeded"


def test_defect_38_a_pool_without_template_says_so_and_keeps_its_members(make: Any) -> None:
    observed = make.pool([make.member()], template=None)

    plan = plan_pool(observed, OPTIONS)

    assert (plan.create, plan.remove) == (0, ())
    assert pool_status(observed, None, (), OPTIONS)["conditions"][0]["reason"] == "TemplateNotFound"


def test_a_falling_number_of_ready_members_is_not_urgent_and_a_full_pool_is(make: Any) -> None:
    full = pool_status(make.pool([make.member(f"m{index}") for index in range(3)]), None, (), OPTIONS)
    dip = pool_status(make.pool([make.member(f"m{index}", ready=index > 0) for index in range(3)]), None, (), OPTIONS)

    assert not is_urgent(full, dip)
    assert is_urgent(dip, full)


# Pace


def test_edge_233_a_delay_starts_when_members_go_and_ends_when_the_pool_is_full() -> None:
    pacing = Pacing(delay=10, rate=0)

    assert pacing.grant("p", members=0, desired=3, missing=3, now=0).count == 3
    assert pacing.grant("p", members=3, desired=3, missing=0, now=1).count == 0
    held = pacing.grant("p", members=2, desired=3, missing=1, now=2)
    assert (held.count, held.wait) == (0, 10)
    rearmed = pacing.grant("p", members=1, desired=3, missing=2, now=7)
    assert (rearmed.count, rearmed.wait) == (0, 10)
    assert pacing.grant("p", members=1, desired=3, missing=2, now=17).count == 2


def test_edge_234_a_rate_lets_two_through_and_then_one_after_another() -> None:
    pacing = Pacing(delay=0, rate=2)

    first = pacing.grant("p", members=0, desired=5, missing=5, now=0)
    assert (first.count, first.wait) == (2, 0.5)
    assert pacing.grant("p", members=2, desired=5, missing=3, now=0).count == 0
    assert pacing.grant("p", members=2, desired=5, missing=3, now=0.5).count == 1
    assert pacing.grant("p", members=3, desired=5, missing=2, now=60).count == 2


def test_edge_235_tokens_that_were_not_used_come_back() -> None:
    pacing = Pacing(delay=0, rate=1)
    pacing.grant("p", members=0, desired=1, missing=1, now=0)

    pacing.give_back("p", 1)

    assert pacing.grant("p", members=0, desired=1, missing=1, now=0).count == 1
    pacing.forget("p")
    pacing.give_back("p", 1)


@pytest.mark.parametrize(("items", "failing", "done", "tried"), [(14, None, 14, 14), (0, None, 0, 0), (14, 2, 2, 3)])
async def test_edge_213_batches_grow_and_stop_after_a_failure(
    items: int, failing: int | None, done: int, tried: int
) -> None:
    seen: list[int] = []

    async def write(item: int) -> None:
        seen.append(item)
        if item == failing:
            raise ConflictError(409)

    count, failure = await in_batches(range(items), write)

    assert (count, len(seen)) == (done, tried)
    assert (failure is not None) is (failing is not None)
