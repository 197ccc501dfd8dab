"""Pods on the real node: from creation to removal, as a kubelet would have it."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import pytest

from agent_sandbox.kube import KubeClient, ServerError
from agent_sandbox.local.node.bubblewrap import ARGS_FD
from agent_sandbox.local.node.bubblewrap_runtime import has_executed
from agent_sandbox.local.node.pods import NODE_PODS
from agent_sandbox_api.core import EVENTS, PODS
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import find_condition

RunNode = Callable[..., Any]

SANDBOX = {"containers": [{"name": "main", "image": "registry.example/python-runtime-sandbox:v1"}]}
SLEEPER = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}


async def test_a_sandbox_becomes_ready_with_an_address_and_answers_through_the_socket_factory(
    run_node: RunNode,
) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", SANDBOX)
        pod = await stack.until_ready("one")

        connector = aiohttp.TCPConnector(socket_factory=stack.node.network.socket_factory)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://{pod.ips[0]}:8888"
            answer = await (await session.post(f"{url}/execute", json={"command": "python -c 'print(6*7)'"})).json()

        assert pod.ips[0].startswith("10.88.")
        assert answer["stdout"] == "42\n"
        assert pod.spec.node_name == "local"


async def test_a_pod_that_is_ready_at_once_costs_one_binding_and_one_status_write(run_node: RunNode) -> None:
    async with run_node(status_settle=20) as stack:
        created = await stack.create_pod("one", {"containers": [SLEEPER]})
        pod = await stack.until_ready("one")
        first, last = int(created.metadata.resource_version), int(pod.metadata.resource_version)
        events = [int(event.metadata.resource_version) for event in (await stack.client.list(EVENTS, "default")).items]

        assert last - first - sum(first < version < last for version in events) == 2


async def test_an_address_without_a_pod_is_refused_and_not_looked_for_outside_the_stack(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [SLEEPER]})
        pod = await stack.until_ready("one")
        await stack.delete_pod("one")

        for address in (pod.ips[0], "10.88.200.200"):
            with pytest.raises(OSError, match="No route to host"):
                await stack.node.network.connect(address, 8080)


async def test_deleting_a_pod_that_heeds_no_signal_takes_no_grace_period(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [SLEEPER], "terminationGracePeriodSeconds": 300})
        await stack.until_ready("one")

        with anyio.fail_after(60):
            await stack.delete_pod("one")

        assert list((stack.state / "pods").iterdir()) == []


async def test_a_process_gets_its_grace_period_to_end_by_itself(run_node: RunNode) -> None:
    # The signal may come while the first line is still being printed, and print is not reentrant.
    script = "import os,signal,sys,time; signal.signal(15, lambda *_: (os.write(1, b'bye\\n'), sys.exit(0)))\n"
    script += "print('up', flush=True)\nwhile True: time.sleep(1)"
    async with run_node() as stack:
        container = {"name": "main", "image": "localhost/host", "command": ["python", "-c", script]}
        await stack.create_pod("one", {"containers": [container]})
        await stack.until_ready("one")
        _, printed = await stack.delete_while_following("one")

        assert printed == "up\nbye\n"


async def test_a_command_that_does_not_exist_says_so_in_the_containers_state(run_node: RunNode) -> None:
    async with run_node() as stack:
        container = {"name": "main", "image": "localhost/host", "command": ["no-such-program", "--flag"]}
        await stack.create_pod("bad", {"containers": [container]})
        waiting = await stack.until_troubled("bad")

        assert waiting.reason == "RunContainerError"
        assert '"no-such-program"' in waiting.message


async def test_an_unknown_image_says_which_images_exist(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("bad", {"containers": [{"name": "main", "image": "nginx:1"}]})
        waiting = await stack.until_troubled("bad")

        assert waiting.reason == "ErrImagePull"
        assert "'nginx:1' does not exist" in waiting.message
        assert "localhost/host" in waiting.message


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"runtimeClassName": "kata"}, "'kata'"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"nodeSelector": {"gpu": "yes"}}, "gpu=yes"),
    ],
)
async def test_a_pod_that_this_machine_cannot_give_stays_pending_and_says_why(
    run_node: RunNode, spec: dict[str, Any], word: str
) -> None:
    async with run_node() as stack:
        await stack.create_pod("wish", {"containers": [SLEEPER], **spec})
        pod = await stack.until("wish", lambda pod: bool(pod.status.conditions))

        condition = find_condition(pod.status.conditions, "PodScheduled")
        assert pod.status.phase == "Pending"
        assert pod.spec.node_name == ""
        assert condition is not None
        assert (condition.status, condition.reason) == ("False", "Unschedulable")
        assert word in condition.message
        with anyio.fail_after(60):  # Events are written in the background
            while (reasons := await _event_reasons(stack.client)) == set():  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.01)
        assert reasons == {"FailedScheduling"}


async def test_a_refusal_that_could_not_be_written_is_written_later(
    run_node: RunNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as told already, and nobody ever heard why the Pod stayed Pending."""
    async with run_node() as stack:
        patch, failures = stack.client.patch, [ServerError(500)]

        async def fail_once(resource: Resource[Any], *arguments: Any, **options: Any) -> Any:
            if resource is NODE_PODS and failures:
                raise failures.pop()
            return await patch(resource, *arguments, **options)

        monkeypatch.setattr(stack.client, "patch", fail_once)
        await stack.create_pod("wish", {"containers": [SLEEPER], "hostNetwork": True})
        pod = await stack.until("wish", lambda pod: bool(pod.status.conditions))

    assert failures == []
    assert "hostNetwork" in pod.status.conditions[0].message


