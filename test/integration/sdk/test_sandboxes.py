"""AsyncSandboxes and handles: the life of sandboxes beyond one block."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from agent_sandbox.cli.sandboxes.run import LEASE_SECONDS, fresh_sandbox
from agent_sandbox.kube import ForbiddenError, MergePatch
from agent_sandbox.sdk import (
    AsyncSandbox,
    AsyncSandboxClient,
    AsyncSandboxes,
    ConnectionOptions,
    SandboxClaimFailedError,
    SandboxConfigError,
    Sandboxes,
    SandboxGoneError,
    SandboxNotFoundError,
    SandboxReadyTimeoutError,
    SandboxWarmPoolNotFoundError,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster, ready_condition
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS


def sandboxes_of(cluster: PretendCluster) -> AsyncSandboxes:
    """The sandboxes of the pretend cluster."""
    return AsyncSandboxes(options=ConnectionOptions(kube=cluster.kube, api_url=cluster.api_url))


async def test_a_created_sandbox_outlives_the_connection_and_is_found_again(cluster: PretendCluster) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        made = await sandboxes.create("python", labels={"team": "a"})
        await made.write("kept", "data")
    async with sandboxes_of(cluster) as sandboxes:
        by_claim = await sandboxes.connect(made.claim_name)

        assert await by_claim.read("kept") == b"data"
        assert (await by_claim.status()).state == "Ready"


async def test_a_sandbox_is_found_by_its_own_name_through_its_owner(cluster: PretendCluster) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        made = await sandboxes.create("python")
        claim = await cluster.kube.get(SANDBOX_CLAIMS, made.claim_name, "default")
        owner = {
            "apiVersion": claim.api_version,
            "kind": claim.kind,
            "name": made.claim_name,
            "uid": claim.metadata.uid,
        }
        patch = MergePatch({"metadata": {"ownerReferences": [{**owner, "controller": True}]}})
        await cluster.kube.patch(SANDBOXES, made.sandbox_name, patch, "default")

        assert (await sandboxes.connect(made.sandbox_name)).claim_name == made.claim_name


async def test_connecting_to_nothing_is_an_error_that_names_it(cluster: PretendCluster) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        with pytest.raises(SandboxNotFoundError, match="default/nothing"):
            await sandboxes.connect("nothing")


async def test_a_failed_connect_deletes_nothing(cluster: PretendCluster) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        made = await sandboxes.create("python")
        claim = await cluster.kube.get(SANDBOX_CLAIMS, made.claim_name, "default")
        await cluster.set_ready(claim, status="False", reason="ClaimExpired", message="over")

        with pytest.raises(SandboxClaimFailedError, match="ClaimExpired: over"):
            await sandboxes.connect(made.claim_name)
        assert await cluster.claim_names() == [made.claim_name]


async def test_listing_pages_through_all_and_filters_by_labels(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_sandbox.sdk.sandboxes.PAGE_SIZE", 2)
    async with sandboxes_of(cluster) as sandboxes:
        made = await sandboxes.create_many("python", 5, labels={"team": "a"})
        await sandboxes.create("python", labels={"team": "b"})

        everything = [info async for info in sandboxes.list()]
        some = [info async for info in sandboxes.list(labels={"team": "a"})]

    assert len(everything) == 6
    assert sorted(info.claim_name for info in some) == sorted(sandbox.claim_name for sandbox in made)
    assert {(info.template_name, info.status.state) for info in some} == {("python", "Ready")}


async def test_many_are_made_all_or_none(cluster: PretendCluster) -> None:
    seen: list[str] = []

    def fail_the_third(_: object) -> dict[str, str]:
        seen.append("claim")
        return {} if len(seen) != 3 else {"status": "False", "reason": "InvalidMetadata", "message": "no"}

    cluster.answer = fail_the_third
    async with sandboxes_of(cluster) as sandboxes:
        with pytest.raises(SandboxClaimFailedError, match="InvalidMetadata"):
            await sandboxes.create_many("python", 4, at_once=2)
    assert await cluster.claim_names() == []


async def test_map_gives_each_item_its_own_sandbox_and_keeps_the_order(cluster: PretendCluster) -> None:
    most = 0

    async def double(sandbox: AsyncSandbox, number: int) -> str:
        nonlocal most
        most = max(most, len(await cluster.claim_names()))
        return (await sandbox.run(f"echo {2 * number}")).stdout.strip()

    async with sandboxes_of(cluster) as sandboxes:
        results = await sandboxes.map(double, range(6), template_name="python", at_once=2)

    assert results == ["0", "2", "4", "6", "8", "10"]
    assert most <= 2
    assert await cluster.claim_names() == []


async def test_a_sandbox_of_a_block_can_have_all_that_a_claim_has_and_lives_by_its_heartbeat(
    cluster: PretendCluster,
) -> None:
    volume = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    async with (
        sandboxes_of(cluster) as sandboxes,
        sandboxes.use(
            "python",
            pod_labels={"sandbox.users.io/a": "b"},
            pod_annotations={"c": "d"},
            volume_claim_templates=[volume],
            ttl=3600,
            heartbeat=True,
        ) as sandbox,
    ):
        claim = await cluster.kube.get_object(SANDBOX_CLAIMS, sandbox.claim_name, "default")

    assert claim["spec"]["additionalPodMetadata"] == {"labels": {"sandbox.users.io/a": "b"}, "annotations": {"c": "d"}}
    assert claim["spec"]["volumeClaimTemplates"][0]["metadata"] == {"name": "data"}
    assert await cluster.claim_names() == []


async def test_suspend_and_resume_wait_for_what_they_ask(cluster: PretendCluster) -> None:
    async def play_controller(name: str, *, task_status: TaskStatus[None]) -> None:
        """Say Suspended or Ready as soon as replicas say so."""
        sandbox = await cluster.kube.get(SANDBOXES, name, "default")
        version = sandbox.metadata.resource_version
        task_status.started()
        async with cluster.kube.watch(SANDBOXES, "default", resource_version=version, timeout_seconds=60) as events:
            async for event in events:
                spec = (await cluster.kube.get_object(SANDBOXES, name, "default"))["spec"]
                generation = event.object.metadata.generation
                if generation == seen.get("generation"):
                    continue
                seen["generation"] = generation
                running = spec["replicas"] == 1
                suspended = ready_condition(generation, status="False" if running else "True", reason="PodTerminated")
                suspended["type"] = "Suspended"
                ready = ready_condition(generation, status="True" if running else "False", reason="SandboxSuspended")
                status = {"conditions": [ready, suspended], "podIPs": ["10.0.0.9"] if running else []}
                await cluster.kube.patch(
                    SANDBOXES, name, MergePatch({"status": status}), "default", subresource="status"
                )

    seen: dict[str, int] = {}
    async with sandboxes_of(cluster) as sandboxes, anyio.create_task_group() as tasks:
        sandbox = await sandboxes.create("python")
        with pytest.raises(SandboxReadyTimeoutError, match="not become suspended within"):
            await sandbox.suspend(timeout=0.05)
        await tasks.start(play_controller, sandbox.sandbox_name)
        await sandbox.resume(timeout=50)
        await sandbox.suspend(timeout=50)
        await sandbox.resume(timeout=50)
        tasks.cancel_scope.cancel()


async def test_extending_moves_the_end_by_the_servers_clock(cluster: PretendCluster) -> None:
    moments = [datetime.now(UTC)]
    async with sandboxes_of(cluster) as sandboxes:
        sandbox = await sandboxes.create("python", ttl=10)
        moments.append(datetime.now(UTC))
        first = (await sandbox.status()).expires
        moments.append(datetime.now(UTC))
        end = await sandbox.extend(3600)
        moments.append(datetime.now(UTC))
        second = (await sandbox.status()).expires

    assert first is not None
    second_or_two = timedelta(seconds=2)  # the server's clock shows whole seconds
    assert moments[0] - second_or_two < first - timedelta(seconds=10) < moments[1] + second_or_two
    assert second == end
    assert moments[2] - second_or_two < end - timedelta(seconds=3600) < moments[3] + second_or_two


async def test_extending_what_is_gone_is_a_typed_error(cluster: PretendCluster) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        sandbox = await sandboxes.create("python")
        await sandbox.delete()
        await sandbox.delete()

        with pytest.raises(SandboxGoneError):
            await sandbox.extend(60)
        with pytest.raises(SandboxGoneError):
            await sandbox.status()


async def test_a_heartbeat_puts_the_end_off_while_the_block_lasts(cluster: PretendCluster) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        sandbox = await sandboxes.create("python", ttl=2)
        ends: set[datetime | None] = set()
        async with sandbox.heartbeat(ttl=0.3):
            with anyio.fail_after(60):
                while len(ends) < 2:
                    ends.add((await sandbox.status()).expires)
                    await anyio.sleep(0.02)

    assert None not in ends


async def test_a_client_with_a_heartbeat_dies_with_its_program(cluster: PretendCluster) -> None:
    async with AsyncSandboxClient(
        "python", kube=cluster.kube, api_url=cluster.api_url, ttl=60, heartbeat=True
    ) as client:
        status = await client.sandbox.status()

    assert status.expires is not None
    assert await cluster.claim_names() == []


@pytest.mark.parametrize(("ttl", "lives"), [(30.0, 30), (None, 60)])
async def test_a_sandbox_with_a_heartbeat_does_not_expire_while_it_is_waited_for(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch, ttl: float | None, lives: int
) -> None:
    """A cold start may take longer than the ttl, and the heartbeat begins when the sandbox is there."""
    written: list[datetime] = []
    create = cluster.kube.create

    async def note(resource: Any, body: Any, namespace: str) -> Any:
        if resource is SANDBOX_CLAIMS:
            written.append(datetime.fromisoformat(body["spec"]["lifecycle"]["shutdownTime"]))
        return await create(resource, body, namespace)

    monkeypatch.setattr(cluster.kube, "create", note)
    begun = datetime.now(UTC)
    async with AsyncSandboxClient(
        "python", kube=cluster.kube, api_url=cluster.api_url, ttl=ttl, heartbeat=True, sandbox_ready_timeout=1000
    ) as client:
        of_client = (await client.sandbox.status()).expires
    async with (
        sandboxes_of(cluster) as sandboxes,
        sandboxes.use("python", ttl=ttl, heartbeat=True, ready_timeout=1000) as sandbox,
    ):
        of_block = (await sandbox.status()).expires

    assert all(moment >= begun + timedelta(seconds=1000 + lives) for moment in written)
    for expires in (of_client, of_block):
        assert expires is not None
        assert timedelta(seconds=lives) <= expires - begun < timedelta(seconds=lives + 500)


async def test_the_fresh_sandbox_of_a_command_lives_by_a_heartbeat_and_a_kept_one_by_itself(
    cluster: PretendCluster,
) -> None:
    begun = datetime.now(UTC)
    async with sandboxes_of(cluster) as sandboxes:
        async with fresh_sandbox(sandboxes, "python", None, keep=False) as fresh:
            expires = (await fresh.status()).expires
            beaten = (await cluster.kube.get(SANDBOX_CLAIMS, fresh.claim_name, "default")).metadata.generation
        async with fresh_sandbox(sandboxes, "python", None, keep=True) as kept:
            assert (await kept.status()).expires is None
        assert await cluster.claim_names() == [kept.claim_name]

    assert expires is not None
    assert timedelta(seconds=LEASE_SECONDS) <= expires - begun < timedelta(seconds=LEASE_SECONDS + 100)
    assert beaten > 1, "the claim was made with an end, and nobody puts it off"


@pytest.mark.parametrize("ttl", [0, -5, float("nan"), float("inf"), 1e13])
async def test_a_lifetime_that_is_none_is_refused_before_anything_is_made(cluster: PretendCluster, ttl: float) -> None:
    async with sandboxes_of(cluster) as sandboxes:
        with pytest.raises(ValueError, match="a lifetime"):
            await sandboxes.create("python", ttl=ttl)
        assert await cluster.claim_names() == []
        sandbox = await sandboxes.create("python")
        with pytest.raises(ValueError, match="a lifetime"):
            await sandbox.extend(ttl)
        assert (await sandbox.status()).expires is None


async def test_a_refused_claim_says_who_refused(cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*arguments: object, **options: object) -> None:
        raise ForbiddenError(403, "Forbidden", "no rights")

    monkeypatch.setattr(cluster.kube, "create", refuse)
    async with sandboxes_of(cluster) as sandboxes:
        with pytest.raises(PermissionError, match="no rights"):
            await sandboxes.create("python")


def test_the_synchronous_classes_do_the_same(sync_cluster: PretendCluster) -> None:
    options = ConnectionOptions(kube=sync_cluster.kube, api_url=sync_cluster.api_url)
    with Sandboxes(options=options) as sandboxes:
        with sandboxes.use("python") as sandbox, sandbox.heartbeat(30):
            assert sandbox.run("echo 1").stdout == "1\n"
        made = sandboxes.create_many("python", 2)
        outputs = sandboxes.map(lambda box, item: box.run(f"echo {item}").stdout, "ab", template_name="python")

        assert outputs == ["a\n", "b\n"]
        assert {info.claim_name for info in sandboxes.list()} == {box.claim_name for box in made}
        for box in made:
            sandboxes.delete(box.claim_name)
        assert list(sandboxes.list()) == []


async def test_a_pool_is_enough_to_make_a_sandbox_from(cluster: PretendCluster) -> None:
    await _create_template_and_pool(cluster)
    async with sandboxes_of(cluster) as sandboxes:
        made = await sandboxes.create(warmpool="quick")
        claim = await cluster.kube.get_object(SANDBOX_CLAIMS, made.claim_name, "default")

        assert claim["spec"]["sandboxTemplateRef"]["name"] == "python"
        assert claim["spec"]["warmpool"] == "quick"
        with pytest.raises(SandboxWarmPoolNotFoundError, match="default/missing"):
            await sandboxes.create(warmpool="missing")
        with pytest.raises(SandboxConfigError, match="template_name"):
            await sandboxes.create()


async def test_templates_and_pools_are_listed_with_their_troubles(cluster: PretendCluster) -> None:
    await _create_template_and_pool(cluster)
    status = {
        "readyReplicas": 1,
        "conditions": [ready_condition(1, status="False", reason="Obstacle", message="no room")],
    }
    await cluster.kube.patch(
        SANDBOX_WARM_POOLS, "quick", MergePatch({"status": status}), "default", subresource="status"
    )
    async with sandboxes_of(cluster) as sandboxes:
        assert [one.name for one in await sandboxes.templates()] == ["python"]
        (pool,) = await sandboxes.pools()

    assert (pool.template_name, pool.wanted, pool.ready) == ("python", 3, 1)
    assert pool.trouble == "Ready is False, Obstacle: no room"


async def _create_template_and_pool(cluster: PretendCluster) -> None:
    container = {"name": "main", "image": "x"}
    spec = {"podTemplate": {"spec": {"containers": [container]}}}
    await cluster.kube.create(SANDBOX_TEMPLATES, {"metadata": {"name": "python"}, "spec": spec}, "default")
    pool = {"replicas": 3, "sandboxTemplateRef": {"name": "python"}}
    await cluster.kube.create(SANDBOX_WARM_POOLS, {"metadata": {"name": "quick"}, "spec": pool}, "default")


async def test_changes_are_watched_and_writes_that_change_nothing_are_not_told(cluster: PretendCluster) -> None:
    told: list[tuple[str, str, str]] = []
    async with sandboxes_of(cluster) as sandboxes:
        await sandboxes.create("python", name="one", labels={"team": "a"})
        await sandboxes.create("python", name="other")
        async with aclosing(sandboxes.watch(labels={"team": "a"})) as changes:
            async for change in changes:
                told.append((change.kind, change.info.claim_name, change.info.status.state))
                if len(told) == 1:
                    claim = await cluster.kube.get(SANDBOX_CLAIMS, "one", "default")
                    note = MergePatch({"metadata": {"annotations": {"x": "y"}}})
                    await cluster.kube.patch(SANDBOX_CLAIMS, "one", note, "default")
                    await cluster.set_ready(claim, status="False", reason="SandboxSuspended")
                elif len(told) == 2:
                    await sandboxes.delete("one")
                else:
                    break

    assert told == [("added", "one", "Ready"), ("changed", "one", "Suspended"), ("deleted", "one", "Deleting")]
