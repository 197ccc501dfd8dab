"""Pods that outlive a killed node: what the next node finds, goes on with, and ends."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.kube import KubeClient, MergePatch
from agent_sandbox.local.apiserver import SqliteJournal
from agent_sandbox.local.node.gvisor_trial import find_program
from agent_sandbox.local.node.helper_process import end_left_behind
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox.testing.footprint import take_footprint
from agent_sandbox_api.core import PODS

RunNode = Callable[..., Any]
RunVictim = Callable[..., Any]
MARK = f"3000{os.getpid()}"
COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.005; done"
ENOUGH = "\n60\n"
"""What the counter has printed once it has gone on for a while."""
AWAY = 0.6


def pod(name: str, script: str, **more: Any) -> dict[str, Any]:
    keys = ("activeDeadlineSeconds", "restartPolicy", "initContainers", "volumes", "runtimeClassName")
    spec = {key: more.pop(key) for key in keys if key in more}
    container = {"name": "main", "image": "localhost/host", "command": ["sh", "-c", f"{script} # {MARK}"], **more}
    metadata = {"name": name, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def server_of(victim: Any) -> InMemoryApiServer:
    return InMemoryApiServer(journal=SqliteJournal(victim.database))


def client_of(server: InMemoryApiServer) -> KubeClient:
    return KubeClient(server.transport())


async def status_of(server: InMemoryApiServer, name: str) -> dict[str, Any]:
    status: dict[str, Any] = (await client_of(server).get_object(PODS, name, "default"))["status"]
    return status


def process_of(stack: Any, name: str) -> Any:
    worker = next(worker for worker in stack.node._workers.values() if worker.pod.metadata.name == name)
    return worker.runners["main"].process


def first_process(helper: int, name: str) -> int:
    """Process id of a Pod's shell: the child of a child of the helper."""
    for child in Path(f"/proc/{helper}/task/{helper}/children").read_text().split():
        with suppress(OSError):  # another one, which ended while we looked
            for inner in Path(f"/proc/{child}/task/{child}/children").read_text().split():
                if Path(f"/proc/{inner}/environ").read_bytes().find(f"HOSTNAME={name}\0".encode()) != -1:
                    return int(inner)
    raise AssertionError(f"no process of {name}")


async def until_ended(pidfd: int) -> None:
    """Wait until a process has ended."""
    try:
        with anyio.fail_after(60):
            await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)


async def end_by_signal(pid: int) -> None:
    """End a process that ends at SIGUSR1, once it has come to say so."""
    process = os.pidfd_open(pid)
    with anyio.fail_after(60):
        while not _catches(pid, signal.SIGUSR1):  # noqa: ASYNC110 - nobody tells us
            await anyio.sleep(0.01)
    signal.pidfd_send_signal(process, signal.SIGUSR1)
    await until_ended(process)


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) & (1 << (number - 1)))


def _has_printed(state: Path, text: str) -> bool:
    """Whether a container of a node that is somebody else's has printed a text."""
    return any(text in path.read_text() for path in state.glob("pods/*/logs/*/*.log"))


async def processes_with_mark(words: str = "", *, expected: int = 0) -> list[str]:
    """Command lines with our mark and these words: so many, unless there are others after a minute."""
    deadline = anyio.current_time() + 60
    while True:
        shown = await anyio.to_thread.run_sync(take_footprint)
        found = [line for line in shown.processes if MARK in line and words in line]
        if len(found) == expected or anyio.current_time() > deadline:
            return found
        await anyio.sleep(0.01)  # until what was killed has ended, and bwrap has become what it was to start


async def test_a_command_goes_on_through_kill_minus_nine_with_all_its_output(
    run_node: RunNode, run_victim: RunVictim
) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 1}
    async with run_victim([pod("one", COUNTER, livenessProbe=probe)]) as victim:
        await victim.until_ready()
        pid = first_process(victim.helper, "one")
        await victim.kill()
        await anyio.sleep(AWAY)

        async with server_of(victim) as server:
            before = await status_of(server, "one")
            async with run_node(server) as stack:
                await stack.until_ready("one")
                found = process_of(stack, "one").pid
                inside = await stack.execute("one", "main", ["sh", "-c", "cat /proc/1/comm; echo $HOSTNAME"])
                printed = await stack.until_printed("one", "main", ENOUGH)
                after = await status_of(server, "one")
                await anyio.sleep(1.2)  # a liveness probe or two
                later = await status_of(server, "one")
                await stack.delete_pod("one")

    numbers = [int(line) for line in printed.split()]
    assert found == pid
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 50
    assert inside.out == b"sh\none\n"
    assert after["containerStatuses"] == before["containerStatuses"] == later["containerStatuses"]
    assert (after["podIP"], after["startTime"]) == (before["podIP"], before["startTime"])


