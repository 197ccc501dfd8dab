"""A claim's life under faults, in virtual time: created once, watched without polling, deleted whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest

from agent_sandbox.kube import KubeClient, MergePatch
from agent_sandbox.sdk import (
    SandboxClaimFailedError,
    SandboxCleanupError,
    SandboxConnectionError,
    SandboxGoneError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxPodFailedError,
    SandboxReadyTimeoutError,
    SandboxRequestError,
    SandboxTemplateNotFoundError,
    SandboxWarmPoolNotFoundError,
)
from agent_sandbox.sdk.claims import (
    POD_FAILURE_REASONS,
    REFUSED_REASONS,
    Binding,
    ClaimRequest,
    create_claim,
    delete_claim,
    expiry,
    judge,
    wait_until_bound,
)
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxClaimView
from agent_sandbox_api.meta import format_time

pytestmark = pytest.mark.virtual_time
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CRDS = load_crds()


class Api:
    """An API server, the faults on the way to it, and a way without faults beside it."""

    def __init__(self, server: InMemoryApiServer) -> None:
        self.faults = FaultyTransport(server.transport())
        self.kube = KubeClient(self.faults)
        self.direct = KubeClient(server.transport())
        self.server = server

    async def claims(self) -> list[SandboxClaimView]:
        """The claims that exist."""
        return (await self.direct.list(SANDBOX_CLAIMS, "default")).items

    async def say(self, status: str, reason: str, message: str = "", *, generation: int | None = None) -> None:
        """Write the Ready condition of the only claim, as a controller does."""
        (claim,) = await self.claims()
        condition = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": generation or claim.metadata.generation,
            "lastTransitionTime": format_time(NOW),
        }
        patch = MergePatch({"status": {"conditions": [condition], "sandboxName": "box"}})
        await self.direct.patch(SANDBOX_CLAIMS, claim.metadata.name, patch, "default", subresource="status")


@asynccontextmanager
async def open_api() -> AsyncIterator[Api]:
    """An API server in memory that knows our kinds."""
    async with InMemoryApiServer(crds=CRDS, history_capacity=8) as server:
        yield Api(server)


async def make(api: Api) -> SandboxClaimView:
    """A claim without faults."""
    return await create_claim(api.direct, ClaimRequest("python"), now=NOW)


async def test_the_claim_says_what_is_wanted_and_who_made_it() -> None:
    async with open_api() as api:
        request = ClaimRequest(
            "python",
            template_namespace="shared",
            warmpool="none",
            ttl=90.5,
            labels={"team": "a", "agents.x-k8s.io/created-by": "somebody"},
            env={"A": "b"},
            pod_labels={"sandbox.users.io/x": "y"},
            volume_claim_templates=[{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        )
        claim = await create_claim(api.kube, request, now=NOW)
        whole = await api.direct.get_object(SANDBOX_CLAIMS, claim.metadata.name, "default")

    assert whole["spec"] == {
        "sandboxTemplateRef": {"name": "python", "namespace": "shared"},
        "warmpool": "none",
        "lifecycle": {"shutdownTime": "2026-01-31T12:01:31Z", "shutdownPolicy": "Delete"},
        "env": [{"name": "A", "value": "b"}],
        "additionalPodMetadata": {"labels": {"sandbox.users.io/x": "y"}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    }
    assert whole["metadata"]["labels"] == {"team": "a", "agents.x-k8s.io/created-by": "python-client"}
    assert whole["metadata"]["annotations"]["agents.x-k8s.io/client-first-requested-at"] == "2026-01-31T12:00:00Z"


def test_a_lifetime_is_never_cut_short_by_whole_seconds() -> None:
    half = NOW.replace(microsecond=900_000)

    assert (expiry(half, 10) - half).total_seconds() >= 10


async def test_a_lost_answer_to_the_create_makes_no_second_claim() -> None:
    async with open_api() as api:
        api.faults.inject(Fault.lost_answer(), method="POST")
        claim = await create_claim(api.kube, ClaimRequest("python"), now=NOW)

        assert [item.metadata.uid for item in await api.claims()] == [claim.metadata.uid]


async def test_a_lost_request_is_sent_again_under_the_same_name() -> None:
    async with open_api() as api:
        api.faults.inject(Fault.lost_request(), method="POST")
        claim = await create_claim(api.kube, ClaimRequest("python"), now=NOW)

        assert [item.metadata.uid for item in await api.claims()] == [claim.metadata.uid]


@pytest.mark.parametrize("away", [Fault.error(503), Fault.error(429), Fault.unreachable(), Fault.lost_request()])
async def test_a_claim_whose_answer_was_lost_is_found_although_the_server_is_away_for_a_while(away: Fault) -> None:
    """The second attempt is told that the name is taken: by the first one, as a look at it shows in the end."""
    async with open_api() as api:
        api.faults.inject(Fault.lost_answer(), method="POST")
        api.faults.inject(away, method="GET", times=2)
        claim = await create_claim(api.kube, ClaimRequest("python"), now=NOW)

        assert [item.metadata.uid for item in await api.claims()] == [claim.metadata.uid]


async def test_a_claim_that_was_written_although_the_server_says_that_it_failed_is_found() -> None:
    """ "etcdserver: request timed out" is such a 500: the write may have been carried out."""
    async with open_api() as api:
        api.faults.inject(Fault.lost_answer(), method="POST")
        api.faults.inject(Fault.error(503), method="GET")
        api.faults.inject(Fault.error(500, "InternalError"), method="POST")
        claim = await create_claim(api.kube, ClaimRequest("python"), now=NOW)

        assert [item.metadata.uid for item in await api.claims()] == [claim.metadata.uid]


async def test_a_server_that_fails_to_write_the_claim_is_an_error_at_once() -> None:
    async with open_api() as api:
        api.faults.inject(Fault.error(500, "InternalError"), method="POST")
        began = anyio.current_time()
        with pytest.raises(SandboxRequestError, match="500"):
            await create_claim(api.kube, ClaimRequest("python"), now=NOW)

        assert anyio.current_time() == began
        assert await api.claims() == []


async def test_who_may_not_read_the_claim_hears_so_in_the_words_of_the_sdk() -> None:
    async with open_api() as api:
        api.faults.inject(Fault.lost_answer(), method="POST")
        api.faults.inject(Fault.error(403, "Forbidden"), method="GET")
        with pytest.raises(SandboxPermissionError):
            await create_claim(api.kube, ClaimRequest("python"), now=NOW)


async def test_a_name_that_is_taken_is_an_error_and_the_other_claim_stays() -> None:
    async with open_api() as api:
        first = await create_claim(api.kube, ClaimRequest("python", name="mine"), now=NOW)
        with pytest.raises(SandboxRequestError, match="already exists"):
            await create_claim(api.kube, ClaimRequest("python", name="mine"), now=NOW)

        assert [item.metadata.uid for item in await api.claims()] == [first.metadata.uid]


async def test_an_unreachable_server_is_told_from_one_that_never_answers() -> None:
    async with open_api() as api:
        api.faults.inject(Fault.unreachable(), method="POST")
        with pytest.raises(SandboxConnectionError):
            await create_claim(api.kube, ClaimRequest("python"), now=NOW)
        api.faults.partition()
        with pytest.raises(SandboxOutcomeUnknownError, match="may exist"):
            await create_claim(api.kube, ClaimRequest("python"), now=NOW)


@pytest.mark.parametrize("native", [True, False])
async def test_cancellation_in_the_middle_of_the_create_hands_the_claim_over(native: bool) -> None:
    async with open_api() as api:
        api.faults.inject(Fault.slow(5), method="POST")
        kept: list[SandboxClaimView] = []

        async def work() -> None:
            await create_claim(api.kube, ClaimRequest("python"), now=NOW, keep=kept.append)

        if native:
            task = asyncio.get_running_loop().create_task(work())
            await anyio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with anyio.move_on_after(1) as scope:
                await work()
            assert scope.cancelled_caught

        assert [claim.metadata.uid for claim in kept] == [claim.metadata.uid for claim in await api.claims()]
        assert len(kept) == 1


async def test_readiness_is_seen_by_one_watch_at_once() -> None:
    async with open_api() as api, anyio.create_task_group() as tasks:
        claim = await make(api)
        began = anyio.current_time()

        async def become_ready() -> None:
            await anyio.sleep(30)
            await api.say("False", "DependenciesNotReady")
            await anyio.sleep(30)
            await api.say("True", "DependenciesReady")

        tasks.start_soon(become_ready)
        binding = await wait_until_bound(api.kube, claim, timeout=180)

        assert binding == Binding(claim.metadata.name, "default", claim.metadata.uid, "box", ())
        assert anyio.current_time() - began == 60
        assert [request.method for request in api.faults.seen] == ["GET"]


async def test_a_condition_of_an_older_generation_counts_for_nothing() -> None:
    async with open_api() as api:
        await make(api)
        await api.say("True", "DependenciesReady", generation=99)
        (claim,) = await api.claims()

        assert judge(claim) is None


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("TemplateNotFound", SandboxTemplateNotFoundError),
        ("WarmPoolNotFound", SandboxWarmPoolNotFoundError),
        *((reason, SandboxClaimFailedError) for reason in sorted(REFUSED_REASONS)),
        *((reason, SandboxPodFailedError) for reason in sorted(POD_FAILURE_REASONS)),
    ],
)
async def test_a_hopeless_condition_ends_the_wait_with_its_message(reason: str, kind: type[Exception]) -> None:
    async with open_api() as api, anyio.create_task_group() as tasks:
        claim = await make(api)
        began = anyio.current_time()
        tasks.start_soon(api.say, "False", reason, "because of this")
        with pytest.raises(kind, match="because of this"):
            await wait_until_bound(api.kube, claim, timeout=180)

        assert anyio.current_time() - began < 1


@pytest.mark.parametrize("reason", ["DependenciesNotReady", "SandboxNotReady", "ReconcilerError", "QuotaExceeded"])
async def test_a_condition_that_may_pass_is_waited_out(reason: str) -> None:
    async with open_api() as api:
        claim = await make(api)
        await api.say("False", reason, "not yet")
        with pytest.raises(SandboxReadyTimeoutError, match=f"within 180 s; its last condition is {reason}: not yet"):
            await wait_until_bound(api.kube, claim, timeout=180)


async def test_a_timeout_without_any_condition_says_that_no_controller_came() -> None:
    async with open_api() as api:
        with pytest.raises(SandboxReadyTimeoutError, match="no controller has looked at it"):
            await wait_until_bound(api.kube, await make(api), timeout=180)


@pytest.mark.parametrize("fault", [Fault.broken_stream(), Fault.error(410, "Expired"), Fault.error(503)])
async def test_a_watch_that_fails_is_opened_again_and_nothing_is_missed(fault: Fault) -> None:
    async with open_api() as api, anyio.create_task_group() as tasks:
        claim = await make(api)
        api.faults.inject(fault, times=3, only_if=lambda _, path: path.endswith("/sandboxclaims"))

        async def become_ready() -> None:
            await anyio.sleep(20)
            await api.say("True", "DependenciesReady")

        tasks.start_soon(become_ready)
        binding = await wait_until_bound(api.kube, claim, timeout=180)

        assert binding.sandbox_name == "box"


async def test_a_network_that_comes_back_within_the_timeout_is_no_error() -> None:
    async with open_api() as api, anyio.create_task_group() as tasks:
        claim = await make(api)

        async def fail_for_a_while() -> None:
            api.faults.drop_watches()
            api.faults.partition()
            await api.say("True", "DependenciesReady")
            await anyio.sleep(100)
            api.faults.heal()

        tasks.start_soon(fail_for_a_while)

        assert (await wait_until_bound(api.kube, claim, timeout=400)).sandbox_name == "box"


async def test_a_claim_that_another_took_the_name_of_is_gone() -> None:
    async with open_api() as api, anyio.create_task_group() as tasks:
        claim = await make(api)
        api.faults.inject(Fault.broken_stream(), path="sandboxclaims")

        async def replace() -> None:
            await delete_claim(api.direct, claim)
            await create_claim(api.direct, ClaimRequest("python", name=claim.metadata.name), now=NOW)

        tasks.start_soon(replace)
        with pytest.raises(SandboxGoneError, match=r"was deleted"):
            await wait_until_bound(api.kube, claim, timeout=180)


async def test_deleting_repeats_until_it_is_known_to_be_done() -> None:
    async with open_api() as api:
        claim = await make(api)
        for fault in (Fault.unreachable(), Fault.lost_request(), Fault.error(503), Fault.lost_answer()):
            api.faults.inject(fault, method="DELETE")
        await delete_claim(api.kube, claim)

        assert await api.claims() == []


async def test_deleting_spares_another_claim_of_the_same_name() -> None:
    async with open_api() as api:
        claim = await make(api)
        await delete_claim(api.direct, claim)
        other = await create_claim(api.direct, ClaimRequest("python", name=claim.metadata.name), now=NOW)
        await delete_claim(api.kube, claim)

        assert [item.metadata.uid for item in await api.claims()] == [other.metadata.uid]


async def test_a_delete_that_cannot_be_done_says_how_to_do_it_by_hand() -> None:
    async with open_api() as api:
        claim = await make(api)
        api.faults.inject(Fault.error(403, "Forbidden"), method="DELETE")
        with pytest.raises(SandboxCleanupError, match=f"kubectl delete sandboxclaim {claim.metadata.name} -n default"):
            await delete_claim(api.kube, claim)
        api.faults.partition()
        with pytest.raises(SandboxCleanupError, match="still exists"):
            await delete_claim(api.kube, claim)


async def test_deleting_goes_on_under_cancellation() -> None:
    async with open_api() as api:
        claim = await make(api)
        api.faults.inject(Fault.slow(3), method="DELETE")
        with anyio.move_on_after(1):
            await delete_claim(api.kube, claim)

        assert await api.claims() == []