async def _event_reasons(client: KubeClient) -> set[str]:
    names = (await client.list(EVENTS, "default")).items
    found = [await client.get_object(EVENTS, event.metadata.name, "default") for event in names]
    return {str(event["reason"]) for event in found}


async def test_a_container_that_ends_is_started_again_with_its_previous_log_kept(run_node: RunNode) -> None:
    async with run_node(restart_backoff=0.2) as stack:
        container = {"name": "main", "image": "localhost/host", "command": ["sh", "-c", "echo run; exit 3"]}
        await stack.create_pod("loop", {"containers": [container]})
        pod = await stack.until(
            "loop",
            lambda pod: any(
                entry.state.waiting is not None and entry.state.waiting.reason == "CrashLoopBackOff"
                for entry in pod.status.container_statuses
            ),
        )

        entry = pod.status.container_statuses[0]
        assert entry.restart_count >= 1
        assert entry.last_state.terminated is not None
        assert entry.last_state.terminated.exit_code == 3
        assert await stack.log("loop", "main", previous=True) == "run\n"


async def test_a_pod_that_is_never_restarted_succeeds_or_fails_with_its_containers(run_node: RunNode) -> None:
    async with run_node() as stack:
        assert await stack.run_script("good", "echo fine") == "fine\n"
        assert await stack.run_script("bad", "echo broken >&2; exit 7") == "broken\n"

        bad = await stack.client.get(PODS, "bad", "default")
        terminated = bad.status.container_statuses[0].state.terminated
        assert (await stack.client.get(PODS, "good", "default")).status.phase == "Succeeded"
        assert bad.status.phase == "Failed"
        assert terminated is not None
        assert (terminated.exit_code, terminated.reason) == (7, "Error")


async def test_init_containers_run_first_and_in_order_and_share_volumes(run_node: RunNode) -> None:
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}

    def step(name: str, script: str) -> dict[str, Any]:
        return {"name": name, "image": "localhost/host", "command": ["sh", "-c", script], **mount}

    async with run_node() as stack:
        output = await stack.create_pod(
            "ordered",
            {
                "restartPolicy": "Never",
                "volumes": [{"name": "shared", "emptyDir": {}}],
                "initContainers": [step("a", "echo a >> /shared/f"), step("b", "echo b >> /shared/f")],
                "containers": [step("main", "echo c >> /shared/f; cat /shared/f")],
            },
        )
        await stack.until("ordered", lambda pod: pod.status.phase == "Succeeded")

        assert output.status.phase == "Pending"
        assert await stack.log("ordered", "main") == "a\nb\nc\n"