@pytest.mark.slow
@pytest.mark.skipif(find_program() is None, reason="runsc is not installed: apt-get install runsc")
async def test_a_pod_in_gvisor_goes_on_in_its_kernel(run_node: RunNode, run_victim: RunVictim) -> None:
    async with run_victim([pod("one", f"echo mine > /tmp/file; {COUNTER}", runtimeClassName="gvisor")]) as victim:
        await victim.until_ready()
        await victim.kill()
        await anyio.sleep(AWAY)
        async with server_of(victim) as server, run_node(server) as stack:
            one = await stack.until_ready("one")
            await stack.until_printed("one", "main", "1\n")
            session = await stack.execute("one", "main", ["sh", "-c", "cat /tmp/file; cat /proc/version"])
            numbers = [int(line) for line in (await stack.log("one", "main")).split()]
            await stack.delete_pod("one")
            left = await processes_with_mark()

    assert session.out.startswith(b"mine\nLinux version 4.4.0")
    assert one.status.container_statuses[0].restart_count == 0
    assert numbers == list(range(1, len(numbers) + 1))
    assert left == []


@pytest.mark.slow
async def test_a_process_without_walls_goes_on_too(run_node: RunNode, run_victim: RunVictim) -> None:
    async with run_victim([pod("one", COUNTER)], unisolated=True) as victim:
        await victim.until_ready()
        await victim.kill()
        await anyio.sleep(AWAY)
        async with server_of(victim) as server, run_node(server, unisolated=True) as stack:
            one = await stack.until_ready("one")
            numbers = [int(line) for line in (await stack.until_printed("one", "main", ENOUGH)).split()]

    assert one.status.container_statuses[0].restart_count == 0
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 50


@pytest.mark.slow
async def test_the_deadline_of_a_pod_is_counted_from_its_own_start(run_node: RunNode, run_victim: RunVictim) -> None:
    async with run_victim([pod("one", COUNTER, activeDeadlineSeconds=1000)]) as victim:
        await victim.until_ready()
        await victim.kill()
        async with server_of(victim) as server:
            status = await status_of(server, "one")
            patch = MergePatch({"status": {"startTime": "2026-01-01T00:00:00Z"}})
            await client_of(server).patch(PODS, "one", patch, "default", subresource="status")
            async with run_node(server) as stack:
                failed = await stack.until("one", lambda pod: pod.status.phase == "Failed")

    assert status["phase"] == "Running"
    assert failed.status.reason == "DeadlineExceeded"


@pytest.mark.slow
async def test_volumes_are_those_that_were(run_node: RunNode, run_victim: RunVictim) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }
    volumes = [
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "plain", "emptyDir": {}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
    ]
    mounts = [{"name": entry["name"], "mountPath": f"/{entry['name']}"} for entry in volumes]
    script = f"for d in memory plain claim; do echo $d > /$d/file; done; {COUNTER}"
    async with run_victim([claim, pod("one", script, volumes=volumes, volumeMounts=mounts)]) as victim:
        await victim.until_ready()
        await victim.kill()
        async with server_of(victim) as server, run_node(server) as stack:
            await stack.until_ready("one")
            await stack.until_printed("one", "main", "1\n")
            read = await stack.execute("one", "main", ["sh", "-c", "cat /memory/file /plain/file /claim/file"])
            process_of(stack, "one").signal(signal.SIGKILL)
            await stack.until("one", lambda pod: pod.ready and pod.status.container_statuses[0].restart_count == 1)
            again = await stack.execute("one", "main", ["sh", "-c", "ls /memory /plain /claim"])

    assert read.out == b"memory\nplain\nclaim\n"
    assert again.out.count(b"file") == 3


