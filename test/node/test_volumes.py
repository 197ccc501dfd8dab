"""Volumes in memory and parts of volumes; terminals; hooks; sidecars."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

RunNode = Callable[..., Any]
MEMORY = {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
DISK = {"name": "d", "emptyDir": {}}


def box(name: str, script: str, *mounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    command = ["sh", "-c", script]
    return {"name": name, "image": "localhost/host", "command": command, "volumeMounts": list(mounts), **more}


async def test_a_volume_in_memory_is_shared_by_containers_bounded_and_gone_with_its_pod(run_node: RunNode) -> None:
    mount = {"name": "m", "mountPath": "/m"}
    async with run_node() as stack:
        writer = box("writer", "echo hello > /m/f; df /m | tail -1 | cut -d' ' -f1; sleep 1000", mount)
        reader = box("reader", "until cat /m/f; do sleep 0.02; done; sleep 1000", mount)
        await stack.create_pod("pair", {"containers": [writer, reader], "volumes": [MEMORY]})
        await stack.until_printed("pair", "reader", "hello")
        too_much = await stack.execute("pair", "reader", ["sh", "-c", "head -c 2000000 /dev/zero > /m/big"])
        kind = await stack.until_printed("pair", "writer", "tmpfs")
        on_disk = await anyio.to_thread.run_sync(lambda: list(Path(stack.state).glob("pods/*/files/volumes/*")))
        await stack.delete_pod("pair")

    assert kind == "tmpfs\n"
    assert b"No space left" in too_much.err
    assert on_disk == []


async def test_a_part_of_a_volume_is_mounted_and_a_planted_link_is_not_followed(run_node: RunNode) -> None:
    whole = {"name": "d", "mountPath": "/d"}
    async with run_node(restart_backoff=0.1) as stack:
        await stack.create_pod(
            "good",
            {
                "restartPolicy": "Never",
                "volumes": [DISK],
                "initContainers": [box("a", "echo 1 > /part/f", {**whole, "mountPath": "/part", "subPath": "x/y"})],
                "containers": [box("main", "cat /d/x/y/f", whole)],
            },
        )
        await stack.until("good", lambda pod: pod.status.phase == "Succeeded")
        await stack.create_pod(
            "evil",
            {
                "restartPolicy": "Never",
                "volumes": [DISK],
                "initContainers": [box("a", "ln -s /usr /d/trap; ln -s /usr/share /d/x", whole)],
                "containers": [box("main", "ls /t", {"name": "d", "mountPath": "/t", "subPath": "trap/share"})],
            },
        )
        evil = await stack.until(
            "evil",
            lambda pod: any(
                entry.state.waiting and entry.state.waiting.message for entry in pod.status.container_statuses
            ),
        )
        output = await stack.log("good", "main")

    waiting = evil.status.container_statuses[0].state.waiting
    assert output == "1\n"
    assert waiting is not None
    assert "leads out of the volume" in waiting.message


async def test_a_command_can_have_a_terminal_of_its_own(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [box("main", "sleep 1000")]})
        await stack.until_ready("one")
        session = await stack.execute(
            "one", "main", ["bash", "-c", "test -t 0 && test -t 1 && echo > /dev/tty && echo yes"], tty=True
        )

    assert session.code == 0
    assert session.out.split() == [b"yes"]


async def test_hooks_run_at_the_start_and_before_the_end(run_node: RunNode) -> None:
    mount = {"name": "data", "mountPath": "/data"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >> /data/f"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /data/f"]}},
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]
    async with run_node() as stack:
        await stack.server.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "disk", "namespace": "default"},
                "spec": claim,
            }
        )
        script = "until grep -q started /data/f; do sleep 0.02; done; echo seen; sleep 1000"
        await stack.create_pod("one", {"containers": [box("main", script, mount, lifecycle=hooks)], "volumes": volumes})
        await stack.until_printed("one", "main", "seen")
        await stack.delete_pod("one")
        reader = {"containers": [box("main", "cat /data/f", mount)], "volumes": volumes, "restartPolicy": "Never"}
        await stack.create_pod("two", reader)
        await stack.until("two", lambda pod: pod.status.phase == "Succeeded")
        output = await stack.log("two", "main")

    assert output == "started\nstopping\n"


async def test_a_sidecar_starts_before_the_containers_and_ends_with_them(run_node: RunNode) -> None:
    mount = {"name": "d", "mountPath": "/d"}
    sidecar = box("side", "touch /d/up; sleep 1000", mount, restartPolicy="Always")
    main = box("main", "until test -f /d/up; do sleep 0.02; done; echo saw it", mount)
    async with run_node() as stack:
        await stack.create_pod(
            "pod",
            {"initContainers": [sidecar], "containers": [main], "volumes": [DISK], "restartPolicy": "Never"},
        )
        await stack.until("pod", lambda pod: pod.status.phase == "Succeeded")
        output = await stack.log("pod", "main")
        left = await anyio.to_thread.run_sync(lambda: stack.node._workers)

    assert output == "saw it\n"
    assert all(runner.process is None for worker in left.values() for runner in worker.runners.values())


async def test_a_user_id_and_a_working_directory_are_honoured(run_node: RunNode) -> None:
    container = box("main", "id -u; pwd; touch f; ls -ln f | cut -d' ' -f3", workingDir="/workspace/deep/er")
    async with run_node() as stack:
        await stack.create_pod(
            "one",
            {"containers": [container], "restartPolicy": "Never", "securityContext": {"runAsUser": 4242}},
        )
        await stack.until("one", lambda pod: pod.status.phase in {"Succeeded", "Failed"})
        output = await stack.log("one", "main")

    assert output.split() == ["4242", "/workspace/deep/er", "4242"]


async def test_a_container_says_why_it_ended(run_node: RunNode) -> None:
    async with run_node() as stack:
        told = box("main", "echo because > /dev/termination-log; exit 4")
        silent = box("main", "echo noise >&2; exit 4", terminationMessagePolicy="FallbackToLogsOnError")
        messages = []
        for name, container in (("told", told), ("silent", silent)):
            await stack.create_pod(name, {"containers": [container], "restartPolicy": "Never"})
            pod = await stack.until(name, lambda pod: pod.status.phase == "Failed")
            messages.append(pod.status.container_statuses[0].state.terminated.message)

    assert messages == ["because\n", "noise\n"]


async def test_two_pods_on_one_claim_both_write_to_it(run_node: RunNode) -> None:
    mount = {"name": "data", "mountPath": "/data"}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    async with run_node() as stack:
        await stack.server.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "disk", "namespace": "default"},
                "spec": claim,
            }
        )
        for name in ("a", "b"):
            await stack.create_pod(name, {"containers": [box("main", "sleep 1000", mount)], "volumes": volumes})
            await stack.until_ready(name)
        codes = [
            (await stack.execute(name, "main", ["sh", "-c", f"echo {name} >> /data/f && touch /data/{name}"])).code
            for name in ("a", "b", "a")
        ]
        whole = await stack.execute("b", "main", ["cat", "/data/f"])

    assert codes == [0, 0, 0]
    assert whole.out == b"a\nb\na\n"