async def test_containers_of_a_pod_share_its_network_and_nothing_else(run_node: RunNode) -> None:
    serve = "import http.server as h; h.HTTPServer(('127.0.0.1', 9000), h.SimpleHTTPRequestHandler).serve_forever()"
    ask = (
        "import time, urllib.request as u\n"
        "while True:\n"
        "    try: print(u.urlopen('http://127.0.0.1:9000').status, flush=True); break\n"
        "    except OSError: time.sleep(0.02)\n"
        "import os; print(sorted(p for p in os.listdir('/proc') if p.isdigit()), flush=True)\n"
        "time.sleep(1000)"
    )
    async with run_node() as stack:
        await stack.create_pod(
            "pair",
            {
                "containers": [
                    {"name": "server", "image": "localhost/host", "command": ["python", "-c", serve]},
                    {"name": "client", "image": "localhost/host", "command": ["python", "-c", ask]},
                ]
            },
        )
        await stack.until_ready("pair")
        output = await stack.until_printed("pair", "client", "]")

        assert output == "200\n['1']\n"


async def test_the_environment_comes_from_values_fields_and_objects(run_node: RunNode) -> None:
    async with run_node() as stack:
        meta = {"namespace": "default"}
        await stack.server.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf", **meta}, "data": {"COLOUR": "blue"}}
        )
        await stack.server.create(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", **meta}, "data": {"token": "czNjcmV0"}}
        )
        env = [
            {"name": "PLAIN", "value": "1"},
            {"name": "BUILT", "value": "$(PLAIN)-$(NOPE)-$$(PLAIN)"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
        ]
        script = "echo $PLAIN $BUILT $POD $IP $TOKEN $COLOUR; cat /conf/COLOUR; hostname; ls -l /conf | wc -l"
        container = {
            "name": "main",
            "image": "localhost/host",
            "command": ["sh", "-c", script],
            "env": env,
            "envFrom": [{"configMapRef": {"name": "conf"}}],
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
        }
        volumes = [{"name": "conf", "configMap": {"name": "conf"}}]
        await stack.create_pod("env", {"containers": [container], "restartPolicy": "Never", "volumes": volumes})
        pod = await stack.until("env", lambda pod: pod.status.phase in {"Succeeded", "Failed"})

        lines = (await stack.log("env", "main")).splitlines()
        assert pod.status.phase == "Succeeded"
        assert lines[0] == f"1 1-$(NOPE)-$(PLAIN) env {lines[0].split()[3]} s3cret blue"
        assert lines[0].split()[3].startswith("10.88.")
        assert lines[1] == "blueenv"


async def test_a_readiness_probe_decides_and_a_failing_liveness_probe_restarts(run_node: RunNode) -> None:
    exec_ready = {"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1}
    exec_dead = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with run_node() as stack:
        await stack.create_pod("slow", {"containers": [{**SLEEPER, "readinessProbe": exec_ready}]})
        await stack.create_pod("sick", {"containers": [{**SLEEPER, "livenessProbe": exec_dead}]})
        first = await stack.until("slow", lambda pod: pod.status.phase == "Running")
        await stack.execute("slow", "main", ["touch", "/tmp/ready"])
        ready = await stack.until_ready("slow")
        sick = await stack.until(
            "sick", lambda pod: any(entry.restart_count for entry in pod.status.container_statuses)
        )

        assert not first.ready
        assert ready.ready
        assert sick.status.container_statuses[0].last_state.terminated is not None


async def test_a_volume_claim_is_bound_survives_its_pod_and_goes_with_its_object(run_node: RunNode) -> None:
    from agent_sandbox_api.core import PERSISTENT_VOLUME_CLAIMS

    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    mount = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]}

    def pod(script: str) -> dict[str, Any]:
        container = {"name": "main", "image": "localhost/host", "command": ["sh", "-c", script]}
        return {
            "restartPolicy": "Never",
            "containers": [{**container, "volumeMounts": [{"name": "data", "mountPath": "/workspace"}]}],
            **mount,
        }

    async with run_node() as stack:
        await stack.create_pod("writer", pod("mkdir d; echo kept > d/f"))
        waiting = await stack.until_troubled("writer")
        await stack.server.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "disk", "namespace": "default"},
                "spec": claim,
            }
        )
        await stack.until("writer", lambda pod: pod.status.phase == "Succeeded")
        await stack.delete_pod("writer")
        await stack.create_pod("reader", pod("cat d/f; echo more >> d/f"))
        await stack.until("reader", lambda pod: pod.status.phase == "Succeeded")
        output = await stack.log("reader", "main")
        await stack.delete_pod("reader")
        bound = await stack.client.get(PERSISTENT_VOLUME_CLAIMS, "disk", "default")
        await stack.client.delete(PERSISTENT_VOLUME_CLAIMS, "disk", "default", uid=bound.metadata.uid)
        await stack.until_empty(stack.state / "volumes")

        assert 'persistentvolumeclaim "disk"' in waiting.message
        assert bound.status.phase == "Bound"
        assert output == "kept\n"


