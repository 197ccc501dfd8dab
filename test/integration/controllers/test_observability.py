"""Metrics, events, and what is deliberately not written."""

import re
import shutil
import subprocess
from typing import Any

import anyio
import pytest
from prometheus_client import generate_latest

from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_WARM_POOLS
from agent_sandbox_controllers import ControllerOptions
from agent_sandbox_controllers.holding import SANDBOX_DELAYS


def reasons(house: Any) -> list[str]:
    return [each.body["reason"] for each in house.wire.writes if each.path.endswith("/events")]


async def test_edge_115_188_192_starts_are_told_counted_and_timed_once(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        warm = make.claim("warm")
        warm["metadata"]["annotations"] = {"agents.x-k8s.io/client-first-requested-at": house.at(-1)}
        await house.make(warm, make.claim("cold", warmpool="none"))
        await house.ready(SANDBOX_CLAIMS, "warm")
        await house.ready(SANDBOX_CLAIMS, "cold")
        await house.settle(30)
        pod = await house.get(PODS, "cold")
        await house.kubelet.report(pod, {**make.ready_status("10.0.0.9"), "conditions": []})
        await house.settle(5)
        await house.kubelet.report(pod, make.ready_status("10.0.0.9"))
        await house.settle(5)

        value = house.manager.registry.get_sample_value
        assert sorted(reason for reason in reasons(house)) == ["SandboxAdopted", "SandboxProvisioned"]
        for launch in ("warm", "cold"):
            labels = {"launch_type": launch, "sandbox_template": "python"}
            assert value("agent_sandbox_claim_controller_startup_latency_ms_count", labels) == 1
        client = {"launch_type": "warm", "sandbox_template": "python"}
        assert value("agent_sandbox_client_claim_startup_latency_ms_count", client) == 1
        hits = {"namespace": house.namespace, "sandbox_template": "python", "result": "hit"}
        assert value("agent_sandbox_warm_pool_requests_total", hits) == 1
        assert value("agent_sandbox_warm_pool_ready_replicas", {"namespace": house.namespace, "warmpool": "pool"}) == 1


async def test_defect_22_23_25_nothing_is_noted_on_a_claim_for_the_sake_of_measurement(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim())
        mine = await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(60)

        assert mine.metadata.annotations == {}
        paths = [write for write in house.writes() if "/sandboxclaims/mine" in write]
        assert all(write.startswith("PATCH") and write.endswith("/status") for write in paths)


async def test_defect_31_a_start_that_a_crash_hid_is_told_and_counted_afterwards(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        from agent_sandbox.testing import Fault

        house.wire.inject(Fault.unreachable(), path="/sandboxclaims/mine/status", times=None)
        house.wire.inject(Fault.unreachable(), path="/events", times=None)
        await house.make(make.claim())
        await house.settle(5)
        await house.kill_manager()
        await house.start_manager()
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(5)

        assert reasons(house) == ["SandboxAdopted"]


@pytest.mark.embedded
async def test_defect_29_patience_counts_from_the_first_sight_not_from_creation(make: Any) -> None:
    async with make.house(kubelet_seconds=1.0) as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.settle(0.5)
        await house.kill_manager()
        await house.make(make.claim())
        await anyio.sleep(60)
        await house.start_manager()

        mine = await house.ready(SANDBOX_CLAIMS, "mine")

        assert mine.status.sandbox_name.startswith("pool-")


@pytest.mark.parametrize("eviction", [True, False])
async def test_edge_212_members_are_safe_to_evict_until_they_are_claimed(make: Any, eviction: bool) -> None:
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    async with make.house(ControllerOptions(pool_eviction=eviction, member_suffixes=1)) as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        (pod,) = await house.all(PODS)
        assert pod.metadata.annotations.get(key) == ("true" if eviction else None)

        await house.make(make.claim(warmpool="pool"))
        mine = await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(2)
        assert key not in (await house.get(PODS, mine.status.sandbox_name)).metadata.annotations


async def test_edge_254_the_gauge_counts_sandboxes_by_what_they_are(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=2), make.sandbox())
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.ready(SANDBOXES, "alice")

        labels = {
            "namespace": house.namespace,
            "ready_condition": "true",
            "expired": "false",
            "launch_type": "warm",
            "sandbox_template": "python",
            "owned_by": "SandboxWarmPool",
            "created_by": "controller",
        }
        assert house.manager.registry.get_sample_value("agent_sandboxes", labels) == 2


async def test_suspends_resumes_and_expiries_are_counted_and_timed(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        await house.ready(SANDBOXES, "alice")
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 0}})
        await house.settle(5)
        await house.edit(SANDBOXES, "alice", {"spec": {"replicas": 1}})
        await house.ready(SANDBOXES, "alice")
        await house.edit(SANDBOXES, "alice", {"spec": {"shutdownTime": house.at(-5)}})
        await house.settle(5)

        value = house.manager.registry.get_sample_value
        for transition in ("suspended", "resumed", "expired"):
            labels = {"namespace": house.namespace, "transition": transition}
            assert value("agent_sandbox_transitions_total", labels) == 1, transition
        assert value("agent_sandbox_transition_seconds_count", {"transition": "resumed"}) == 1