@pytest.mark.slow
async def test_how_a_container_ended_meanwhile_is_known_and_it_is_restarted_if_it_should_be(
    run_node: RunNode, run_victim: RunVictim
) -> None:
    dying = "trap 'echo oops >&2; exit {}' USR1; while :; do sleep 0.01; done"
    never = {"restartPolicy": "Never"}
    pods = [
        pod("once", dying.format(5), **never),
        pod("again", dying.format(5)),
        pod("later", dying.format(6), **never),
    ]
    async with run_victim(pods) as victim:
        await victim.until_ready()
        processes = {entry: first_process(victim.helper, entry) for entry in ("once", "again", "later")}
        await victim.kill()
        for entry in ("once", "again"):
            await end_by_signal(processes[entry])
        async with server_of(victim) as server, run_node(server) as stack:
            once = await stack.until("once", lambda pod: pod.status.phase == "Failed")
            await end_by_signal(processes["later"])
            later = await stack.until("later", lambda pod: pod.status.phase == "Failed")
            again = await stack.until("again", lambda pod: pod.status.container_statuses[0].restart_count == 1)
            said = await stack.log("once", "main")

    assert once.status.container_statuses[0].state.terminated.exit_code == 5
    assert later.status.container_statuses[0].state.terminated.exit_code == 6
    assert again.status.container_statuses[0].last_state.terminated.exit_code == 5
    assert said == "oops\n"


@pytest.mark.slow
async def test_input_and_signals_reach_a_container_that_was_taken_over(
    run_node: RunNode, run_victim: RunVictim
) -> None:
    script = "trap 'echo bye; exit 3' TERM; read line; echo got $line; while :; do sleep 0.01; done"
    async with run_victim([pod("one", script, stdin=True)]) as victim:
        await victim.until_ready()
        await victim.kill()
        async with server_of(victim) as server, run_node(server, stop_grace=5) as stack:
            await stack.until_ready("one")
            async with anyio.create_task_group() as group:
                group.start_soon(partial(stack.attach, "one", "main", stdin=b"hello\n"))
                await stack.until_printed("one", "main", "got hello")
                group.cancel_scope.cancel()
            process_of(stack, "one").signal(signal.SIGTERM)
            again = await stack.until("one", lambda pod: pod.status.container_statuses[0].restart_count == 1)

    assert again.status.container_statuses[0].last_state.terminated.exit_code == 3


@pytest.mark.slow
async def test_policies_hold_all_the_time_and_allowed_connections_are_not_cut(
    run_node: RunNode, run_victim: RunVictim, state_dir: Path
) -> None:
    serve = (
        "import socket, threading\n"
        "def loop(port):\n"
        "  s = socket.create_server(('0.0.0.0', port))\n"
        "  while True: threading.Thread(target=echo, args=(s.accept()[0],)).start()\n"
        "def echo(c):\n"
        "  while d := c.recv(100): c.sendall(d)\n"
        "threading.Thread(target=loop, args=(9000,)).start()\n"
        "loop(9001)\n"
    )
    server_pod = pod("server", "true")
    server_pod["spec"]["containers"][0]["command"] = ["/opt/agent-sandbox/bin/python3", "-c", serve]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "some"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 9000}]}],
        },
    }
    async with run_victim([policy, server_pod]) as victim:
        await victim.until_ready()
        await victim.kill()
        async with server_of(victim) as server:
            address = (await status_of(server, "server"))["podIP"]
    ask = (
        f"import socket, time\n"
        f"def connect(port): return socket.create_connection(('{address}', port), 60)\n"
        "held, count = None, 0\n"
        "while True:\n"
        "  count += 1\n"
        "  if count == 200: print('enough', flush=True)\n"
        "  try:\n"
        "    held = held or connect(9000); held.sendall(b'x'); held.recv(1); print('ok', flush=True)\n"
        "  except OSError as e: print('CUT' if held else 'early', e, flush=True); held = None\n"
        "  try: connect(9001); print('OPEN', flush=True)\n"
        "  except OSError: pass\n"
        "  time.sleep(0.002)\n"
    )
    client_pod = pod("client", "true")
    client_pod["spec"]["containers"][0]["command"] = ["/opt/agent-sandbox/bin/python3", "-c", ask]
    async with run_victim([client_pod], ["client", "server"]) as victim:
        await victim.until_ready()
        with anyio.fail_after(60):
            while not await anyio.to_thread.run_sync(_has_printed, state_dir, "ok\n"):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        await victim.kill()
        await anyio.sleep(AWAY)
        async with server_of(victim) as server, run_node(server) as stack:
            await stack.until_ready("client")
            printed = await stack.until_printed("client", "main", "enough\n")
            restarts = [process_of(stack, name).launch.run for name in ("client", "server")]

    words = [line.split()[0] for line in printed.splitlines()]
    assert set(words) <= {"ok", "early", "enough"}
    assert words[words.index("ok") :].count("early") == 0
    assert restarts == [0, 0]


