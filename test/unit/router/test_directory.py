"""Only a Pod that is that sandbox's, Ready and claimed is an address."""

from typing import Any

import anyio
import pytest

from agent_sandbox.router.directory import AsleepError, Holder, Sleeper
from agent_sandbox.router.errors import NotFoundError, NotReadyError, SuspendedError


def test_bare_sandbox_is_found_by_name_and_by_uid(cluster: Any) -> None:
    cluster.add(cluster.sandbox("box"), cluster.pod("box", "box-uid", "10.0.0.7"))

    by_name = cluster.directory.lookup("default", "box")

    assert by_name.address == "10.0.0.7"
    assert cluster.directory.lookup("default", "box-uid") == by_name


def test_claim_leads_to_the_sandbox_that_it_controls(cluster: Any) -> None:
    cluster.add(
        cluster.claim("mine", "member"),
        cluster.sandbox("member", owner=cluster.owner("SandboxClaim", "mine-uid")),
        cluster.pod("member", "member-uid"),
    )

    for identifier in ("mine", "mine-uid", "member", "member-uid"):
        target = cluster.directory.lookup("default", identifier)
        assert (target.sandbox, target.claim) == ("member", "mine")


def test_status_in_the_seeds_spelling_leads_there_too(cluster: Any) -> None:
    cluster.add(
        cluster.claim("mine", sandboxName="member"),
        cluster.sandbox("member", owner=cluster.owner("SandboxClaim", "mine-uid")),
        cluster.pod("member", "member-uid"),
    )

    assert cluster.directory.lookup("default", "mine").sandbox == "member"


@pytest.mark.parametrize("owner_uid", ["another-uid", "mine-uid-of-an-earlier-life"])
def test_claim_does_not_lead_to_a_sandbox_of_another(cluster: Any, owner_uid: str) -> None:
    cluster.add(
        cluster.claim("mine", "member"),
        cluster.sandbox("member", owner=cluster.owner("SandboxClaim", owner_uid)),
        cluster.pod("member", "member-uid"),
    )

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "mine")


def test_a_pod_of_another_namespace_is_never_dialled_whatever_owner_it_names(cluster: Any) -> None:
    cluster.add(
        cluster.pod("thief", "box-uid", "10.6.6.6", namespace="evil"),
        cluster.sandbox("box"),
        cluster.pod("box", "box-uid", "10.0.0.7", ready=False),
    )

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")
    cluster.add(cluster.pod("box", "box-uid", "10.0.0.7"))
    assert cluster.directory.lookup("default", "box").address == "10.0.0.7"


def test_a_claim_of_another_namespace_holds_nothing_here(cluster: Any) -> None:
    cluster.add(
        cluster.claim("mine", "box"),
        cluster.sandbox("box", owner=cluster.owner("SandboxClaim", "mine-uid"), metadata={"namespace": "evil"}),
    )

    with pytest.raises(NotFoundError):
        cluster.directory.holder("evil", "box")


def test_claims_name_wins_over_a_strangers_sandbox_of_the_same_name(cluster: Any) -> None:
    cluster.add(cluster.claim("box"), cluster.sandbox("box"), cluster.pod("box", "box-uid"))

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")


def test_unclaimed_pool_member_cannot_be_reached(cluster: Any) -> None:
    cluster.add(
        cluster.sandbox("member", owner=cluster.owner("SandboxWarmPool", "pool-uid")),
        cluster.pod("member", "member-uid"),
    )

    for identifier in ("member", "member-uid"):
        with pytest.raises(NotFoundError):
            cluster.directory.lookup("default", identifier)


def test_orphaned_pool_member_cannot_be_reached_either(cluster: Any) -> None:
    labels = {"labels": {"agents.x-k8s.io/warm-pool-sandbox": "x"}}
    cluster.add(cluster.sandbox("member", metadata=labels), cluster.pod("member", "member-uid"))

    with pytest.raises(NotFoundError):
        cluster.directory.lookup("default", "member")


def test_pod_of_an_earlier_sandbox_of_the_same_name_is_not_used(cluster: Any) -> None:
    cluster.add(cluster.sandbox("box"), cluster.pod("box", "uid-of-the-earlier-one"))

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")


@pytest.mark.parametrize(
    "pod", [{"ready": False}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"address": ""}, {"ownerReferences": []}]
)
def test_pod_that_does_not_serve_is_not_used(cluster: Any, pod: dict[str, Any]) -> None:
    cluster.add(cluster.sandbox("box"), cluster.pod("box", "box-uid", **pod))

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")


def test_a_sandbox_on_its_way_out_is_not_used_though_its_pod_still_is_ready(cluster: Any) -> None:
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    cluster.add(cluster.sandbox("box", metadata=leaving), cluster.pod("box", "box-uid"))

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")


def test_a_pod_that_is_no_longer_ready_is_no_longer_the_target(cluster: Any) -> None:
    ready, unready = (cluster.pod("box", "box-uid", ready=each) for each in (True, False))
    cluster.add(cluster.sandbox("box"), ready)
    target = cluster.directory.lookup("default", "box")
    assert cluster.directory.is_current(target)

    cluster.change(ready, unready)

    assert not cluster.directory.is_current(target)


def test_new_pod_takes_over_from_a_terminating_one(cluster: Any) -> None:
    cluster.add(
        cluster.sandbox("box"),
        cluster.pod("old", "box-uid", "10.0.0.1", deletionTimestamp="2026-01-01T00:00:00Z"),
        cluster.pod("new", "box-uid", "10.0.0.2"),
    )

    assert cluster.directory.lookup("default", "box").address == "10.0.0.2"