async def test_edge_053_and_257_and_defect_47_a_plain_start_is_one_status_write(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.sandbox(service=False))
        alice = await house.ready(SANDBOXES, "alice")

        statuses = [each.at for each in house.wire.writes if each.path.endswith("/status")]
        took = statuses[-1] - house.wire.writes[0].at
        assert len(statuses) == 1 or took > SANDBOX_DELAYS[0], "progress is told of what takes longer"
        assert [each.type for each in alice.status.conditions] == ["PodScheduled", "Ready", "Suspended"]


async def test_the_metrics_have_the_names_that_dashboards_of_the_go_project_know(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1))
        await house.ready(SANDBOX_WARM_POOLS, "pool")

        names = {family.name for family in house.manager.registry.collect()}

        assert names >= {
            "agent_sandbox_claim_startup_latency_ms",
            "agent_sandbox_claim_controller_startup_latency_ms",
            "agent_sandbox_client_claim_startup_latency_ms",
            "agent_sandbox_creation_latency_ms",
            "agent_sandbox_claim_creation",
            "agent_sandboxes",
            "agent_sandbox_build_info",
            "controller_runtime_reconcile",
            "workqueue_depth",
        }
        (build,) = [each for each in house.manager.registry.collect() if each.name == "agent_sandbox_build_info"]
        assert [(sample.value, bool(sample.labels["git_version"])) for sample in build.samples] == [(1, True)]


async def test_why_a_claim_waits_is_an_event_too_once_for_each_reason(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.claim(warmpool="pool"))
        await house.reason(SANDBOX_CLAIMS, "mine", "TemplateNotFound")
        await house.make(make.template())
        await house.reason(SANDBOX_CLAIMS, "mine", "WarmPoolNotFound")
        await house.edit(SANDBOX_CLAIMS, "mine", {"metadata": {"labels": {"a": "b"}}})
        await house.settle(5)

        told = [each.body for each in house.wire.writes if each.path.endswith("/events")]
        assert [(each["type"], each["reason"]) for each in told] == [
            ("Warning", "TemplateNotFound"),
            ("Warning", "WarmPoolNotFound"),
        ]
        assert "create it or correct spec.sandboxTemplateRef" in told[0]["note"]

        await house.make(make.pool(replicas=1))
        await house.ready(SANDBOX_CLAIMS, "mine")
        await house.settle(5)
        assert reasons(house)[2:] in (["SandboxAdopted"], ["SandboxProvisioned"]), "no further warning"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: `make tools` brings it")
async def test_promtool_objects_to_nothing_but_the_units_in_the_go_projects_names(make: Any) -> None:
    async with make.house() as house:
        await house.make(make.template(), make.pool(replicas=1), make.sandbox())
        await house.ready(SANDBOX_WARM_POOLS, "pool")
        await house.make(make.claim("warm"), make.claim("cold", warmpool="none"))
        await house.ready(SANDBOX_CLAIMS, "cold")
        await house.settle(5)
        shown = generate_latest(house.manager.registry)

    done = subprocess.run(["promtool", "check", "metrics"], input=shown, check=False, capture_output=True)  # noqa: ASYNC221 - nothing else runs
    remarks = (done.stdout + done.stderr).decode().splitlines()
    known = r"agent_sandbox_\w+_ms metric names should not contain abbreviated units"
    assert [line for line in remarks if not re.fullmatch(known, line)] == []
    assert len(remarks) == 2