@pytest.mark.slow
async def test_pods_wait_for_the_next_node_no_longer_than_they_are_told_to(
    run_victim: RunVictim, state_dir: Path
) -> None:
    async with run_victim([pod("one", COUNTER)], survival=0.5) as victim:
        await victim.until_ready()
        helper, process = os.pidfd_open(victim.helper), os.pidfd_open(first_process(victim.helper, "one"))
        await victim.kill()
        await until_ended(process)
        await until_ended(helper)
        assert not await anyio.to_thread.run_sync(end_left_behind, state_dir)
        left = await processes_with_mark()

    assert left == []


@pytest.mark.slow
async def test_what_a_killed_node_left_can_be_ended_without_another(run_victim: RunVictim, state_dir: Path) -> None:
    async with run_victim([pod("one", COUNTER)]) as victim:
        await victim.until_ready()
        await victim.kill()
        ended = await anyio.to_thread.run_sync(end_left_behind, state_dir)
        left = await processes_with_mark()
        again = await anyio.to_thread.run_sync(end_left_behind, state_dir)

    assert (ended, again) == (True, False)
    assert left == []


@pytest.mark.slow
async def test_a_node_without_pods_leaves_no_helper(run_victim: RunVictim) -> None:
    async with run_victim([]) as victim:
        await victim.until_ready()
        helper = os.pidfd_open(victim.helper)
        await victim.kill()
        await until_ended(helper)


@pytest.mark.slow
async def test_a_pod_that_was_being_deleted_does_not_go_on(run_node: RunNode, run_victim: RunVictim) -> None:
    async with run_victim([pod("one", f"trap '' TERM; {COUNTER}"), pod("two", COUNTER)]) as victim:
        await victim.until_ready()
        await victim.kill()
        async with server_of(victim) as server:
            client = client_of(server)
            one = await client.get(PODS, "one", "default")
            await client.delete(PODS, "one", "default", uid=one.metadata.uid, grace_period_seconds=1000)
            async with run_node(server) as stack:
                await stack.until_gone("one")
                await stack.until_ready("two")
                running = await processes_with_mark(" -- sh", expected=1)

    assert len(running) == 1


@pytest.mark.slow
async def test_a_helper_that_was_set_up_for_something_else_is_not_taken_over(
    run_node: RunNode, run_victim: RunVictim, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_victim([pod("one", COUNTER)]) as victim:
        await victim.until_ready()
        pid = first_process(victim.helper, "one")
        await victim.kill()
        monkeypatch.setattr("agent_sandbox.local.node.network.source_digest", lambda: "of a later version")
        async with server_of(victim) as server, run_node(server) as stack:
            await stack.until("one", lambda pod: pod.ready and pod.status.container_statuses[0].restart_count == 1)
            found = process_of(stack, "one").pid
            lives = await anyio.Path(f"/proc/{pid}/exe").exists()  # a zombie, which init has not reaped yet, has none

    assert found != pid
    assert not lives


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(8))
async def test_killed_at_any_moment_of_a_start_each_pod_runs_once(
    run_node: RunNode, run_victim: RunVictim, seed: int
) -> None:
    first = {"name": "first", "image": "localhost/host", "command": ["sh", "-c", "sleep 0.02"]}
    pods = [pod(f"pod-{number}", COUNTER, initContainers=[first]) for number in range(4)]
    async with run_victim(pods, []) as victim:
        await victim.until_created()
        await anyio.sleep(seed * 0.035)
        await victim.kill()
        async with server_of(victim) as server, run_node(server) as stack:
            present = [entry.metadata.name for entry in (await client_of(server).list(PODS)).items]
            for name in present:
                await stack.until_ready(name)
            running = await processes_with_mark(" -- sh", expected=len(present))
            for name in present:
                await stack.delete_pod(name)
            left = await processes_with_mark()

    assert len(running) == len(present)
    assert left == []
