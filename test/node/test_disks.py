"""Disk space: sizes that hold, Pods that are evicted, a node that runs out of it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.node.disks import find_disks
from agent_sandbox_api.core import PODS
from agent_sandbox_api.views import find_condition

RunNode = Callable[..., Any]
MIB = 1 << 20


def box(script: str, *mounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    command = ["sh", "-c", script]
    return {"name": "main", "image": "localhost/host", "command": command, "volumeMounts": list(mounts), **more}


def claim(size: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "disk", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


DATA = {"name": "data", "mountPath": "/data"}
CLAIMED = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]


async def test_a_claim_holds_what_it_asked_for_and_no_more_and_survives_its_pods_and_the_node(
    run_node: RunNode, tmp_path: Path
) -> None:
    if await anyio.to_thread.run_sync(find_disks, tmp_path) is None:
        pytest.skip("this user may attach no loop device")
    fill = "head -c 40000000 /dev/zero > /data/big; rm /data/big; echo 9 > /data/kept; sleep 1000"
    async with run_node() as stack:
        await stack.server.create(claim("16Mi"))
        await stack.create_pod("one", {"containers": [box(fill, DATA)], "volumes": CLAIMED})
        full = await stack.until_printed("one", "main", "No space left")
        await stack.until_ready("one")
        while (await stack.execute("one", "main", ["cat", "/data/kept"])).code:  # noqa: ASYNC110 - nobody tells us
            await anyio.sleep(0.02)
        await stack.delete_pod("one")
        os.kill(stack.node.network.pid, 9)  # mounts die with the helper and are made again
        reader = {"containers": [box("cat /data/kept; ls -A /data", DATA)], "restartPolicy": "Never"}
        await stack.create_pod("two", {**reader, "volumes": CLAIMED})
        await stack.until("two", lambda pod: pod.status.phase == "Succeeded")
        output = await stack.log("two", "main")
        await stack.delete_pod("two")
        size = await anyio.to_thread.run_sync(lambda: next(stack.state.glob("volumes/*/disk.img")).stat())
        await _delete_claim(stack)
        await stack.until_empty(stack.state / "volumes")
    loops = await anyio.to_thread.run_sync(_loops, str(tmp_path))

    assert "No space left" in full
    assert output.split() == ["9", "kept"]
    assert size.st_size == 16 * MIB
    assert loops == []


async def _delete_claim(stack: Any) -> None:
    from agent_sandbox.local.node.claims import NODE_CLAIMS

    found = await stack.client.get(NODE_CLAIMS, "disk", "default")
    await stack.client.delete(NODE_CLAIMS, "disk", "default", uid=found.metadata.uid)


def _has_file(below: Path, prefix: str) -> bool:
    """Whether there is such a file; unlike ``Path.rglob``, ``os.walk`` bears directories that vanish meanwhile."""
    return any(name.startswith(prefix) for _, _, names in os.walk(below) for name in names)


def _loops(below: str) -> list[str]:
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached while we looked
            found.append(path.read_text())
    return [file for file in found if below in file]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            {
                "containers": [box("head -c 8000000 /dev/zero > /data/big; sleep 1000", DATA)],
                "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Mi"}}],
            },
            'Usage of EmptyDir volume "data" exceeds the limit "1Mi". ',
        ),
        (
            {
                "containers": [
                    box(
                        "for i in 1 2 3; do head -c 900000 /dev/zero > big$i; done; sleep 1000",
                        resources={"limits": {"ephemeral-storage": "1Mi"}},
                    )
                ]
            },
            "Pod ephemeral local storage usage exceeds the total limit of containers 1048576. ",
        ),
    ],
)
async def test_who_uses_more_disk_than_its_limit_is_evicted_and_frees_it(
    run_node: RunNode, spec: dict[str, Any], why: str
) -> None:
    async with run_node(disk_period=0.1) as stack:
        await stack.create_pod("hog", spec)
        modest = {"containers": [box("sleep 1000", resources={"limits": {"ephemeral-storage": "8Mi"}})]}
        await stack.create_pod("modest", modest)
        hog = await stack.until("hog", lambda pod: pod.status.phase == "Failed")
        await stack.until_ready("modest")
        with anyio.fail_after(60):
            while await anyio.to_thread.run_sync(_has_file, stack.state, "big"):  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.02)

    assert (hog.status.reason, hog.status.message) == ("Evicted", why)


async def test_a_nearly_full_disk_evicts_the_largest_pod_and_takes_no_more_until_there_is_room(
    run_node: RunNode,
) -> None:
    async with run_node(disk_period=0.1) as stack:
        await stack.create_pod("large", {"containers": [box("head -c 3000000 /dev/zero > big; echo full; sleep 1000")]})
        await stack.create_pod("small", {"containers": [box("sleep 1000")]})
        await stack.until_printed("large", "main", "full")
        await stack.until_ready("small")

        disk = stack.node._disk
        disk._reserve = 1 << 60  # as if the disk had filled up
        large = await stack.until("large", lambda pod: pod.status.phase == "Failed")
        await stack.create_pod("late", {"containers": [box("sleep 1000")]})
        late = await stack.until("late", lambda pod: bool(pod.status.conditions))
        with anyio.fail_after(60):  # the Node object is written in the background
            while (pressure := await _disk_pressure(stack)) != "True":  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.02)
        disk._reserve = 0
        await stack.until_ready("late")

    condition = find_condition(late.status.conditions, "PodScheduled")
    assert large.status.reason == "Evicted"
    assert "low on resource: ephemeral-storage" in large.status.message
    assert condition is not None
    assert "DiskPressure" in condition.message
    assert pressure == "True"


async def _disk_pressure(stack: Any) -> str:
    from agent_sandbox.local.node.node_object import NODES

    node = await stack.client.get_object(NODES, "local")
    return str({entry["type"]: entry["status"] for entry in node["status"]["conditions"]}["DiskPressure"])


async def test_the_node_is_an_object_with_capacity_that_is_not_ready_when_it_has_stopped(
    run_node: RunNode, state_dir: Path
) -> None:
    from agent_sandbox.local.node.node_object import NODES
    from agent_sandbox.testing.apiserver import InMemoryApiServer

    async with InMemoryApiServer() as server:
        async with run_node(server) as stack:
            with anyio.fail_after(60):
                while not (nodes := (await stack.client.list(NODES)).items):  # noqa: ASYNC110 - nobody tells us
                    await anyio.sleep(0.02)
            await stack.create_pod("one", {"containers": [box("sleep 1000")]})
            await stack.until_ready("one")
            before = await stack.client.get_object(NODES, "local")
        after = await stack.client.get_object(NODES, "local")

    def ready(node: dict[str, Any]) -> str:
        return str({entry["type"]: entry["status"] for entry in node["status"]["conditions"]}["Ready"])

    assert [node.metadata.name for node in nodes] == ["local"]
    assert int(before["status"]["capacity"]["cpu"]) == os.cpu_count()
    assert before["status"]["capacity"].keys() == {"cpu", "memory", "ephemeral-storage", "pods"}
    assert before["metadata"]["labels"]["kubernetes.io/hostname"] == "local"
    assert (ready(before), ready(after)) == ("True", "False")


async def test_a_changed_config_map_reaches_the_running_pod_all_at_once(run_node: RunNode) -> None:
    from agent_sandbox.kube import MergePatch
    from agent_sandbox.local.node.volumes import CONFIG_MAPS

    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"a": "1", "b": "1"}}
    mount = {"name": "c", "mountPath": "/c"}
    script = "until grep -q 2 /c/a; do sleep 0.02; done; cat /c/a /c/b; ls /c; sleep 1000"
    async with run_node(payload_period=0.05) as stack:
        await stack.server.create({**body, "metadata": {"name": "conf", "namespace": "default"}})
        await stack.create_pod(
            "one", {"containers": [box(script, mount)], "volumes": [{"name": "c", "configMap": {"name": "conf"}}]}
        )
        await stack.until_ready("one")
        patch = MergePatch({"data": {"a": "2", "b": "2", "c": "3"}})
        await stack.client.patch(CONFIG_MAPS, "conf", patch, "default")
        output = await stack.until_printed("one", "main", "c\n")

    assert output == "22a\nb\nc\n"


async def test_a_container_that_keeps_failing_keeps_two_logs(run_node: RunNode) -> None:
    async with run_node(restart_backoff=0.01, restart_backoff_max=0.02) as stack:
        await stack.create_pod("loop", {"containers": [box("echo run; exit 1")]})
        await stack.until("loop", lambda pod: any(e.restart_count >= 4 for e in pod.status.container_statuses))
        pod = await stack.client.get(PODS, "loop", "default")
        logs = await anyio.to_thread.run_sync(
            lambda: [path.name for path in (stack.state / "pods" / pod.metadata.uid / "logs/main").iterdir()]
        )

    assert len(logs) <= 2