def test_suspended_sandbox_says_so(cluster: Any) -> None:
    cluster.add(cluster.sandbox("box", spec={"replicas": 0}))

    with pytest.raises(SuspendedError, match="box") as caught:
        cluster.directory.lookup("default", "box")
    assert not isinstance(caught.value, AsleepError)


def test_sandbox_that_resumes_is_waited_for_whatever_its_condition_still_says(cluster: Any) -> None:
    cluster.add(cluster.sandbox("box", status={"conditions": [{"type": "Suspended", "status": "True"}]}))

    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")


@pytest.mark.parametrize(("value", "wakes"), [("true", True), ("false", False), ("", False)])
def test_template_decides_whether_a_request_wakes(cluster: Any, value: str, wakes: bool) -> None:
    template = {"metadata": {"annotations": {"agents.x-k8s.io/wake-on-request": value}}, "spec": {}}
    spec = {"replicas": 0, "podTemplate": template}
    cluster.add(cluster.sandbox("box", spec=spec, metadata={"resourceVersion": "7"}))

    with pytest.raises(SuspendedError) as caught:
        cluster.directory.lookup("default", "box")
    assert isinstance(caught.value, AsleepError) == wakes
    if isinstance(caught.value, AsleepError):
        assert caught.value.sleeper == Sleeper("default", "box", "7")


def test_credentials_are_for_the_claim_and_for_a_bare_sandbox_itself(cluster: Any) -> None:
    key = {"access.agents.x-k8s.io/0123456789abcdef": "k"}
    cluster.add(
        cluster.claim("mine", "member"),
        cluster.sandbox("member", owner=cluster.owner("SandboxClaim", "mine-uid"), metadata={"annotations": key}),
        cluster.sandbox("bare", metadata={"annotations": {**key, "other": "x"}}),
        cluster.sandbox("orphan", owner=cluster.owner("SandboxClaim", "gone-uid"), metadata={"annotations": key}),
    )

    for identifier in ("mine", "mine-uid", "member", "member-uid"):
        assert cluster.directory.holder("default", identifier) == Holder("default", "mine", "mine-uid", True, {})
    assert cluster.directory.holder("default", "bare") == Holder("default", "bare", "bare-uid", False, key)
    with pytest.raises(NotFoundError):
        cluster.directory.holder("default", "orphan")


def test_reason_why_a_sandbox_is_not_ready_is_told(cluster: Any) -> None:
    condition = {"type": "Ready", "status": "False", "reason": "ImagePullFailed", "message": "no such image: x"}
    cluster.add(cluster.claim("mine", conditions=[condition]))

    with pytest.raises(NotReadyError, match=r"ImagePullFailed: no such image: x"):
        cluster.directory.lookup("default", "mine")


def test_other_namespaces_names_and_uids_are_unknown(cluster: Any) -> None:
    cluster.add(cluster.sandbox("box"), cluster.pod("box", "box-uid"))

    for identifier in ("box", "box-uid"):
        with pytest.raises(NotFoundError):
            cluster.directory.lookup("other", identifier)


def test_deleted_objects_are_forgotten(cluster: Any) -> None:
    box, pod = cluster.sandbox("box"), cluster.pod("box", "box-uid")
    cluster.add(box, pod)
    target = cluster.directory.lookup("default", "box")

    cluster.change(pod, None)

    assert not cluster.directory.is_current(target)
    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "box")
    cluster.change(box, None)
    for identifier in ("box", "box-uid"):
        with pytest.raises(NotFoundError):
            cluster.directory.lookup("default", identifier)


def test_pod_that_moves_to_another_owner_leaves_the_first(cluster: Any) -> None:
    cluster.add(cluster.sandbox("a"), cluster.sandbox("b"))
    first = cluster.pod("pod", "a-uid")
    cluster.add(first)

    cluster.change(first, cluster.pod("pod", "b-uid"))

    assert cluster.directory.lookup("default", "b").address == "10.0.0.1"
    with pytest.raises(NotReadyError):
        cluster.directory.lookup("default", "a")


def test_recreated_sandbox_keeps_its_new_uid_when_the_old_one_is_reported_gone(cluster: Any) -> None:
    """old: added(uid 1), replaced by uid 2 in one change, as a relist reports it."""
    old = cluster.sandbox("box", metadata={"uid": "one"})
    new = cluster.sandbox("box", metadata={"uid": "two"})
    cluster.add(old, cluster.pod("pod", "two"))

    cluster.change(old, new)

    assert cluster.directory.lookup("default", "two").sandbox == "box"
    with pytest.raises(NotFoundError):
        cluster.directory.lookup("default", "one")


async def test_waiting_ends_when_the_sandbox_becomes_ready(cluster: Any) -> None:
    async with anyio.create_task_group() as tasks:

        async def arrive() -> None:
            await anyio.wait_all_tasks_blocked()
            cluster.add(cluster.sandbox("box"))
            await anyio.wait_all_tasks_blocked()
            cluster.add(cluster.pod("box", "box-uid"))

        tasks.start_soon(arrive)
        target = await cluster.directory.resolve("default", "box", wait_unknown=5, wait_ready=5)

    assert target.sandbox == "box"


async def test_waiting_is_bounded(cluster: Any) -> None:
    cluster.add(cluster.sandbox("box"))

    with pytest.raises(NotFoundError):
        await cluster.directory.resolve("default", "nobody", wait_unknown=0.01, wait_ready=5)
    with pytest.raises(NotReadyError):
        await cluster.directory.resolve("default", "box", wait_unknown=5, wait_ready=0.01)


async def test_waiting_for_invented_namespaces_leaves_nothing_behind(cluster: Any) -> None:
    for number in range(5):
        with pytest.raises(NotFoundError):
            await cluster.directory.resolve(f"invented-{number}", "x", wait_unknown=0.001, wait_ready=0.001)

    assert cluster.directory._waiters == {}