async def test_logs_can_be_cut_stamped_and_followed(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.run_script("many", "for i in 1 2 3 4 5; do echo line $i; done; printf unfinished")

        assert await stack.log("many", "main", tail_lines=2) == "line 5\nunfinished\n"
        assert await stack.log("many", "main", limit_bytes=8) == "line 1\nl"
        stamped = (await stack.log("many", "main", timestamps=True, follow=True)).splitlines()
        assert all(line[4] == "-" and line[29] == "Z" and line[30] == " " for line in stamped)
        assert stamped[0].endswith(" line 1")


async def test_a_command_runs_in_a_living_container_behind_the_same_walls(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [SLEEPER]})
        await stack.until_ready("one")

        session = await stack.execute(
            "one",
            "main",
            ["sh", "-c", "id -u; cat; echo oops >&2; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; exit 5"],
            stdin=b"hello\n",
        )
        processes = await stack.execute("one", "main", ["sh", "-c", "echo /proc/[0-9]*; unshare -U true"])
        missing = await stack.execute("one", "main", ["no-such-program"])

        assert session.code == 5
        assert session.out.split() == [
            b"1000",
            b"hello",
            b"CapEff:",
            b"0000000000000000",
            b"NoNewPrivs:",
            b"1",
            b"Seccomp:",
            b"2",
        ]
        assert session.err == b"oops\n"
        assert processes.out.startswith(b"/proc/1 ")
        assert b"not permitted" in processes.err
        assert missing.code == 126
        assert b'"no-such-program"' in missing.err


async def test_a_manifest_may_name_the_daemon_as_a_clusters_image_has_it(run_node: RunNode) -> None:
    command = ["agent-sandbox", "sandboxd", "--host", "0.0.0.0", "--port", "8888", "--root", "/workspace"]
    probe = {"httpGet": {"path": "/", "port": "http"}}
    ports = [{"name": "http", "containerPort": 8888}]
    container = {**SANDBOX["containers"][0], "command": command, "ports": ports, "readinessProbe": probe}
    async with run_node() as stack:
        await stack.create_pod("one", {"containers": [container]})

        assert (await stack.until_ready("one")).ready


async def test_a_port_is_forwarded_to_a_pod(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("one", SANDBOX)
        await stack.until_ready("one")

        pod = await stack.client.get_object(PODS, "one", "default")
        async with await stack.node.providers.port_forward(pod, 8888) as stream:
            await stream.send(b"GET / HTTP/1.0\r\n\r\n")
            answer = await stream.receive()
        with pytest.raises(OSError, match="refused"):
            await stack.node.providers.port_forward(pod, 9999)

        assert answer.startswith(b"HTTP/1.0 200")


def test_bwrap_has_become_the_command_when_its_own_words_are_gone_and_not_before() -> None:
    """However long it takes, and also if the command is called bwrap itself."""
    options, ours = os.pipe()

    def give_options() -> None:
        os.dup2(options, ARGS_FD)

    command = [str(shutil.which("bwrap")), "--args", str(ARGS_FD), "--", "true"]
    # It reads its options until we close the pipe.
    with subprocess.Popen(command, preexec_fn=give_options, close_fds=False) as waiting:  # noqa: PLW1509
        early = has_executed(waiting.pid)
        waiting.kill()
    os.close(options)
    os.close(ours)
    with subprocess.Popen(["bwrap", "1000"], executable=shutil.which("sleep")) as other:
        while not has_executed(other.pid):  # while the kernel replaces a program, it has no command line at all
            time.sleep(0.001)
        other.kill()

    assert (early, has_executed(other.pid)) == (False, False)
