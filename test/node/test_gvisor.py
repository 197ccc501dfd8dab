"""``runtimeClassName: gvisor`` gives gVisor where it works, and nothing where it does not."""

import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.node import gvisor_trial
from agent_sandbox_api.core import PODS, PodView
from agent_sandbox_api.views import find_condition

RunNode = Callable[..., Any]

RUNSC = gvisor_trial.find_program()
needs_runsc = pytest.mark.skipif(RUNSC is None, reason=f"runsc is not installed: {gvisor_trial.INSTALL}")
needs_root = pytest.mark.skipif("os.geteuid() != 0", reason="gVisor needs uids of its own for Pods")
SLEEPER = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}


def _refused(pod: PodView) -> bool:
    return find_condition(pod.status.conditions, "PodScheduled") is not None


def gvisor(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"runtimeClassName": "gvisor", "containers": list(containers), **spec}


async def test_without_runsc_a_pod_stays_pending_and_says_what_to_install(
    run_node: RunNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gvisor_trial, "_SEARCH", str(tmp_path))
    async with run_node() as stack:
        await stack.create_pod("strong", gvisor(SLEEPER))
        pod = await stack.until("strong", _refused)

    condition = find_condition(pod.status.conditions, "PodScheduled")
    assert condition is not None
    assert (pod.status.phase, condition.status, condition.reason) == ("Pending", "False", "Unschedulable")
    assert "apt-get install runsc" in condition.message
    assert "not replaced by a weaker runtime" in condition.message
    assert not pod.ips


@needs_root
async def test_a_runsc_that_does_not_serve_is_refused_with_what_it_said(
    run_node: RunNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "runsc"
    broken.write_text("#!/bin/sh\necho 'panic: running on goroutine 0' >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setattr(gvisor_trial, "_SEARCH", str(tmp_path))
    async with run_node() as stack:
        await stack.create_pod("strong", gvisor(SLEEPER))
        pod = await stack.until("strong", _refused)
        left = [path.name for path in (stack.state / "pods").iterdir()]

    condition = find_condition(pod.status.conditions, "PodScheduled")
    assert condition is not None
    assert pod.status.phase == "Pending"
    assert "does not work on this machine" in condition.message
    assert "panic: running on goroutine 0" in condition.message
    assert left == []


@pytest.mark.slow
@needs_runsc
@needs_root
async def test_a_waiting_pod_starts_by_itself_once_runsc_is_there(
    run_node: RunNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert RUNSC is not None
    monkeypatch.setattr(gvisor_trial, "_SEARCH", str(tmp_path))
    async with run_node(reconsider_period=0.1) as stack:
        await stack.create_pod("strong", gvisor(SLEEPER))
        await stack.until("strong", _refused)
        (tmp_path / "runsc").symlink_to(RUNSC)
        await stack.until_ready("strong")


@pytest.mark.slow
@needs_runsc
@needs_root
async def test_a_pod_of_that_class_lives_as_any_other_on_a_kernel_of_its_own(run_node: RunNode) -> None:
    script = (
        "cat /proc/version; id -u; cat /data/from-init; echo one > /workspace/file;"
        " python -c \"import os; print(os.stat('/workspace/file')[4:6])\";"
        " printf 'that was it' > /dev/termination-log; echo error >&2; exit 3"
    )
    mounts = [{"name": "shared", "mountPath": "/data"}, {"name": "memory", "mountPath": "/memory"}]
    main = {"name": "main", "image": "localhost/host", "command": ["sh", "-c", script], "volumeMounts": mounts}
    first = {**main, "name": "first", "command": ["sh", "-c", "echo hello > /data/from-init; echo > /memory/x"]}
    volumes = [{"name": "shared", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    async with run_node() as stack:
        await stack.create_pod("job", gvisor(main, initContainers=[first], volumes=volumes, restartPolicy="Never"))
        pod = await stack.until("job", lambda pod: pod.status.phase == "Failed")
        status = (await stack.client.get_object(PODS, "job", "default"))["status"]
        output = await stack.log("job", "main")
        files = list(stack.state.glob("pods/*/files/containers/main/workspace/file"))
        owners = {path.stat().st_uid for path in files}
        await stack.delete_pod("job")
        await stack.until_empty(stack.state / "pods")

    ended = pod.status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.message) == (3, "that was it")
    assert status["containerStatuses"][0]["containerID"].startswith("gvisor://")
    version, uid, from_init, owner, error = output.splitlines()
    assert version.startswith("Linux version 4.4.0 ")  # gVisor's own, whatever the machine runs
    assert (uid, from_init, error) == ("1000", "hello", "error")
    assert owner == "(1000, 1000)"
    assert min(owners) > 1_800_000_000


def _kernels_of(state: Path) -> list[int]:
    """Process ids of gVisor kernels that belong to Pods of this state directory."""
    pods = {path.name for path in (state / "pods").iterdir()}
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if words.startswith(b"runsc-sandbox") and any(pod.encode() in words for pod in pods):
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@needs_runsc
@needs_root
async def test_containers_share_a_kernel_and_start_again_when_it_dies(run_node: RunNode) -> None:
    server = {"name": "server", "image": "python-runtime-sandbox"}
    async with run_node(restart_backoff=0.1) as stack:
        await stack.create_pod("two", gvisor(server, SLEEPER))
        before = await stack.until_ready("two")
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8888/').status)"
        answer = await stack.execute("two", "main", ["python", "-c", ask])
        typed = await stack.execute("two", "main", ["sh", "-c", "cat; exit 4"], stdin=b"typed")
        missing = await stack.execute("two", "main", ["/nonexistent"])
        kernels = await anyio.to_thread.run_sync(_kernels_of, stack.state)
        for pid in kernels:
            _kill(pid)
        await stack.until("two", lambda pod: all(one.restart_count == 1 for one in pod.status.container_statuses))
        after = await stack.until_ready("two")
        again = await stack.execute("two", "main", ["python", "-c", ask])

    assert len(kernels) == 1
    assert (answer.out, answer.err) == (b"200\n", b"")
    assert (typed.out, typed.code) == (b"typed", 4)
    assert missing.code != 0
    assert after.ips == before.ips
    assert again.out == b"200\n"
    ends: Sequence[Any] = [one.last_state.terminated for one in after.status.container_statuses]
    assert [end.exit_code for end in ends] == [137, 137]


def _kill(pid: int) -> None:
    import os

    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@needs_runsc
@needs_root
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_a_pod_over_its_memory_limit_is_killed_and_says_so(run_node: RunNode) -> None:
    bomb = "a = bytearray(400 << 20)\nfor i in range(0, len(a), 4096): a[i] = 1"
    main = {
        "name": "main",
        "image": "localhost/host",
        "command": ["python", "-c", bomb],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    async with run_node() as stack:
        if stack.node._cgroups is None:
            pytest.skip("this machine lets nobody set limits")
        await stack.create_pod("bomb", gvisor(main, restartPolicy="Never"))
        pod = await stack.until("bomb", lambda pod: pod.status.phase == "Failed")

    ended = pod.status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)
